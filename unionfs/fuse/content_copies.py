"""Copies of content that requests wait for: a file comes up before it is changed.

A thread makes copies that take long.  One request at a time brings a file up; others that
need the file wait for the end of that.  Threads see descriptors alone.
"""

import os

import trio

from unionfs.changes.copyup import CopyUp
from unionfs.changes.parts import read_lower
from unionfs.host import content
from unionfs.layers.blockmap import Run
from unionfs.view.content_copy import ContentCopy
from unionfs.view.node import Node
from unionfs.view.union import Union

# Bytes from which copying leaves the event loop: a thread hop costs about 0.1 ms, copying
# 1 MiB about 0.3 ms.
THREAD_BYTES = 1 << 20


class ContentCopies:
    """The copies of one mount."""

    def __init__(self, union: Union, copyup: CopyUp) -> None:
        self._union = union
        self._copyup = copyup
        self._ends: dict[Node, trio.Event] = {}  # node -> the end of its copy by a thread

    def brings_at_once(self, node: Node, size: int | None = None) -> bool:
        """Tell whether a file's content comes up, and is cut to *size*, without any waiting.

        That means: no wait for a thread, a disk or another request.
        """
        if size != 0 and self._copyup.syncs:
            return False
        if node in self._ends or not self._union.has_lower_content(node):
            return False
        if node.partial:
            return size == 0
        return self._union.attributes(node).st_size < THREAD_BYTES

    async def bring(
        self, node: Node, size: int | None = None, flags: int | None = None
    ) -> ContentCopy | None:
        """Copy a file's content up, in a thread if it is large or has to reach the disk.

        With *flags* the copy is kept open.  None: another request was faster, and knew neither
        *size* nor *flags*.
        """
        while self._union.has_lower_content(node):
            event = self._ends.get(node)
            if event is not None:
                await event.wait()
                continue
            if node.partial:
                await self._bring_rest(node, size)
                continue
            copy = self._copyup.begin(node, size, flags)
            # Copying nothing takes no time, and nothing may come between it and the emptying.
            if not copy.size or (not copy.sync and (copy.size < THREAD_BYTES or copy.shared)):
                self._fill(copy)
            else:
                await self._fill_in_thread(copy)
            if copy.published:
                return copy
        return None

    async def _bring_rest(self, node: Node, size: int | None) -> None:
        """Cut a partial copy to *size* bytes, and bring the content that it does not have yet."""
        partials = self._copyup.partials
        if size is not None:
            partials.cut(node, size)
        if node.partial:
            partials.require_room(node, partials.room_for_rest(node))
        while node.partial:
            while (run := partials.rest(node)) is not None:
                data = await self.read_lower(node, run)
                if node.partial:
                    partials.take(node, run.start, data)
            if node.partial:
                await self.sync(node)
            if node.partial:
                partials.finish(node)

    async def bring_part(self, node: Node, start: int, end: int) -> None:
        """Bring all blocks of a partial copy in which room is to be reserved."""
        partials = self._copyup.partials
        partials.require_room(node, min(end - start, partials.room_for_rest(node)))
        while (run := partials.part(node, start, end)) is not None:
            data = await self.read_lower(node, run)
            if node.partial:
                partials.take(node, run.start, data)

    async def read_edge(self, node: Node, size: int) -> None:
        """Read into memory what is read of the lower when a partial copy gets another *size*."""
        run = self._copyup.partials.edge(node, size)
        if run is not None:
            await self.read_lower(node, run)

    async def sync(self, node: Node) -> None:
        """Sync a partial copy's data to the disk."""
        own = os.dup(self._union.upper.partials.of(node).target)
        try:
            with self._union.upper.partials.syncing(node):
                await trio.to_thread.run_sync(content.sync, own)
        finally:
            os.close(own)

    async def read_lower(self, node: Node, run: Run) -> bytes:
        """Read what a partial copy lacks."""
        own = os.dup(self._union.upper.partials.of(node).source)
        try:
            return await trio.to_thread.run_sync(read_lower, own, run)
        finally:
            os.close(own)

    async def bring_wholly(self, node: Node) -> None:
        """Copy a file up with its content where metadata alone is not enough: metacopy=off."""
        if not self._union.leaves_content(node):
            await self.bring(node)

    async def end_of(self, node: Node) -> None:
        """Wait for the end of a copy of a file by a thread, if one is under way."""
        event = self._ends.get(node)
        if event is not None:
            await event.wait()

    async def bring_source(self, parent: Node, name: bytes) -> None:
        """Copy a file up with its content before a rename, where metadata alone is not enough."""
        union = self._union
        if not union.upper or (union.features.metacopy and not union.two_sided):
            return
        found = union.lookup.node(parent, name)
        if found is not None:
            await self.bring_wholly(found[0])

    def _fill(self, copy: ContentCopy) -> None:
        try:
            copy.fill()
        except BaseException:
            self._copyup.abandon(copy)
            raise
        self._copyup.publish(copy)

    async def _fill_in_thread(self, copy: ContentCopy) -> None:
        event = self._ends[copy.node] = trio.Event()
        try:
            await trio.to_thread.run_sync(copy.fill)
        except BaseException:
            self._copyup.abandon(copy)
            raise
        else:
            self._copyup.publish(copy)
        finally:
            del self._ends[copy.node]
            event.set()
