"""Requests that change attributes, and cut files: SETATTR.

Await first, then decide, then act: `prepare` does what takes long, and the rest is done at once
after it.
"""

import contextlib
import os
from collections.abc import Callable

import trio

from unionfs.changes.attributes import Attributes, NewAttributes
from unionfs.changes.copyup import CopyUp
from unionfs.fuse.content_copies import ContentCopies
from unionfs.host import closing
from unionfs.host.credentials import Requester
from unionfs.layers.layer import WritableLayer
from unionfs.view.node import Node
from unionfs.view.union import Union


class AttributeChanges:
    """The attribute changes of one mount."""

    def __init__(
        self,
        union: Union,
        copyup: CopyUp,
        attributes: Attributes,
        copies: ContentCopies,
        note_change: Callable[[Node], None],
    ) -> None:
        self._union = union
        self._copyup = copyup
        self._attributes = attributes
        self._copies = copies
        self._note_change = note_change  # called when a file changes after it was read last

    def waits(self, node: Node, new: NewAttributes) -> bool:
        """Tell whether content has to be copied up before attributes change, or much cut off."""
        if new.size is None and self._union.leaves_content(node):
            return False
        if new.size is not None and self._copyup.cuts_by_blocks(node, new.size):
            return self._grows_from_edge(node, new.size)
        return self._union.has_lower_content(node) or (
            new.size is not None and self.cuts_much(node, new.size)
        )

    def _grows_from_edge(self, node: Node, size: int) -> bool:
        """Tell whether the lower is read where a file that comes by blocks gets another size."""
        if node.partial:
            return self._copyup.partials.edge(node, size) is not None
        return size > self._union.attributes(node).st_size

    def prepares_at_once(self, node: Node, new: NewAttributes) -> bool:
        """Tell whether `prepare`, which `waits`, waits for no thread and no disk."""
        by_blocks = new.size is not None and self._copyup.cuts_by_blocks(node, new.size)
        # By blocks, a thread reads the one in which the lower ends.
        return not by_blocks and self._copies.brings_at_once(node, new.size)

    async def prepare(self, node: Node, new: NewAttributes, requester: Requester) -> bool:
        """Do what takes long before a file is changed; tell whether it has the new size.

        To take 1 GiB off takes ext4 a quarter of a second.
        """
        if new.size is None:
            await self._copies.bring(node)
            return False
        self._copyup.foresee_content(node, new.size)
        if self._copyup.cuts_by_blocks(node, new.size):
            if self._copyup.by_blocks(node):
                await self._copies.read_edge(node, new.size)
            return False
        with self._permitting_cut(node, new, requester):
            if self._union.has_lower_content(node):
                return await self._copies.bring(node, new.size) is not None
            layer, path = self._union.upper.place(node)
            fd = layer.open_to_write(path, os.O_WRONLY)
            try:
                await self.cut(node, layer, fd, new.size)
            finally:
                os.close(fd)
        return True

    async def cut(self, node: Node, layer: WritableLayer, fd: int, size: int) -> None:
        """Set the size of a file on upper, in a thread where that takes long."""
        if node.partial:
            self._copyup.partials.cut(node, size)
        elif self.cuts_much(node, size):
            await trio.to_thread.run_sync(layer.truncate, fd, size)
        else:
            layer.truncate(fd, size)

    def _permitting_cut(
        self, node: Node, new: NewAttributes, requester: Requester
    ) -> contextlib.AbstractContextManager[None]:
        """Let set-uid bits fall where the size is set."""
        if new.size is not None and new.mode is None:
            return self._attributes.privileges_dropped(node, requester)
        return contextlib.nullcontext()

    def cuts_much(self, node: Node, size: int) -> bool:
        """Tell whether cutting a file to *size* takes so long that a thread does it."""
        if self._union.two_sided:
            return False
        return closing.takes_long(self._union.attributes(node), size)

    def change(
        self, node: Node, new: NewAttributes, fd: int, requester: Requester, *, sized: bool = False
    ) -> os.stat_result:
        """Change attributes at once, and return the new ones.

        The size is changed unless `prepare` has done that.
        """
        self._note_change(node)
        if node.below and self._union.far:
            self._foresee_change(node, new, sized=sized)
        if sized:
            return self._attributes.change(node, new, fd, requester, sized=True)
        with self._permitting_cut(node, new, requester):
            return self._attributes.change(node, new, fd, requester)

    def _foresee_change(self, node: Node, new: NewAttributes, *, sized: bool) -> None:
        """Ask far layers for all that a change, and the reply to it, need of them."""
        if new.size is None or sized:
            self._copyup.foresee(node)
        else:
            self._copyup.foresee_content(node, new.size)
