"""Trees: as layers hold them, as a union of layers shows them, and as a program finds them.

`merge` is the law of the union in ten lines, free of I/O and of the product's
code: the plain directory that all others are compared with is planted from it.
"""

import dataclasses
import os
import stat
from collections.abc import Callable, Iterator
from typing import NamedTuple

# ns; a planted time is before it, a time "now" after it (2001-09-09 and 2020-09-13).
RECENT = 1_600_000_000 * 10**9
PLANTED = 1_000_000_000 * 10**9

_ESCAPED = "trusted.overlay.overlay."
_PREFIX = "trusted.overlay."


@dataclasses.dataclass(slots=True, eq=False)
class Leaf:
    """Anything that is no directory; one object under two names is a hard link."""

    mode: int
    owner: tuple[int, int] = (0, 0)
    content: bytes = b""  # of a file; the target of a symlink
    attributes: dict[str, bytes] = dataclasses.field(default_factory=dict)
    mtime: int = PLANTED


@dataclasses.dataclass(slots=True, eq=False)
class Directory:
    """A directory of one layer, or of the union."""

    mode: int = 0o755
    owner: tuple[int, int] = (0, 0)
    attributes: dict[str, bytes] = dataclasses.field(default_factory=dict)
    mtime: int = PLANTED
    opaque: bool = False
    entries: "dict[str, Leaf | Directory | None]" = dataclasses.field(default_factory=dict)


WHITEOUT = None

Thing = Leaf | Directory


def merge(top: Directory, below: Directory) -> Directory:
    """Return what a union of *top* over *below* (itself merged) shows."""
    shown = {} if top.opaque else dict(below.entries)
    for name, thing in top.entries.items():
        if thing is WHITEOUT:
            shown.pop(name, None)
        elif isinstance(thing, Directory):
            under = shown.get(name)
            shown[name] = merge(thing, under if isinstance(under, Directory) else Directory())
        else:
            shown[name] = thing
    return dataclasses.replace(top, opaque=False, entries=shown)


def merged(layers: list[Directory | None]) -> Directory:
    """Return what the union of *layers*, top first, shows; None: a layer without the directory."""
    shown = Directory()
    for layer in reversed(layers):
        if layer is not None:
            shown = merge(layer, shown)
    return shown


def leaves(tree: Directory) -> Iterator[Leaf]:
    """Yield each leaf once per name."""
    for thing in tree.entries.values():
        if isinstance(thing, Directory):
            yield from leaves(thing)
        elif thing is not None:
            yield thing


def find(tree: Directory, path: str) -> Thing | None:
    """Return what *tree* holds at a path, "" being the tree itself."""
    at: Thing | None = tree
    for name in filter(None, path.split("/")):
        at = at.entries.get(name) if isinstance(at, Directory) else None
    return at


# How whiteouts and opaque directories are spelt


def overlay_whiteout(directory: str, name: str) -> None:
    os.mknod(os.path.join(directory, name), stat.S_IFCHR, 0)


def overlay_opaque(directory: str) -> None:
    os.setxattr(directory, "trusted.overlay.opaque", b"y")


def file_whiteout(directory: str, name: str) -> None:
    """Make an xattr whiteout (overlayfs.rst) in a directory that says `opaque=x`."""
    if "trusted.overlay.opaque" not in os.listxattr(directory):
        os.setxattr(directory, "trusted.overlay.opaque", b"x")
    if os.getxattr(directory, "trusted.overlay.opaque") == b"y":  # they do not count there
        overlay_whiteout(directory, name)
        return
    path = os.path.join(directory, name)
    with open(path, "x", encoding="ascii"):
        os.setxattr(path, "trusted.overlay.whiteout", b"y")


def aufs_whiteout(directory: str, name: str) -> None:
    with open(os.path.join(directory, ".wh." + name), "x", encoding="ascii"):
        pass


def aufs_opaque(directory: str) -> None:
    with open(os.path.join(directory, ".wh..wh..opq"), "x", encoding="ascii"):
        pass


class Spelling(NamedTuple):
    """How a layer spells its markers."""

    whiteout: Callable[[str, str], None]
    opaque: Callable[[str], None]
    escape: bool = True  # a user's trusted.overlay.X has another name on disk


OVERLAY = Spelling(overlay_whiteout, overlay_opaque)
FILES = Spelling(file_whiteout, overlay_opaque)
AUFS = Spelling(aufs_whiteout, aufs_opaque)
PLAIN = Spelling(overlay_whiteout, overlay_opaque, escape=False)


def plant(path: str, tree: Directory, spelling: Spelling) -> None:
    """Make *tree* at *path*, which is not there."""
    _plant_directory(path, tree, spelling, {})


def _plant_directory(
    path: str, tree: Directory, spelling: Spelling, planted: dict[int, str]
) -> None:
    os.mkdir(path)
    if tree.opaque:
        spelling.opaque(path)
    for name, thing in tree.entries.items():
        at = os.path.join(path, name)
        if thing is WHITEOUT:
            spelling.whiteout(path, name)
        elif isinstance(thing, Directory):
            _plant_directory(at, thing, spelling, planted)
        elif id(thing) in planted:
            os.link(planted[id(thing)], at, follow_symlinks=False)
        else:
            _plant_leaf(at, thing)
            _dress(at, thing, spelling)
            planted[id(thing)] = at
    _dress(path, tree, spelling)


def _plant_leaf(path: str, leaf: Leaf) -> None:
    if stat.S_ISLNK(leaf.mode):
        os.symlink(leaf.content, path)
    elif stat.S_ISREG(leaf.mode):
        with open(path, "xb") as file:
            file.write(leaf.content)
    else:
        os.mknod(path, leaf.mode, os.makedev(1, 3) if stat.S_ISCHR(leaf.mode) else 0)


def _dress(path: str, thing: Thing, spelling: Spelling) -> None:
    os.chown(path, *thing.owner, follow_symlinks=False)
    if not stat.S_ISLNK(thing.mode):
        os.chmod(path, stat.S_IMODE(thing.mode))
    for name, value in thing.attributes.items():
        stored = name.replace(_PREFIX, _ESCAPED) if spelling.escape else name
        os.setxattr(path, stored, value, follow_symlinks=False)
    os.utime(path, ns=(thing.mtime, thing.mtime), follow_symlinks=False)


# What a program finds


class Seen(NamedTuple):
    """One object as a program finds it: all that must be the same everywhere."""

    mode: int
    uid: int
    gid: int
    rdev: int
    size: int  # 0 for directories: each file system has its own idea
    links: int  # 0 for directories
    mtime: int  # 0: not before the test began
    content: bytes
    attributes: tuple[tuple[str, bytes], ...]

    def __str__(self) -> str:
        shown = self.content if len(self.content) < 40 else self.content[:40] + b"..."
        return (
            f"{stat.filemode(self.mode)} {self.links} {self.uid}:{self.gid} size {self.size}"
            f" rdev {self.rdev:x} mtime {self.mtime} {shown!r} {dict(self.attributes)}"
        )


Harvest = dict[str, Seen]


def mtime_of(st: os.stat_result) -> int:
    return st.st_mtime_ns if st.st_mtime_ns < RECENT else 0


def seen(path: str, st: os.stat_result) -> Seen:
    """Return what is at *path*, which *st* is of."""
    directory = stat.S_ISDIR(st.st_mode)
    names = os.listxattr(path, follow_symlinks=False)
    return Seen(
        st.st_mode, st.st_uid, st.st_gid, st.st_rdev,
        0 if directory else st.st_size,
        0 if directory else st.st_nlink,
        mtime_of(st),
        content_of(path, st),
        tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in sorted(names)),
    )  # fmt: skip


def content_of(path: str, st: os.stat_result) -> bytes:
    if stat.S_ISLNK(st.st_mode):
        return os.readlink(os.fsencode(path))
    if not stat.S_ISREG(st.st_mode):
        return b""
    with open(path, "rb") as file:
        return file.read()


def walk(
    root: str, *, forgiving: bool = False
) -> Iterator[tuple[str, os.DirEntry | None, os.stat_result]]:
    """Yield path below *root*, entry and attributes of all objects, *root* ("") first.

    A name that is listed and not there is an error, or skipped by the *forgiving*.
    """
    yield "", None, os.lstat(root)
    waiting = [""]
    while waiting:
        below = waiting.pop()
        with os.scandir(os.path.join(root, below)) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                st = _look(entry.path, forgiving=forgiving)
                if st is None:
                    continue
                path = os.path.join(below, entry.name)
                yield path, entry, st
                if stat.S_ISDIR(st.st_mode):
                    waiting.append(path)


def _look(path: str, *, forgiving: bool) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except FileNotFoundError:
        if forgiving:
            return None
        raise


def harvest(root: str, *, forgiving: bool = False) -> Harvest:
    """Return all that a program finds at and below *root*."""
    return {
        path: seen(os.path.join(root, path), st) for path, _, st in walk(root, forgiving=forgiving)
    }


def fingerprint(root: str) -> dict[str, tuple[Seen, int, int, int]]:
    """Return all that must not change of a lower layer, down to the change times."""
    if not os.path.lexists(root):
        return {}
    return {
        path: (seen(os.path.join(root, path), st), st.st_mtime_ns, st.st_ctime_ns, st.st_ino)
        for path, _, st in walk(root)
    }


def differences(expected: Harvest, found: Harvest) -> list[str]:
    """Say in words where *found* differs from *expected*."""
    return [
        f"{path or '.'}: expected {expected.get(path, 'nothing')}, is {found.get(path, 'nothing')}"
        for path in sorted(expected.keys() | found.keys())
        if expected.get(path) != found.get(path)
    ]
