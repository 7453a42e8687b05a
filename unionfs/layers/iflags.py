"""Inode flags of the host: what lsattr(1) shows and chattr(1) sets.

Two pairs of ioctl(2) speak of them (`Form`): ioctl_iflags(2) with a number of
32 bits, ioctl_xfs_fsgetxattr(2) with a struct that begins with such a number, in
bits of its own, and holds a project's number as well.  Two flags protect an
object from any change; they have the same values here as in FS_IOC_GETFLAGS.
"""

import errno
import fcntl
import stat
from typing import NamedTuple

from unionfs.layers.layer import Layer, WritableLayer

KINDS = frozenset({stat.S_IFREG, stat.S_IFDIR})  # of objects that have flags

# include/uapi/linux/fs.h, FS_*_FL
IMMUTABLE = 0x10
APPEND = 0x20
PROTECTING = IMMUTABLE | APPEND
JOURNAL_DATA = 0x4000

_LETTERS = {"S": 0x8, "D": 0x10000, "i": IMMUTABLE, "a": APPEND, "d": 0x40, "A": 0x80}

_NUMBER = slice(4)  # the bytes of the flags
PROJECT = slice(12, 16)  # of `EXTENDED`: the bytes of the project's number
PROJECT_PASSED_ON = 0x200  # of `EXTENDED`: FS_XFLAG_PROJINHERIT

# The errors of a file system without such flags.
_UNKNOWN = frozenset({errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL})


class Form(NamedTuple):
    """One way to speak of flags: the numbers of its ioctls, its size in bytes, and its bits."""

    read: int
    write: int
    size: int
    immutable: int
    append: int
    copied: int  # the flags that copy-up takes along

    def flags(self, data: bytes) -> int:
        """Return the flags in *data*."""
        return int.from_bytes(data[_NUMBER], "little")

    def with_flags(self, data: bytes, flags: int) -> bytes:
        """Return *data* with other flags."""
        return flags.to_bytes(4, "little") + data[4 : self.size]

    @property
    def protecting(self) -> int:
        """Return the bits that protect."""
        return self.immutable | self.append

    def protection(self, flags: int) -> int:
        """Return the protecting ones among *flags*, as `IMMUTABLE` and `APPEND`."""
        return IMMUTABLE * bool(flags & self.immutable) | APPEND * bool(flags & self.append)

    def bits(self, protection: int) -> int:
        """Return the bits of `IMMUTABLE` and `APPEND`."""
        return self.immutable * bool(protection & IMMUTABLE) | self.append * bool(
            protection & APPEND
        )


# Copy-up copies sync and noatime, as kernel overlayfs does (fs/overlayfs/overlayfs.h,
# OVL_COPY_FS_FLAGS_MASK), nodump, and dirsync in the form that has a bit for it.
FLAGS = Form(0x80086601, 0x40086602, 4, IMMUTABLE, APPEND, 0x8 | 0x80 | 0x40 | 0x10000)
EXTENDED = Form(0x801C581F, 0x401C5820, 28, 0x8, 0x10, 0x20 | 0x40 | 0x80)


def read(layer: Layer, path: bytes, form: Form) -> bytes:
    """Return the flags of a file or directory as the host has them; ENOTTY where it has none."""
    return layer.flags(path, form.read, form.size)


def find(layer: Layer, path: bytes, form: Form) -> bytes:
    """Return the flags as `read`, or zeros where the file system has no flags."""
    try:
        return layer.flags(path, form.read, form.size)
    except OSError as exc:
        if exc.errno not in _UNKNOWN:
            raise
        return bytes(form.size)


def find_open(fd: int, form: Form) -> bytes:
    """Return the flags of an open file or directory, as `find`."""
    try:
        return fcntl.ioctl(fd, form.read, bytes(form.size))
    except OSError as exc:
        if exc.errno not in _UNKNOWN:
            raise
        return bytes(form.size)


def protection(layer: Layer, path: bytes, kind: int) -> int:
    """Return what protects an object of a lower layer, of that *kind*: `IMMUTABLE`, `APPEND`.

    statx(2) costs a third of an open, and says no for nearly all objects.  Its yes is not to be
    trusted: on erofs it means that nothing can change there at all.
    """
    if kind not in KINDS or not layer.is_guarded(path):
        return 0
    return FLAGS.flags(find(layer, path, FLAGS)) & PROTECTING


def add(layer: WritableLayer, path: bytes, flags: int) -> None:
    """Set further flags of a file or directory; leave out those not known there."""
    try:
        have = FLAGS.flags(read(layer, path, FLAGS))
        layer.set_flags(path, FLAGS.write, FLAGS.with_flags(b"", have | flags))
    except OSError as exc:
        if exc.errno not in _UNKNOWN:
            raise
        for bit in _bits(flags) if flags & (flags - 1) else ():
            add(layer, path, bit)


def letters(flags: int) -> str:
    """Return the letters that chattr(1) has for flags which copy-up takes along."""
    return "".join(letter for letter, flag in _LETTERS.items() if flags & flag)


def _bits(flags: int) -> list[int]:
    return [1 << place for place in range(32) if flags >> place & 1]
