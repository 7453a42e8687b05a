"""Reads and writes of parts of a file, by descriptor; where a write fails, nothing of it shows."""

import contextlib
import errno
import os
from collections.abc import Iterator

from unionfs.host.syscalls import KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE
from unionfs.layers.blockmap import BlockMap, Run
from unionfs.layers.layer import WritableLayer
from unionfs.view.partials import next_data

_FREEING = PUNCH_HOLE | ZERO_RANGE


def frees(mode: int) -> bool:
    """Tell whether fallocate(2) with this mode changes what a file shows."""
    return bool(mode & _FREEING)


def read_lower(fd: int, run: Run) -> bytes:
    """Read from a lower file; EIO where it has become shorter."""
    data = os.pread(fd, run.end - run.start, run.start) if run.end > run.start else b""
    while len(data) < run.end - run.start:
        more = os.pread(fd, run.end - run.start - len(data), run.start + len(data))
        if not more:
            raise OSError(errno.EIO, "a lower file became shorter")
        data += more
    return data


def require_none(error: OSError | None) -> None:
    """Raise the error that has ended a write early."""
    if error is not None:
        raise error


@contextlib.contextmanager
def time_kept(fd: int) -> Iterator[None]:
    """Give a file its modification time back if a change fails: nothing of it may show."""
    before = os.fstat(fd)
    try:
        yield
    except BaseException:
        give_time_back(fd, before)
        raise


def require_some(count: int, error: OSError) -> None:
    """Raise the error that has kept a write from writing anything."""
    if count <= 0:
        raise error


def give_time_back(fd: int, before: os.stat_result) -> None:
    """Give a file the times that it had *before*, and its old size, where it has grown."""
    with contextlib.suppress(OSError):  # another error is reported
        if os.fstat(fd).st_size > before.st_size:
            os.ftruncate(fd, before.st_size)
        os.utime(fd, ns=(before.st_atime_ns, before.st_mtime_ns))


def write_parts(fd: int, parts: list[bytes | memoryview], start: int) -> tuple[int, OSError | None]:
    """Write all *parts*; return where the writing ended, and the error that ended it early."""
    end = start + sum(map(len, parts))
    position = start
    try:
        position += os.pwritev(fd, parts, start)
        while position < end:
            position += os.pwrite(fd, b"".join(parts)[position - start :], position)
    except OSError as exc:
        return position, exc
    return position, None


def write_all(fd: int, data: bytes, start: int) -> None:
    """Write all of *data*, or raise the error that prevents it."""
    require_none(write_parts(fd, [data], start)[1])


def make_holes(layer: WritableLayer, fd: int, blocks: BlockMap, start: int, end: int) -> None:
    """Free what there is of blocks from *start* to *end* that are not the copy's yet.

    That is what an earlier write left which failed, or which a crash took a part of: it would show
    where a crash takes the write that comes next.
    """
    size = os.fstat(fd).st_size
    for run in blocks.runs(start, min(end, blocks.limit)):
        if run.lower and next_data(fd, run.start) < run.end:
            behind = run.end if run.end < size else run.end + (1 << blocks.shift)
            layer.allocate(fd, PUNCH_HOLE | KEEP_SIZE, run.start, behind - run.start)
