"""Room that a file has on its disk and that was never written to: fiemap.rst of the kernel.

It reads as zeros.  File systems reserve it for fallocate(2), and ext4 and xfs for each block that
they are about to write, so a power cut leaves such room.  lseek(2) calls it a hole only until
somebody has read from it (mm/filemap.c, mapping_seek_hole_data).
"""

import errno
import fcntl
import struct
from collections.abc import Iterator

_FIEMAP = 0xC020660B  # _IOWR('f', 11, struct fiemap): include/uapi/linux/fs.h
_HEAD = struct.Struct("=QQIIII")  # start, length, flags, extents mapped, room for, reserved
_EXTENT = struct.Struct(
    "=QQQQQIIII"
)  # at, on the disk, length, two reserved; flags, three reserved
_SYNC = 0x1  # FIEMAP_FLAG_*: include/uapi/linux/fiemap.h
_LAST, _UNWRITTEN = 0x1, 0x800  # FIEMAP_EXTENT_*
_AT_ONCE = 128


def unwritten(fd: int, start: int, end: int) -> list[tuple[int, int]]:
    """Return where a file has such room, also where a page of it was read; what is dirty is data.

    Nothing where the file system knows of no extents, as a tmpfs.
    """
    if not any(_unwritten(fd, start, end, 0)):
        return []
    return [*_unwritten(fd, start, end, _SYNC)]  # what is dirty there has got no extent yet


def _unwritten(fd: int, start: int, end: int, flags: int) -> Iterator[tuple[int, int]]:
    while start < end:
        extents = _extents(fd, start, end, flags)
        for at, length, kind in extents:
            if kind & _UNWRITTEN:
                yield max(at, start), min(at + length, end)
        if len(extents) < _AT_ONCE or extents[-1][2] & _LAST:
            return
        start = extents[-1][0] + extents[-1][1]


def _extents(fd: int, start: int, end: int, flags: int) -> list[tuple[int, int, int]]:
    request = bytearray(_HEAD.size + _AT_ONCE * _EXTENT.size)
    _HEAD.pack_into(request, 0, start, end - start, flags, 0, _AT_ONCE, 0)
    try:
        fcntl.ioctl(fd, _FIEMAP, request)
    except OSError as exc:
        if exc.errno in {errno.EOPNOTSUPP, errno.ENOTTY}:
            return []
        raise
    count = _HEAD.unpack_from(request)[3]
    found = _EXTENT.iter_unpack(request[_HEAD.size : _HEAD.size + count * _EXTENT.size])
    return [(at, length, kind) for at, _, length, _, _, kind, *_ in found]
