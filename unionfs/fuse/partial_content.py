"""The merged content of partial copies: blocks of upper's file, and of the lower's between them.

What is in memory is read, and written, at once; what a disk has to be asked for is read by a
thread, which sees descriptors alone.  Then what the lower has is in memory, and the change is made
by the thread of the handlers, as the map says by then.
"""

import errno
import os
from collections.abc import Callable
from typing import TypeVar

import trio

from unionfs.changes.partial_copies import PartialCopies
from unionfs.changes.parts import read_lower
from unionfs.fuse.reading import Reading
from unionfs.fuse.session.pipe import Piece
from unionfs.layers.blockmap import Run
from unionfs.view.node import Node
from unionfs.view.partials import Partial
from unionfs.view.union import Union

_T = TypeVar("_T")

# Bytes of a run from which on splicing it costs less than copying it once more.
_LEAST_SPLICED = 32 << 10


class Cold(Exception):  # noqa: N818 - it says why one has to wait
    """Content of a lower file is not in memory."""


class PartialContent:
    """That of one mount."""

    def __init__(self, union: Union, copies: PartialCopies, reading: Reading) -> None:
        self._union = union
        self._copies = copies
        self._reading = reading

    def read_at_once(self, partial: Partial, runs: list[Run], buffer: memoryview) -> int | None:
        """Fill *buffer*; return the bytes read, or None where it would wait."""
        done = 0
        for start, end, lower in runs:
            room = buffer[done : done + end - start]
            if lower:
                count = self._reading.at_once(partial.source, room, start)
                if count != len(room):
                    return None
            elif self._copies.lasts:
                count = self._reading.at_once(partial.target, room, start)
                if count is None:
                    return None
            else:
                count = os.preadv(partial.target, [room], start)
            done += count
            if count < len(room):
                break
        return done

    def pieces(self, partial: Partial, runs: list[Run]) -> list[Piece]:
        """Return where the content is that can be spliced; nothing where it is cold, or little."""
        pieces: list[Piece] = []
        if runs[-1].end - runs[0].start < len(runs) * _LEAST_SPLICED:
            return pieces
        for start, end, lower in runs:
            fd = partial.source if lower else partial.target
            if (lower or self._copies.lasts) and not self._reading.is_cached(
                fd, end - start, start
            ):
                return []
            pieces.append((fd, start, end - start))
        return pieces

    @staticmethod
    def reader(partial: Partial, runs: list[Run]) -> Callable[[], bytes]:
        """Return what reads the same in a thread; it is to be called once."""
        source = os.dup(partial.source)
        try:
            target = os.dup(partial.target)
        except BaseException:
            os.close(source)
            raise

        def read() -> bytes:
            try:
                return _merged(source, target, runs)
            finally:
                os.close(source)
                os.close(target)

        return read

    async def read(self, node: Node, size: int, offset: int) -> bytes | memoryview:
        """Return up to *size* bytes at *offset*; fewer only at the end of the file."""
        partial, buffer = self._union.upper.partials.of(node), memoryview(bytearray(size))
        runs = [*partial.runs(offset, offset + size)]
        count = self.read_at_once(partial, runs, buffer)
        if count is not None:
            return buffer[:count]
        return await trio.to_thread.run_sync(self.reader(partial, runs))

    def seek(self, node: Node, offset: int, whence: int) -> int:
        """Return where data or a hole begins: lseek(2), SEEK_DATA and SEEK_HOLE."""
        partial = self._union.upper.partials.of(node)
        size = os.fstat(partial.target).st_size
        for run in partial.runs(offset, size):
            found = _seek(partial.source if run.lower else partial.target, run.start, whence)
            if found < run.end:
                return found
        if whence == os.SEEK_HOLE and offset < size:
            return size
        raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))

    def write_at_once(self, node: Node, fd: int, data: bytes | memoryview, offset: int) -> int:
        """Write; `Cold` where that has to wait, before anything is changed."""
        return self._copies.write(node, fd, data, offset, self._read_cached)

    def free_at_once(self, node: Node, fd: int, mode: int, offset: int, length: int) -> None:
        """Do fallocate(2) with a mode that `frees`; `Cold` as above."""
        self._copies.free(node, fd, mode, offset, length, self._read_cached)

    def _read_cached(self, fd: int, run: Run) -> bytes:
        buffer = bytearray(run.end - run.start)
        count = self._reading.at_once(fd, memoryview(buffer), run.start) if buffer else 0
        if count != len(buffer):
            raise Cold
        return bytes(buffer)

    async def when_warm(
        self, node: Node, start: int, end: int, act: Callable[[], _T], otherwise: Callable[[], _T]
    ) -> _T:
        """Read what a change from *start* to *end* needs into memory, and then *act*.

        *otherwise* is done where the copy is whole by then.
        """
        caller = self._union.acting.now
        for run in self._copies.needed(node, start, end) if node.partial else ():
            own = os.dup(self._union.upper.partials.of(node).source)
            try:
                await trio.to_thread.run_sync(read_lower, own, run)
            finally:
                os.close(own)
            if not node.partial:
                break
        self._union.acting.write_as(*caller[:2])
        return act() if node.partial else otherwise()

    async def write(self, node: Node, fd: int, offset: int, data: bytes) -> int:
        """Write to a partial copy, which is open as *fd*; return how much was written."""
        try:
            return self.write_at_once(node, fd, data, offset)
        except Cold:
            return await self.when_warm(
                node,
                offset,
                offset + len(data),
                lambda: self._copies.write(node, fd, data, offset),
                lambda: os.pwrite(fd, data, offset),
            )


def _merged(source: int, target: int, runs: list[Run]) -> bytes:
    parts = []
    for run in runs:
        if run.lower:
            parts.append(read_lower(source, run))
            continue
        parts.append(os.pread(target, run.end - run.start, run.start))
        if len(parts[-1]) < run.end - run.start:  # it was cut meanwhile
            break
    return b"".join(parts)


def _seek(fd: int, start: int, whence: int) -> int:
    try:
        return os.lseek(fd, start, whence)
    except OSError as exc:
        if exc.errno != errno.ENXIO:
            raise
        return 1 << 63  # nothing but a hole, or nothing, until the end
