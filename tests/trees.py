"""Trees as literals: `plant` makes one on disk, `harvest` reads one back.

A tree maps names (str) to what they are: a str is a file's text, a dict a
directory, `Link` a symlink, `File` a file with mode and attributes, `Opaque` an
opaque directory, `WHITEOUT` a whiteout, `Same` a hard link of an earlier path.
"""

import dataclasses
import os
import stat
from pathlib import Path

_OPAQUE = "trusted.overlay.opaque"


@dataclasses.dataclass(frozen=True)
class _Whiteout:
    pass


WHITEOUT = _Whiteout()


@dataclasses.dataclass(frozen=True)
class Link:
    target: str


@dataclasses.dataclass(frozen=True)
class Same:
    path: str  # from the root of the tree


@dataclasses.dataclass(frozen=True)
class File:
    text: str = ""
    mode: int = 0o644
    xattrs: tuple[tuple[str, bytes], ...] = ()


class Opaque(dict):
    pass


def plant(root: Path, tree: dict, top: Path | None = None) -> Path:
    top = top or root
    root.mkdir(exist_ok=True)
    if isinstance(tree, Opaque):
        os.setxattr(root, _OPAQUE, b"y")
    for name, what in tree.items():
        path = root / name
        if isinstance(what, dict):
            plant(path, what, top)
        elif isinstance(what, Link):
            path.symlink_to(what.target)
        elif isinstance(what, Same):
            path.hardlink_to(top / what.path)
        elif what is WHITEOUT:
            os.mknod(path, stat.S_IFCHR, 0)
        else:
            _plant_file(path, what if isinstance(what, File) else File(what))
    return root


def _plant_file(path: Path, file: File) -> None:
    path.write_text(file.text)
    path.chmod(file.mode)
    for name, value in file.xattrs:
        os.setxattr(path, name, value)


def harvest(root: Path) -> dict:
    opaque = _OPAQUE in os.listxattr(root) and os.getxattr(root, _OPAQUE) == b"y"
    tree = Opaque() if opaque else {}
    for path in sorted(root.iterdir()):
        st = path.lstat()
        if stat.S_ISDIR(st.st_mode):
            tree[path.name] = harvest(path)
        elif stat.S_ISLNK(st.st_mode):
            tree[path.name] = Link(str(path.readlink()))
        elif stat.S_ISCHR(st.st_mode) and st.st_rdev == 0:
            tree[path.name] = WHITEOUT
        elif stat.S_ISREG(st.st_mode):
            tree[path.name] = path.read_text()
        else:
            tree[path.name] = stat.filemode(st.st_mode)
    return tree
