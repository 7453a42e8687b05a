"""Partial copies in use: their maps, and the descriptors of both files that hold the content.

A node is `partial` while upper has some blocks of its content, or may be about to get them; its
`below` is the place of the others.  What is known of such a node stands on disk, so it can be let
go at any time: a record is made when it is needed, and the latest few are kept.  Where upper ends
with the daemon, a map is put down when it is let go.
"""

import contextlib
import dataclasses
import errno
import functools
import logging
import os
from collections.abc import Callable, Iterator

from unionfs.host import extents
from unionfs.layers import markers
from unionfs.layers.blockmap import MOST_BLOCKS, SHIFT, BlockMap, Run, least_shift
from unionfs.layers.layer import WritableLayer
from unionfs.view.node import Node

log = logging.getLogger(__name__)

# Each has two descriptors.
_MOST = 128


@dataclasses.dataclass(slots=True, eq=False)
class Partial:
    """One partial copy."""

    blocks: BlockMap
    recorded: bool  # the map is on disk
    source: int  # descriptor of the lower file
    target: int  # descriptor of the copy, to read: one that writes keeps a disk writable
    stale: bool = False  # the map on disk is another
    pending: bool = False  # so may be that on a disk: it is written before anything else changes
    looked: int = 0  # bytes before which nothing is to be copied: holes of the lower stay unmarked

    def runs(self, start: int, end: int) -> Iterator[Run]:
        """Yield where the content is, up to the end of the file."""
        return self.blocks.runs(start, min(end, self.size()))

    def size(self) -> int:
        """Return the size of the file."""
        return os.fstat(self.target).st_size

    def put_down(self) -> None:
        """Have the map on disk."""
        if self.stale:
            markers.put_blocks(self.target, self.blocks)
            self.stale = False

    def close(self) -> None:
        """Close the descriptors."""
        os.close(self.source)
        os.close(self.target)


class Partials(dict[int, Partial]):
    """Those of one union, by inode number, the one used last at the end."""

    def __init__(self, place: Callable[[Node], tuple[WritableLayer, bytes]]) -> None:
        super().__init__()
        self._place = place
        self._most_blocks = MOST_BLOCKS  # of a new map
        self._lasts = False
        self._least_shift = SHIFT
        self.most = _MOST
        self._lost: set[int] = set()  # the host's inode numbers

    def last(self, most_blocks: int, block_size: int) -> None:
        """Take note that upper goes on after a crash; its file system has blocks of that size."""
        self._lasts, self._most_blocks = True, most_blocks
        self._least_shift = least_shift(block_size)

    def unmarked(self, size: int, most_blocks: int = 0) -> BlockMap:
        """Return a new map, of *most_blocks* at most."""
        return BlockMap.unmarked(size, most_blocks or self._most_blocks, self._least_shift)

    @contextlib.contextmanager
    def writing(self, node: Node) -> Iterator[int]:
        """Open a copy for writing, for as long as that lasts."""
        layer, path = self._place(node)
        fd = layer.open_to_write(path, os.O_RDWR)
        try:
            yield fd
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def syncing(self, node: Node) -> Iterator[None]:
        """Remember where the disk does not take what is synced: fsync(2) says so only once.

        Such a copy is in part as long as the mount lasts.
        """
        try:
            yield
        except OSError:
            self._lost.add(node.host_ino)
            raise

    def rewrite(self, node: Node, fd: int, data: bytes | memoryview, offset: int) -> int:
        """Write to blocks that a copy has; with O_DSYNC that syncs, and is remembered as above."""
        try:
            return os.pwrite(fd, data, offset)
        except OSError as exc:
            if exc.errno == errno.EIO:
                self._lost.add(node.host_ino)
            raise

    def is_lost(self, node: Node) -> bool:
        """Tell whether the disk did not take all that a copy has got."""
        return node.host_ino in self._lost

    def of(self, node: Node) -> Partial:
        """Return what is known of a partial node; it holds until another is asked for."""
        partial = self.pop(node.ino, None) or self._open(node)
        self[node.ino] = partial
        if len(self) > self.most:
            self._forget_one()
        return partial

    def _forget_one(self) -> None:
        """Let go of the one that was not used for longest, and can be; not of the latest."""
        for ino in [*self][:-1]:
            with contextlib.suppress(OSError):  # there is no room for its map
                self[ino].put_down()
                self.forget(ino)
                return

    def _open(self, node: Node) -> Partial:
        layer, path = self._place(node)
        blocks = markers.blocks(layer, path)
        lower = node.lowers[-1]
        source = lower.layer.open(lower.path, os.O_RDONLY)
        try:
            target = layer.open(path, os.O_RDONLY)
        except BaseException:
            os.close(source)
            raise
        if blocks is not None:
            if self._lasts:
                blocks = _found(blocks, target)
            return Partial(blocks, recorded=True, source=source, target=target, pending=self._lasts)
        size = min(os.fstat(source).st_size, os.fstat(target).st_size)
        blocks = self.unmarked(size)
        return Partial(blocks, recorded=False, source=source, target=target)

    def drop(self, ino: int) -> None:
        """Let go of a file that is gone."""
        partial = self.pop(ino, None)
        if partial is not None:
            partial.close()

    def forget(self, ino: int) -> None:
        """Let go of what is known of a node."""
        partial = self.get(ino)
        if partial is None:
            return
        try:
            partial.put_down()
        except OSError:  # it stays
            log.exception("the map of inode %d stays in memory", ino)
            return
        del self[ino]
        partial.close()


def _found(blocks: BlockMap, fd: int) -> BlockMap:
    """Return the map without those blocks that a crash has taken: they have holes (`blockmap`)."""
    taken = [Run(*part, lower=False) for part in extents.unwritten(fd, 0, blocks.limit)]
    for run in blocks.runs(0, blocks.limit):
        at = run.end if run.lower else _hole(fd, run.start)
        while at < run.end:
            end = min(next_data(fd, at), run.end)
            blocks = blocks.without(Run(at, end, lower=False))
            at = _hole(fd, end)
    return functools.reduce(BlockMap.without, taken, blocks)


def _hole(fd: int, start: int) -> int:
    try:
        return os.lseek(fd, start, os.SEEK_HOLE)
    except OSError as exc:
        if exc.errno != errno.ENXIO:
            raise
        return start  # behind the end: a power cut took the size


def next_data(fd: int, start: int) -> int:
    """Return where data begins from *start* on, far away where there is none: lseek(2)."""
    try:
        return os.lseek(fd, start, os.SEEK_DATA)
    except OSError as exc:
        if exc.errno != errno.ENXIO:
            raise
        return 1 << 63
