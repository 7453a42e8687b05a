"""What the disk says of partial copies: that an upper has such files, and the map of each.

Where upper lasts, all of it is said before the file changes that it is about.  In RAM a map is
written when the file is let go (`view/partials`).
"""

from typing import TYPE_CHECKING

from unionfs.layers import incomplete, markers
from unionfs.layers.blockmap import FEWER_BLOCKS, MOST_BLOCKS_ON_DISK, BlockMap
from unionfs.view.node import Node
from unionfs.view.partials import Partial

if TYPE_CHECKING:
    from unionfs.view.upper import Upper


class PartialRecords:
    """What is said of those of one upper."""

    def __init__(self, upper: "Upper", *, syncs: bool, lasts: bool) -> None:
        self._upper = upper
        self._syncs = syncs
        self._lasts = lasts
        self._most = MOST_BLOCKS_ON_DISK if lasts else 0
        self.is_said = False  # that upper has such files
        if lasts:
            upper.partials.last(self._most, upper.layer.statvfs().f_bsize)
            if incomplete.is_said(upper.layer):
                self._say()  # maybe it has another work directory now

    def _say(self) -> None:
        if not self.is_said:
            incomplete.say(self._upper.layer, self._upper.work, syncs=self._syncs)
            self.is_said = True

    def say_no_more(self) -> None:
        """Let whoever knows nothing of partial copies have the upper again: there are none."""
        incomplete.end(self._upper.layer, self._upper.work)
        self.is_said = False

    def begin(self, node: Node, partial: Partial) -> None:
        """Have an empty map on disk; of larger blocks where upper has not the room for it."""
        try:
            self.write(node, partial)
        except OSError as exc:
            if not markers.has_no_room(exc):
                raise
            partial.blocks = self._upper.partials.unmarked(partial.blocks.limit, FEWER_BLOCKS)
            self.write(node, partial)

    def write(self, node: Node, partial: Partial) -> None:
        """Say that a copy is partial, before anything else changes its file."""
        if not partial.recorded:
            if self._lasts:
                self._say()
                markers.bar_metacopy(*self._upper.place(node))
            self._write_map(node, partial, partial.blocks)
        elif partial.pending:
            self._write_map(node, partial, partial.blocks)

    def store(self, node: Node, partial: Partial, blocks: BlockMap) -> None:
        """Give a copy another map."""
        if not self._lasts:
            partial.blocks, partial.stale = blocks, True
        elif blocks != partial.blocks:
            self._write_map(node, partial, blocks)

    def _write_map(self, node: Node, partial: Partial, blocks: BlockMap) -> None:
        markers.set_blocks(*self._upper.place(node), blocks, self._most)
        partial.blocks, partial.recorded, partial.pending = blocks, True, False
