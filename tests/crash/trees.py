"""What a tree looks like to a program: everything that must survive, and nothing else."""

import fcntl
import hashlib
import os
import stat
from typing import NamedTuple

from unionfs.layers.iflags import FLAGS, letters

CHANGEABLE = FLAGS.copied | FLAGS.protecting


class Thing(NamedTuple):
    """One object, as seen under one name."""

    mode: int  # type and permissions
    uid: int
    gid: int
    content: bytes = b""  # of a file, or the target of a symlink
    device: int = 0
    links: int = 1  # 1 for directories, whatever the file system says
    attributes: tuple[tuple[str, bytes], ...] = ()
    mtime: int = 0  # ns; 0 where it was not asked for
    flags: int = 0  # those of `CHANGEABLE`

    def __str__(self) -> str:
        shown = self.content
        if len(shown) > 40:
            shown = b"%d bytes, sha1 %s" % (
                len(shown), hashlib.sha1(shown).hexdigest()[:8].encode()
            )  # fmt: skip
        return (
            f"{stat.filemode(self.mode)} {self.links} {self.uid}:{self.gid} "
            f"{shown!r} {dict(self.attributes)} {self.device:x} {self.mtime} {letters(self.flags)}"
        )


Tree = dict[str, Thing]  # path below the root of the tree -> what is there


def harvest(root: str, *, times: bool = False) -> Tree:
    """Return all that is below *root*; with *times*, the mtimes of what is no directory too."""
    tree: Tree = {}
    for directory, directories, files in os.walk(root, onerror=_fail):
        for name in (*directories, *files):
            path = os.path.join(directory, name)
            tree[os.path.relpath(path, root)] = look(path, times=times)
    return tree


def _fail(exc: OSError) -> None:
    raise exc


def look(path: str, *, times: bool = False) -> Thing:
    """Return what is at *path*."""
    st = os.lstat(path)
    directory = stat.S_ISDIR(st.st_mode)
    return Thing(
        st.st_mode,
        st.st_uid,
        st.st_gid,
        _content(path, st.st_mode),
        st.st_rdev,
        1 if directory else st.st_nlink,
        tuple(
            (name, os.getxattr(path, name, follow_symlinks=False))
            for name in sorted(os.listxattr(path, follow_symlinks=False))
        ),
        st.st_mtime_ns if times and not directory else 0,
        _flags(path, st.st_mode),
    )


def _flags(path: str, mode: int) -> int:
    if stat.S_IFMT(mode) not in (stat.S_IFREG, stat.S_IFDIR):
        return 0
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        return FLAGS.flags(fcntl.ioctl(fd, FLAGS.read, bytes(4))) & CHANGEABLE
    except OSError:  # ENOTTY: there are none
        return 0
    finally:
        os.close(fd)


def _content(path: str, mode: int) -> bytes:
    if stat.S_ISLNK(mode):
        return os.fsencode(os.readlink(path))
    if not stat.S_ISREG(mode):
        return b""
    with open(path, "rb") as file:
        return file.read()


def differences(expected: Tree, seen: Tree) -> list[str]:
    """Say in words where *seen* differs from *expected*."""
    words = []
    for path in sorted(expected.keys() | seen.keys()):
        old, new = expected.get(path), seen.get(path)
        if old != new:
            words.append(f"{path}: expected {old or 'nothing'}, is {new or 'nothing'}")
    return words
