"""Copy-up by blocks: a file that is opened for writing gets its content as that is written.

First there is a metadata-only copy.  A write fills what it leaves of the blocks that it begins and
ends in from the lower file, and then marks them (`blockmap`).  The order is always the same: what
is on disk before the mark says so is not seen, and what fails before it has changed nothing.

All of this is done by the thread of the handlers, at most two blocks at a time: so no two of them
are at one block.  Who has much to copy reads in a thread, then looks what is still wanted (`rest`,
`take`).
"""

import contextlib
import errno
import logging
import os
import stat
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from unionfs.host.syscalls import PUNCH_HOLE, ZERO_RANGE
from unionfs.layers import markers
from unionfs.layers.blockmap import BlockMap, Run
from unionfs.layers.layer import WritableLayer, join
from unionfs.layers.rules import Found
from unionfs.layers.whiteouts import LayerEntry
from unionfs.view.node import Node
from unionfs.view.partials import Partial

if TYPE_CHECKING:
    from unionfs.view.union import Union

log = logging.getLogger(__name__)

# Bytes from which a file is copied by blocks.  A smaller one is copied in 75 us, and is then read
# and written without the daemon.
LEAST = 128 << 10

_CHUNK = 1 << 20  # bytes copied at a time where the whole file is wanted
_BLOCK = 512  # bytes per unit of st_blocks: stat(2)

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


# Reads what a change needs of the lower file; it may refuse to.
Reader = Callable[[int, Run], bytes]


class PartialCopies:
    """The partial copies of one union."""

    def __init__(self, union: "Union") -> None:
        self.union = union
        self._upper = union.upper
        self._enabled = bool(union.upper) and union.features.copyup == "blocks"
        self._volatile = union.features.volatile
        self.suspended = False  # new ones are not made: the lowers are being changed
        # Tells whether the kernel reads a lower file by itself, so that it would not see a change.
        self.is_barred: Callable[[Node], bool] = lambda _: False

    def suits(self, node: Node) -> bool:
        """Tell whether a file is one, or shall become one when it is written to."""
        if node.partial:
            return True
        union = self.union
        if not self._enabled or self.suspended or not union.has_lower_content(node):
            return False
        if node in self._upper.fills or self.is_barred(node):
            return False
        if union.far_content(node) is not None:
            return False
        return union.attributes(node).st_size >= LEAST

    def begin(self, node: Node) -> None:
        """Let a metadata-only copy be partial from now on; nothing is written."""
        if node.partial:
            return
        self._upper.partials.of(node)  # what prevents that is said now
        node.partial = self.union.nodes.has_partials = True

    def give_up(self, node: Node) -> bool:
        """Let a partial copy be a metadata-only one again, if nothing was written; say if it is.

        Nobody may have it open for writing.
        """
        if not node.partial:
            return True
        if self._upper.partials.of(node).recorded:
            return False
        self._upper.partials.forget(node.ino)
        node.partial = False
        return True

    # Changes of content

    def needed(self, node: Node, start: int, end: int) -> list[Run]:
        """Return what a change from *start* to *end* is going to read of the lower file."""
        blocks = self._upper.partials.of(node).blocks
        return [run for run in blocks.missing(start, end) if run.end > run.start]

    def write(
        self, node: Node, data: bytes | memoryview, offset: int, read: Reader = read_lower
    ) -> int:
        """Write *data* at *offset*; return how much of it was written, as pwrite(2)."""
        partial, end = self._upper.partials.of(node), offset + len(data)
        blocks = partial.blocks
        if partial.recorded and blocks.has(offset, end):
            return os.pwrite(partial.target, data, offset)
        self._record(node, partial)
        head, tail = blocks.missing(offset, end)
        parts = [read(partial.source, head), data, read(partial.source, tail)]
        with _time_kept(partial.target):
            position, error = _write(partial.target, parts, head.start)
            if error is not None and position < blocks.limit:
                position = blocks.beginning(position)
            if error is not None and position <= offset:
                raise error
            self._store(node, partial, blocks.marked(offset, min(position, end)))
        self._finish_complete(node, partial)
        return min(position, end) - offset

    def cut(self, node: Node, size: int) -> None:
        """Set the size of a file."""
        partial = self._upper.partials.of(node)
        self._record(node, partial)
        before = partial.blocks
        self._store(node, partial, before.cut(size))  # first: what was cut off must not come back
        try:
            self._upper.layer.truncate(partial.target, size)
        except BaseException:
            self._store(node, partial, before)
            raise
        self._finish_complete(node, partial)

    def free(
        self, node: Node, mode: int, offset: int, length: int, read: Reader = read_lower
    ) -> None:
        """Do fallocate(2) with a mode that turns content into zeros."""
        partial, end = self._upper.partials.of(node), offset + length
        self._record(node, partial)
        with _time_kept(partial.target):
            for run in partial.blocks.missing(offset, min(end, partial.blocks.limit)):
                _write_all(partial.target, read(partial.source, run), run.start)
            self._upper.layer.allocate(partial.target, mode, offset, length)
            self._store(node, partial, partial.blocks.marked(offset, end))
        self._finish_complete(node, partial)

    def record(self, node: Node) -> None:
        """Say on disk that a copy is partial, before anything else changes its file."""
        self._record(node, self._upper.partials.of(node))

    def _record(self, node: Node, partial: Partial) -> None:
        if not partial.recorded:
            self._store(node, partial, partial.blocks)

    def _store(self, node: Node, partial: Partial, blocks: BlockMap) -> None:
        if partial.recorded and blocks == partial.blocks:
            return
        if self._volatile and partial.recorded:
            partial.blocks, partial.stale = blocks, True
            return
        markers.set_blocks(*self._upper.place(node), blocks)
        partial.blocks, partial.recorded = blocks, True

    # All of the content

    def bring(self, node: Node) -> None:
        """Make the copy whole."""
        self.require_room(node)
        while (run := self.rest(node)) is not None:
            self.take(node, run.start, read_lower(self._upper.partials.of(node).source, run))

    def bring_unknown(self) -> None:
        """Make all copies whole that the kernel knows nothing of."""
        if not self.union.nodes.has_partials:
            return
        known = {node.host_ino for node in self.union.nodes.all() if node.partial}
        upper = self._upper
        places = [(upper.layer, path) for path in _files(upper.layer)]
        places += [(upper.work, path) for path in upper.links.paths()]
        for layer, path in places:
            if markers.read(layer, path).partial and layer.stat(path).st_ino not in known:
                self._bring_unknown(layer, path)

    def _bring_unknown(self, layer: WritableLayer, path: bytes) -> None:
        st, marks = layer.stat(path), markers.read(layer, path)
        entry = LayerEntry(Found.METACOPY, self._upper.layer, path, st, marks)
        content = self.union.columns.shown_from(entry, (), b"")[-1].place
        node = Node(0, stat.S_IFREG, st.st_ino, None, b"", upper=True, below=(content,))
        node.partial, node.pin = True, layer.hold(path)
        try:
            self.require_room(node)
            self.bring(node)
        finally:
            self._upper.partials.forget(node.ino)
            os.close(node.pin)

    def require_room(self, node: Node) -> None:
        """Raise ENOSPC where upper has not the room for the rest of a file."""
        partial = self._upper.partials.of(node)
        lower = os.fstat(partial.source)
        runs = partial.blocks.runs(0, partial.blocks.limit)
        wanted = sum(run.end - run.start for run in runs if run.lower)
        room = os.fstatvfs(partial.target)
        if min(wanted, lower.st_blocks * _BLOCK) > room.f_bfree * room.f_frsize:
            raise OSError(errno.ENOSPC, "upper has not the room for the rest of a file")

    def rest(self, node: Node) -> Run | None:
        """Return what is to be copied next, not too much at a time; None: the copy is whole."""
        if not node.partial:
            return None
        partial = self._upper.partials.of(node)
        for run in partial.blocks.runs(0, partial.blocks.limit):
            if run.lower:
                return run._replace(end=min(run.end, run.start + _CHUNK))
        self._finish(node, partial)
        if node.partial:
            raise OSError(errno.EIO, "a mark of a whole file cannot be removed")
        return None

    def take(self, node: Node, start: int, data: bytes) -> None:
        """Copy *data*, which the lower has at *start*, as far as it is still the lower's.

        Nothing that is seen changes: the file keeps its time and its capability.
        """
        partial = self._upper.partials.of(node)
        self._record(node, partial)
        layer, path = self._upper.place(node)
        self.union.acting.as_root()
        before, capability = layer.stat(path), layer.find_attribute(path, markers.CAPABILITY)
        try:
            for run in partial.blocks.runs(start, start + len(data)):
                if run.lower:
                    _write_all(partial.target, data[run.start - start : run.end - start], run.start)
        finally:
            layer.utime(path, before.st_atime_ns, before.st_mtime_ns)
            if capability is not None:
                layer.set_attribute(path, markers.CAPABILITY, capability)
        self._store(node, partial, partial.blocks.marked(start, start + len(data)))
        self._finish_complete(node, partial)

    def _finish_complete(self, node: Node, partial: Partial) -> None:
        if partial.blocks.is_complete and node.partial:
            self._finish(node, partial)

    def _finish(self, node: Node, partial: Partial) -> None:
        """Let a copy that has all of its content be a file like others."""
        layer, path = self._upper.place(node)
        try:
            markers.end_metacopy(layer, path)
        except OSError:  # its map says that nothing is the lower's
            log.exception("%r: that it is whole cannot be said", node.path)
            return
        self.union.known.names_change()
        node.below, node.redirect, node.partial = (), b"", False
        self.union.readers_go_on(node, partial.target)
        self._upper.partials.forget(node.ino)


@contextlib.contextmanager
def _time_kept(fd: int) -> Iterator[None]:
    """Give a file its modification time again where a change fails, of which nothing shows."""
    before = os.fstat(fd)
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):  # the other error is told
            os.utime(fd, ns=(before.st_atime_ns, before.st_mtime_ns))
        raise


def _files(layer: WritableLayer) -> Iterator[bytes]:
    """Yield the paths of all regular files."""
    directories = [b"."]
    while directories:
        directory = directories.pop()
        for entry in layer.scan(directory):
            path = join(directory, entry.name)
            if entry.is_dir(follow_symlinks=False):
                directories.append(path)
            elif entry.is_file(follow_symlinks=False):
                yield path


def _write(fd: int, parts: list[bytes | memoryview], start: int) -> tuple[int, OSError | None]:
    """Write all *parts*; return where that ended, and the error that ended it early."""
    end = start + sum(map(len, parts))
    position = start
    try:
        position += os.pwritev(fd, parts, start)
        while position < end:
            position += os.pwrite(fd, b"".join(parts)[position - start :], position)
    except OSError as exc:
        return position, exc
    return position, None


def _write_all(fd: int, data: bytes, start: int) -> None:
    _, error = _write(fd, [data], start)
    if error is not None:
        raise error
