"""Requests read and replies made without libfuse: the structs of include/uapi/linux/fuse.h.

A reply is made with its header in one piece, so that one write(2) sends it.
Pure functions over bytes.  A request's body may go on behind the struct, mostly
with names.
"""

import os
import struct
from collections.abc import Iterable
from typing import Final

# Opcodes
LOOKUP: Final = 1
FORGET: Final = 2
GETATTR: Final = 3
SETATTR: Final = 4
READLINK: Final = 5
SYMLINK: Final = 6
MKNOD: Final = 8
MKDIR: Final = 9
UNLINK: Final = 10
RMDIR: Final = 11
RENAME: Final = 12
LINK: Final = 13
OPEN: Final = 14
READ: Final = 15
WRITE: Final = 16
STATFS: Final = 17
RELEASE: Final = 18
FSYNC: Final = 20
SETXATTR: Final = 21
GETXATTR: Final = 22
LISTXATTR: Final = 23
REMOVEXATTR: Final = 24
OPENDIR: Final = 27
READDIR: Final = 28
RELEASEDIR: Final = 29
FSYNCDIR: Final = 30
CREATE: Final = 35
INTERRUPT: Final = 36
IOCTL: Final = 39
BATCH_FORGET: Final = 42
FALLOCATE: Final = 43
READDIRPLUS: Final = 44
RENAME2: Final = 45
LSEEK: Final = 46
COPY_FILE_RANGE: Final = 47
TMPFILE: Final = 51

# struct fuse_*_in; x stands for bytes that are not read
FORGET_IN = struct.Struct("=Q")  # nlookup
BATCH_FORGET_IN = struct.Struct("=I4x")  # count
FORGET_ONE = struct.Struct("=QQ")  # nodeid nlookup
MKNOD_IN = struct.Struct("=III4x")  # mode rdev umask
MKDIR_IN = struct.Struct("=II")  # mode umask
RENAME_IN = struct.Struct("=Q")  # newdir
RENAME2_IN = struct.Struct("=QI4x")  # newdir flags
LINK_IN = struct.Struct("=Q")  # oldnodeid
OPEN_IN = struct.Struct("=II")  # flags open_flags
CREATE_IN = struct.Struct("=III4x")  # flags mode umask, for TMPFILE too
READ_IN = struct.Struct("=QQI")  # fh offset size, for READDIR too
WRITE_IN = struct.Struct("=QQII8xI4x")  # fh offset size write_flags flags
FALLOCATE_IN = struct.Struct("=QQQI4x")  # fh offset length mode
LSEEK_IN = struct.Struct("=QqI4x")  # fh offset whence
COPY_FILE_RANGE_IN = struct.Struct("=QQQQQQQ")  # fh_in off_in nodeid_out fh_out off_out len flags
FSYNC_IN = struct.Struct("=QI4x")  # fh fsync_flags, for FSYNCDIR too
IOCTL_IN = struct.Struct("=QIIQII")  # fh flags cmd arg in_size out_size; in_size bytes follow
INTERRUPT_IN = struct.Struct("=Q")  # unique
HANDLE = struct.Struct("=Q")  # fh, the beginning of RELEASE
GETXATTR_IN = struct.Struct("=I4x")  # size
SETXATTR_IN = struct.Struct("=II")  # size flags; without SETXATTR_EXT
# valid fh size atime mtime atimensec mtimensec mode uid gid
SETATTR_IN = struct.Struct("=I4xQQ8xqq8xII4xI4xII4x")

# Bits of setattr's `valid`
FATTR_MODE = 1 << 0
FATTR_UID = 1 << 1
FATTR_GID = 1 << 2
FATTR_SIZE = 1 << 3
FATTR_ATIME = 1 << 4
FATTR_MTIME = 1 << 5
FATTR_FH = 1 << 6
FATTR_TIMES_NOW = 1 << 7 | 1 << 8  # access and modification time
FATTR_KILL_SUIDGID = 1 << 11

OPEN_KILL_SUIDGID = 1 << 0  # of open_flags
WRITE_KILL_SUIDGID = 1 << 2  # of write_flags
FSYNC_FDATASYNC = 1 << 0  # of fsync_flags

_HEADER = "IiQ"  # len error unique
# ino size blocks atime mtime ctime, their nanoseconds, mode nlink uid gid rdev blksize flags
_ATTR = "QQQqqqIIIIIIIIII"
_ENTRY = "QQQQII"  # nodeid generation entry_valid attr_valid, their nanoseconds
_OPEN = "QIi"  # fh open_flags backing_id

_EMPTY = struct.Struct("=" + _HEADER)
_ENTRY_OUT = struct.Struct("=" + _HEADER + _ENTRY + _ATTR)
_ABSENT_OUT = struct.Struct("=" + _HEADER + "8x8xQ8x8x88x")
_ATTR_OUT = struct.Struct("=" + _HEADER + "Q8x" + _ATTR)
_OPEN_OUT = struct.Struct("=" + _HEADER + _OPEN)
_CREATE_OUT = struct.Struct("=" + _HEADER + _ENTRY + _ATTR + _OPEN)
_LSEEK_OUT = struct.Struct("=" + _HEADER + "Q")
_COUNT_OUT = struct.Struct("=" + _HEADER + "I4x")
_IOCTL_OUT = struct.Struct("=" + _HEADER + "i12x")  # result; no flags, nor places to read or write
# blocks bfree bavail files ffree bsize namelen frsize
_STATFS_OUT = struct.Struct("=" + _HEADER + "QQQQQIII28x")
_DIRENT = struct.Struct("=QQII")  # ino off namelen type; the name, padded to 8, follows
_DIRENTPLUS = struct.Struct("=" + _ENTRY + _ATTR + "QQII")

_INVALID_OUT = struct.Struct("=" + _HEADER + "Qqq")  # ino off len; no content where off < 0

_NOTIFY_INVAL_INODE = 2

HEADER_BYTES = _EMPTY.size

# By the length of a name modulo 8.
_PADDING = [bytes(-length % 8) for length in range(8)]

_SECOND = 10**9
_BLOCK_SIZE = 4096  # st_blksize, as libfuse has it

# Seconds for which the kernel may keep names and attributes: without end.
FOREVER = 10**8


def invalid_attributes(ino: int) -> bytes:
    """Return the message that makes the kernel ask for attributes: FUSE_NOTIFY_INVAL_INODE."""
    return _INVALID_OUT.pack(_INVALID_OUT.size, _NOTIFY_INVAL_INODE, 0, ino, -1, 0)


def empty(unique: int) -> bytes:
    """Return a reply that only says that the request was carried out."""
    return _EMPTY.pack(HEADER_BYTES, 0, unique)


def error(unique: int, number: int) -> bytes:
    """Return the reply with the errno *number*."""
    return _EMPTY.pack(HEADER_BYTES, -number, unique)


def absent(unique: int) -> bytes:
    """Return the reply to a lookup that found nothing; the kernel is to remember it."""
    return _ABSENT_OUT.pack(_ABSENT_OUT.size, 0, unique, FOREVER)


def entry(  # noqa: PLR0913, PLR0917
    unique: int, ino: int, st: os.stat_result, links: int, blocks: int, seconds: int
) -> bytes:
    """Return the reply that names an object; *links* and *blocks* take the place of *st*'s.

    The kernel may keep the attributes for *seconds*.
    """
    return _ENTRY_OUT.pack(
        _ENTRY_OUT.size, 0, unique,
        ino, 0, FOREVER, seconds, 0, 0,
        ino, st.st_size, blocks, st[7], st[8], st[9],
        st.st_atime_ns % _SECOND, st.st_mtime_ns % _SECOND, st.st_ctime_ns % _SECOND,
        st.st_mode, links, st.st_uid, st.st_gid, st.st_rdev, _BLOCK_SIZE, 0,
    )  # fmt: skip


def attributes(  # noqa: PLR0913, PLR0917 - as `entry`
    unique: int, ino: int, st: os.stat_result, links: int, blocks: int, seconds: int
) -> bytes:
    """Return the reply to GETATTR and SETATTR."""
    return _ATTR_OUT.pack(
        _ATTR_OUT.size, 0, unique, seconds,
        ino, st.st_size, blocks, st[7], st[8], st[9],
        st.st_atime_ns % _SECOND, st.st_mtime_ns % _SECOND, st.st_ctime_ns % _SECOND,
        st.st_mode, links, st.st_uid, st.st_gid, st.st_rdev, _BLOCK_SIZE, 0,
    )  # fmt: skip


def opened(unique: int, handle: int, flags: int, backing: int = 0) -> bytes:
    """Return the reply to OPEN; *flags* are FOPEN_*."""
    return _OPEN_OUT.pack(_OPEN_OUT.size, 0, unique, handle, flags, backing)


def created(  # noqa: PLR0913, PLR0917
    unique: int, ino: int, st: os.stat_result, handle: int, flags: int, backing: int
) -> bytes:
    """Return the reply to CREATE and TMPFILE, of a new file with the attributes *st*."""
    return _CREATE_OUT.pack(
        _CREATE_OUT.size, 0, unique,
        ino, 0, FOREVER, 0 if backing else FOREVER, 0, 0,  # mappings may change it then
        ino, st.st_size, st.st_blocks, st[7], st[8], st[9],
        st.st_atime_ns % _SECOND, st.st_mtime_ns % _SECOND, st.st_ctime_ns % _SECOND,
        st.st_mode, st.st_nlink, st.st_uid, st.st_gid, st.st_rdev, _BLOCK_SIZE, 0,
        handle, flags, backing,
    )  # fmt: skip


def room(unique: int, figures: os.statvfs_result) -> bytes:
    """Return the reply to STATFS."""
    return _STATFS_OUT.pack(
        _STATFS_OUT.size, 0, unique,
        figures.f_blocks, figures.f_bfree, figures.f_bavail, figures.f_files, figures.f_ffree,
        figures.f_bsize, figures.f_namemax, figures.f_frsize,
    )  # fmt: skip


def sought(unique: int, offset: int) -> bytes:
    """Return the reply to LSEEK."""
    return _LSEEK_OUT.pack(_LSEEK_OUT.size, 0, unique, offset)


def controlled(unique: int, content: bytes = b"") -> bytes:
    """Return the reply to IOCTL, which succeeded and gives the caller *content*."""
    return _IOCTL_OUT.pack(_IOCTL_OUT.size + len(content), 0, unique, 0) + content


def count(unique: int, number: int) -> bytes:
    """Return the reply to requests that write, and to GETXATTR, LISTXATTR that ask for a size."""
    return _COUNT_OUT.pack(_COUNT_OUT.size, 0, unique, number)


def data(unique: int, content: bytes) -> bytes:
    """Return a reply that carries bytes."""
    return _EMPTY.pack(HEADER_BYTES + len(content), 0, unique) + content


def header(unique: int, count: int) -> bytes:
    """Return the header of a reply that carries *count* bytes."""
    return _EMPTY.pack(HEADER_BYTES + count, 0, unique)


def put_header(buffer: memoryview, unique: int, size: int) -> None:
    """Begin *buffer* with the header of a reply of *size* bytes, the header included."""
    _EMPTY.pack_into(buffer, 0, size, 0, unique)


class Listing:
    """The reply to READDIR or READDIRPLUS while it is filled, up to *room* bytes of entries."""

    __slots__ = ("_entries", "_room", "after")

    def __init__(self, room: int) -> None:
        self._room = room
        self.after = 0  # the offset that follows the last entry; 0: there is none
        self._entries: list[bytes] = []

    def add_all(self, entries: Iterable[tuple[bytes, int, int, int]]) -> None:
        """Add names, each with its number, kind (DT_*) and offset, as many as there is room for.

        There may be 100,000, so nothing is called for each that need not be.
        """
        room, put, pack = self._room, self._entries.append, _DIRENT.pack
        for name, ino, kind, offset in entries:
            length = len(name)
            entry = pack(ino, offset, length, kind) + name + _PADDING[length % 8]
            room -= len(entry)
            if room < 0:
                break
            put(entry)
        self._room = room
        if self._entries:
            self.after = _DIRENT.unpack_from(self._entries[-1])[1]

    def add_bare(self, name: bytes, ino: int, kind: int, offset: int) -> bool:
        """Add a name without a node to a READDIRPLUS; it is no look-up: fuse_direntplus_link."""
        attributes = bytes(_DIRENTPLUS.size - _DIRENT.size)
        head = _DIRENT.pack(ino, offset, len(name), kind)
        return self._put(attributes + head, name, offset)

    def add_entry(  # noqa: PLR0913, PLR0917
        self,
        name: bytes,
        ino: int,
        st: os.stat_result,
        links: int,
        blocks: int,
        seconds: int,
        offset: int,
    ) -> bool:
        """Add a name with its attributes (`entry`), which the kernel counts as a look-up."""
        head = _DIRENTPLUS.pack(
            ino, 0, FOREVER, seconds, 0, 0,
            ino, st.st_size, blocks, st[7], st[8], st[9],
            st.st_atime_ns % _SECOND, st.st_mtime_ns % _SECOND, st.st_ctime_ns % _SECOND,
            st.st_mode, links, st.st_uid, st.st_gid, st.st_rdev, _BLOCK_SIZE, 0,
            ino, offset, len(name), st.st_mode >> 12,
        )  # fmt: skip
        return self._put(head, name, offset)

    def _put(self, head: bytes, name: bytes, offset: int) -> bool:
        entry = head + name + _PADDING[len(name) % 8]
        self._room -= len(entry)
        if self._room < 0:
            return False
        self._entries.append(entry)
        self.after = offset
        return True

    def __bool__(self) -> bool:
        """Tell whether there is an entry."""
        return bool(self._entries)

    def reply(self, unique: int) -> bytes:
        """Return the reply."""
        return data(unique, b"".join(self._entries))
