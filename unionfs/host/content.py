"""Moving the bytes of a file, with its holes, from one descriptor to another.

A reflink where both ends can share blocks (ioctl_ficlone(2)), else
copy_file_range(2) extent by extent (lseek(2), SEEK_DATA), else read and write.
`sync` writes a copy to disk.
Only descriptors are used, so these functions may run in a thread.
"""

import errno
import fcntl
import os

from unionfs.host import mountcalls, syscalls
from unionfs.host.syscalls import FICLONE

ST_BLOCK = 512  # bytes per unit of st_blocks: stat(2)

# Bytes per read(2) where the kernel cannot copy by itself.
_CHUNK = 1 << 20

# Errors that mean "this way does not work between these two files": copy_file_range(2).
_CANNOT = frozenset({errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM})


def taken(size: int, st: os.stat_result) -> int:
    """Return how many bytes of disk *size* bytes of a file take at most: its holes take none."""
    return min(size, st.st_blocks * ST_BLOCK)


def require_room(place: int, size: int, what: str = "a copy") -> None:
    """Raise ENOSPC where the disk that *place* is on has no room for *size* bytes of *what*."""
    room = os.fstatvfs(place)
    if size > room.f_bfree * room.f_frsize:
        raise OSError(errno.ENOSPC, f"upper has no room for {what}")


def share(source: int, target: int) -> bool:
    """Let *target* share all blocks of *source*; tell whether the file systems can."""
    try:
        fcntl.ioctl(target, FICLONE, source)
    except OSError as exc:
        if exc.errno in _CANNOT or exc.errno == errno.ENOTTY:
            return False
        raise
    return True


def copy(source: int, target: int, size: int) -> None:
    """Copy the first *size* bytes; holes stay holes, and *target* gets that size."""
    if os.fstat(target).st_size != size:
        os.ftruncate(target, size)
    copy_part(source, target, 0, size)


def copy_part(source: int, target: int, position: int, size: int) -> None:
    """Copy the bytes from *position* to *size*, except holes."""
    while position < size:
        start = _next_data(source, position)
        if start is None or start >= size:
            return
        end = min(os.lseek(source, start, os.SEEK_HOLE), size)
        _copy_extent(source, target, start, end)
        position = end


def _next_data(source: int, position: int) -> int | None:
    try:
        return os.lseek(source, position, os.SEEK_DATA)
    except OSError as exc:
        if exc.errno == errno.ENXIO:  # nothing but a hole until the end
            return None
        raise


def _copy_extent(source: int, target: int, start: int, end: int) -> None:
    while start < end:
        try:
            copied = os.copy_file_range(source, target, end - start, start, start)
        except OSError as exc:
            if exc.errno not in _CANNOT:
                raise
            _read_and_write(source, target, start, end)
            return
        if copied == 0:  # some file systems do not say so in another way: copy_file_range(2), BUGS
            _read_and_write(source, target, start, end)
            return
        start += copied


def _read_and_write(source: int, target: int, start: int, end: int) -> None:
    while start < end:
        data = os.pread(source, min(_CHUNK, end - start), start)
        if not data:
            raise OSError(errno.EIO, "a file became shorter while it was copied")
        write_all(target, data, start)
        start += len(data)


def write_all(target: int, data: bytes | memoryview, start: int) -> int:
    """Write all of *data* at *start* and return its length; ENOSPC after a part is an error too."""
    view = memoryview(data)
    written = os.pwrite(target, view, start)
    while written < len(view):
        written += os.pwrite(target, view[written:], start + written)
    return written


def sync(fd: int) -> None:
    """Write a directory, or a copy, to disk; may run in a thread."""
    if syscalls.is_btrfs(fd):
        mountcalls.sync_filesystem(fd)
    else:
        os.fsync(fd)
