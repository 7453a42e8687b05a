"""Copy-up by blocks: a file that is opened for writing gets its content as that is written.

First there is a metadata-only copy.  A write marks the blocks that it writes to (`blockmap`), and
fills what it leaves of those that it begins and ends in from the lower file; where it fails, the
marks are taken back.  What a crash in between leaves shows the lower still, as it has holes.

Where upper lasts, that it has such files is said before the first (`incomplete`), and all are made
whole when the union ends (`settling`).  A copy is whole when its data is on the disk.

All of this is done by the thread of the handlers, at most two blocks at a time: so no two of them
are at one block.  Who has much to copy reads in a thread, then looks what is still wanted (`rest`,
`take`).
"""

import contextlib
import errno
import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from unionfs.changes.partial_records import PartialRecords
from unionfs.changes.parts import (
    make_holes,
    read_lower,
    require_none,
    require_some,
    time_kept,
    write_all,
    write_parts,
)
from unionfs.host import content, syscalls
from unionfs.layers import markers
from unionfs.layers.blockmap import BlockMap, Run
from unionfs.view.node import Node
from unionfs.view.partials import Partial, next_data

if TYPE_CHECKING:
    from unionfs.view.union import Union

log = logging.getLogger(__name__)

# Bytes from which a file is copied by blocks.  A smaller one takes 75 us, and passes through then.
LEAST = 128 << 10

_CHUNK = 1 << 20  # bytes copied at a time where the whole file is wanted; or a block

# Reads what a change needs of the lower file; it may refuse to.
Reader = Callable[[int, Run], bytes]


class PartialCopies:
    """The partial copies of one union."""

    def __init__(self, union: "Union", *, syncs: bool = False, lasts: bool = False) -> None:
        self.union = union
        self._upper = union.upper
        self._enabled = bool(union.upper) and union.features.copyup == "blocks"
        self.syncs = syncs  # to the disk, what takes the place of what was there
        self.lasts = lasts  # upper is there after a crash
        self.records = PartialRecords(union.upper, syncs=syncs, lasts=lasts)
        self.suspended = False  # new ones are not made: the lowers are being changed
        # Tells whether the kernel reads a lower file by itself, so that it would not see a change.
        self.is_barred: Callable[[Node], bool] = lambda _: False

    def suits(self, node: Node) -> bool:
        """Tell whether a file is one, or shall become one when it is written to."""
        if node.partial:
            return not self._waits_for_disk(node)
        union = self.union
        if node.persisted != union.persisted:  # of two sides one has such copies
            return False
        if not self._enabled or self.suspended or not union.has_lower_content(node):
            return False
        if node in self._upper.fills or self.is_barred(node):
            return False
        if union.far_content(node) is not None or self._may_share(node):
            return False
        return union.attributes(node).st_size >= LEAST

    def _may_share(self, node: Node) -> bool:
        """Tell whether a whole copy takes no time, and no room, as it shares blocks."""
        upper = self._upper.layer
        if not self.lasts or node.lowers[-1].layer.device != upper.device:
            return False
        return syscalls.may_share(upper.fd)

    def _waits_for_disk(self, node: Node) -> bool:
        """Tell whether a copy has all of its content, and the disk has to get it."""
        return self.syncs and self._upper.partials.of(node).blocks.is_complete

    def begin(self, node: Node) -> None:
        """Let a metadata-only copy be partial from now on; in RAM nothing is written.

        On a disk its map is written, as long as it may become: it may be too long for upper.
        """
        if node.partial:
            return
        partial = self._upper.partials.of(node)  # what prevents that is said now
        if self.lasts:
            try:
                self.records.begin(node, partial)
            except BaseException:
                self._upper.partials.forget(node.ino)
                raise
        node.partial = True
        self.union.nodes.note_partial(node)

    def give_up(self, node: Node) -> bool:
        """Let a partial copy be a metadata-only one again, if nothing was written; say if it is.

        Nobody may have it open for writing.
        """
        if not node.partial:
            return True
        if self._upper.partials.of(node).recorded:  # on a disk: always
            return False
        self._upper.partials.forget(node.ino)
        node.partial = False
        return True

    # Changes of content

    def needed(self, node: Node, start: int, end: int) -> list[Run]:
        """Return what a change from *start* to *end* is going to read of the lower file."""
        blocks = self._upper.partials.of(node).blocks
        runs = (blocks.edge(start), *blocks.missing(start, end))
        return [run for run in runs if run and run.end > run.start]

    def edge(self, node: Node, size: int) -> Run | None:
        """Return what is read of the lower where a copy gets another *size*."""
        partial = self._upper.partials.of(node)
        return partial.blocks.edge(size) if size > partial.size() else None

    def write(
        self,
        node: Node,
        fd: int,
        data: bytes | memoryview,
        offset: int,
        read: Reader = read_lower,
    ) -> int:
        """Write *data* at *offset* of a copy, open as *fd*; return how much, as pwrite(2)."""
        partial, end = self._upper.partials.of(node), offset + len(data)
        blocks = partial.blocks
        if partial.recorded and not partial.pending:
            if blocks.has(offset, end):
                return self._upper.partials.rewrite(node, fd, data, offset)
            # In RAM no crash comes between, and so the mark may come last.
            fills = not self.lasts and blocks.is_filled_by(offset, end)
            if fills and os.pwrite(fd, data, offset) == len(data):
                self.records.store(node, partial, blocks.marked(offset, end))
                self._finish_complete(node, partial)
                return len(data)
        return self._write_filled(node, fd, data, offset, read)

    def _write_filled(
        self, node: Node, fd: int, data: bytes | memoryview, offset: int, read: Reader
    ) -> int:
        """Do so where blocks are to be filled from the lower, or marked first."""
        partial, end = self._upper.partials.of(node), offset + len(data)
        self.records.write(node, partial)
        edge = partial.blocks.edge(offset)
        if edge is not None:
            self._take_edge(node, edge, read(partial.source, edge))
            return os.pwrite(fd, data, offset)
        start, parts = self._filled(partial, data, offset, read)
        with time_kept(fd):
            position, error = self._put(node, fd, parts, start)
            if error is not None:
                require_some(position - offset, error)
        self._finish_complete(node, partial)
        return min(position, end) - offset

    def _take_edge(self, node: Node, edge: Run, lower: bytes) -> None:
        """Have the block in which the lower ends, before the copy grows behind that."""
        caller = self.union.acting.now
        self.take(node, edge.start, lower)
        self.union.acting.write_as(*caller[:2])

    @staticmethod
    def _filled(
        partial: Partial, data: bytes | memoryview, offset: int, read: Reader
    ) -> tuple[int, list[bytes | memoryview]]:
        """Return where to write, and what: *data* and the rest of the blocks that it is in."""
        end = offset + len(data)
        head, tail = partial.blocks.missing(offset, end)
        if head.start == offset and end == tail.end:
            return offset, [data]
        return head.start, [read(partial.source, head), data, read(partial.source, tail)]

    def _put(
        self, node: Node, fd: int, parts: list[bytes | memoryview], start: int
    ) -> tuple[int, OSError | None]:
        """Mark blocks and write them; return where that ended, and the error that ended it early.

        Those that were not written have no mark then.
        """
        partial = self._upper.partials.of(node)
        before, end = partial.blocks, start + sum(map(len, parts))
        if self.lasts:
            make_holes(self._upper.layer, fd, before, start, end)
        self.records.store(node, partial, before.marked(start, end))
        position, error = write_parts(fd, parts, start)
        if error is not None:
            position = self._take_back(node, before, Run(start, position, lower=False))
        return position, error

    def _take_back(self, node: Node, before: BlockMap, written: Run) -> int:
        """Take back the marks of blocks that were not written; return where the first begins."""
        partial, at = self._upper.partials.of(node), written.end
        if at < before.limit:
            at = before.beginning(at)
        kept, partial.looked = before.marked(written.start, at), min(partial.looked, at)
        try:
            self.records.store(node, partial, kept)
        except OSError:  # it is stored before anything else changes
            log.exception("%r: the mark of a block cannot be taken back", node.path)
            partial.blocks, partial.pending = kept, True
        return at

    def cut(self, node: Node, size: int) -> None:
        """Set the size of a file."""
        edge = self.edge(node, size)
        if edge is not None:
            source = self._upper.partials.of(node).source
            self._take_edge(node, edge, read_lower(source, edge))
        with self._upper.partials.writing(node) as fd:
            if not node.partial:
                self._upper.layer.truncate(fd, size)
                return
            partial = self._upper.partials.of(node)
            self.records.write(node, partial)
            if self.lasts and size < partial.blocks.limit:
                self._cut_on_disk(node, partial, fd, size)
            else:
                self._cut_in_memory(node, partial, fd, size)
        self._finish_complete(node, partial)

    def _cut_in_memory(self, node: Node, partial: Partial, fd: int, size: int) -> None:
        """Set a size that takes no block from a map, or from one in memory alone."""
        before = partial.blocks
        self.records.store(node, partial, before.cut(size))  # first: what is cut must not come back
        try:
            self._upper.layer.truncate(fd, size)
        except BaseException:
            self.records.store(node, partial, before)
            raise

    def _cut_on_disk(self, node: Node, partial: Partial, fd: int, size: int) -> None:
        """Set a size so that the map changes with it."""
        markers.set_blocks_of_cut(*self._upper.place(node), partial.blocks, size)
        partial.pending = True
        self._upper.layer.truncate(fd, size)
        partial.blocks = partial.blocks.cut(size)
        with contextlib.suppress(OSError):  # it is done before anything else changes
            self.records.write(node, partial)

    def free(  # noqa: PLR0913, PLR0917 - fallocate(2)'s
        self,
        node: Node,
        fd: int,
        mode: int,
        offset: int,
        length: int,
        read: Reader = read_lower,
    ) -> None:
        """Do fallocate(2) with a mode that turns content into zeros; not where upper lasts."""
        partial, end = self._upper.partials.of(node), offset + length
        self.records.write(node, partial)
        with time_kept(fd):
            for run in partial.blocks.missing(offset, min(end, partial.blocks.limit)):
                write_all(fd, read(partial.source, run), run.start)
            self._upper.layer.allocate(fd, mode, offset, length)
            self.records.store(node, partial, partial.blocks.marked(offset, end))
        self._finish_complete(node, partial)

    def record(self, node: Node) -> None:
        """Say on disk that a copy is partial, before anything else changes its file."""
        self.records.write(node, self._upper.partials.of(node))

    # All of the content

    def bring(self, node: Node) -> None:
        """Make the copy whole."""
        self.require_room(node, self.room_for_rest(node))
        while node.partial:
            while (run := self.rest(node)) is not None:
                self.take(node, run.start, read_lower(self._upper.partials.of(node).source, run))
            if not node.partial:
                return
            with self._upper.partials.syncing(node):
                content.sync(self._upper.partials.of(node).target)
            self.finish(node)

    def require_room(self, node: Node, size: int) -> None:
        """Raise ENOSPC where upper has not the room for *size* bytes more of a file."""
        target = self._upper.partials.of(node).target
        content.require_room(target, size, "the rest of a file")

    def room_for_rest(self, node: Node) -> int:
        """Return how many bytes the rest of a file takes at most."""
        partial = self._upper.partials.of(node)
        runs = partial.blocks.runs(0, partial.blocks.limit)
        wanted = sum(run.end - run.start for run in runs if run.lower)
        return content.taken(wanted, os.fstat(partial.source))

    def part(self, node: Node, start: int, end: int) -> Run | None:
        """Return what is to be copied next before room is reserved from *start* to *end*."""
        if not node.partial or not self.lasts:
            return None
        blocks = self._upper.partials.of(node).blocks
        run = blocks.part(start, end)
        return run and blocks.piece(run, _CHUNK)

    def rest(self, node: Node, most: int = _CHUNK) -> Run | None:
        """Return what is to be copied next, a `piece` at a time; None: the copy has all.

        If it is partial still, its data has to reach the disk, and then it can `finish`.
        """
        if not node.partial:
            return None
        partial = self._upper.partials.of(node)
        for run in partial.blocks.runs(partial.looked, partial.blocks.limit):
            partial.looked = self._skip(partial, run) if run.lower else run.end
            if partial.looked < run.end:
                return partial.blocks.piece(run._replace(start=partial.looked), most)
        if not self.syncs:
            self.finish(node)
        return None

    @staticmethod
    def _skip(partial: Partial, run: Run) -> int:
        """Return where that begins which has to be copied: no blocks that are holes in both files.

        They get no mark: who writes to them writes them as a whole.
        """
        if next_data(partial.target, run.start) < run.end:  # left there by what failed
            return run.start
        data = next_data(partial.source, run.start)
        return run.end if data >= run.end else max(run.start, partial.blocks.beginning(data))

    def finish(self, node: Node) -> None:
        """Let a copy that has all of its content, on the disk too, be a file like others.

        It stays partial where there is a `rest` again: a write has failed meanwhile.
        """
        if self._upper.partials.is_lost(node):
            raise OSError(errno.EIO, "the disk did not take all of a file")
        partial = self._upper.partials.of(node)
        if partial.looked < partial.blocks.limit:
            return
        self._finish(node, partial)
        if node.partial:
            raise OSError(errno.EIO, "a mark of a whole file cannot be removed")

    def take(self, node: Node, start: int, data: bytes) -> None:
        """Copy *data*, which the lower has at *start*, as far as it is still the lower's.

        Nothing that is seen changes: the file keeps its time and its capability.
        """
        partial = self._upper.partials.of(node)
        self.records.write(node, partial)
        layer, path = self._upper.place(node)
        self.union.acting.as_root()
        before, capability = layer.stat(path), layer.find_attribute(path, markers.CAPABILITY)
        try:
            if self.lasts:  # a crash before the end leaves them to the next look-up: `metacopies`
                markers.set_mtime(layer, path, before.st_mtime_ns)
                markers.keep_capability(layer, path)
            with self._upper.partials.writing(node) as fd:
                for run in partial.blocks.runs(start, start + len(data)):
                    if run.lower:
                        part = data[run.start - start : run.end - start]
                        require_none(self._put(node, fd, [part], run.start)[1])
        finally:
            layer.utime(path, before.st_atime_ns, before.st_mtime_ns)
            if capability is not None:
                layer.set_attribute(path, markers.CAPABILITY, capability)
            if self.lasts:
                markers.end_mtime(layer, path)
        self._finish_complete(node, partial)

    def _finish_complete(self, node: Node, partial: Partial) -> None:
        blocks = partial.blocks
        if blocks.is_complete and node.partial and not (self.syncs and blocks.limit):
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
