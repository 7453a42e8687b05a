"""The rest of files that upper has in part, brought while nobody asks for anything: `fill=on`.

A file is filled while nobody has it open for writing.  A thread reads a small piece, and the thread
of the handlers writes it, as it does with all partial copies (`changes/partial_copies`).  Then
comes a pause, a longer one if requests have come.  So a client waits for one piece at most, and a
disk has no more than a few MiB of ours to write at a time.

A node that waits for its rest is kept while it has a name.  Files that earlier mounts have left in
part are looked for before there are requests.
"""

import logging
import os
from collections.abc import Callable
from time import monotonic, perf_counter

import trio

from unionfs.changes import settling
from unionfs.changes.partial_copies import PartialCopies
from unionfs.fuse.content_copies import ContentCopies
from unionfs.host import mountcalls
from unionfs.layers.layer import WritableLayer
from unionfs.view.node import Node
from unionfs.view.union import Union

log = logging.getLogger(__name__)

_PIECE = 256 << 10  # bytes; to write them takes 0.1 ms
_UNSYNCED = 8 << 20  # bytes after which the disk is waited for

# Seconds without a request after which filling goes on; how many times as long as a piece a pause
# lasts.
_QUIET = 0.1
_SHARE = 2

# Seconds until files that were open for writing are tried again, and those that failed.
_LOOK = 2.0
_FAILED = 60.0

# Seconds without any file in part after which upper's signs of them go: to put them back takes the
# thread of the handlers three syncs.
_CALM = 5.0

_KEPT_FREE = 20  # of so many parts of upper's file system, one is left to others


class Filling:
    """The filling of one mount, whose upper is on a disk."""

    def __init__(
        self,
        union: Union,
        copies: ContentCopies,
        partials: PartialCopies,
        was_asked: Callable[[], bool],
        is_written: Callable[[Node], bool],
    ) -> None:
        self._union = union
        self._copies = copies
        self._partials = partials
        self._was_asked = was_asked
        self._is_written = is_written
        self._waiting: dict[Node, float] = {}  # -> when to try it, of `time.monotonic`
        self._begun = trio.Event()
        self._are_others = False  # there are, or were, files in part without a known name
        self._is_full = False  # upper has too little room, which was reported
        union.nodes.partial_came = self._add
        union.nodes.names_went = self._lost

    def find(self) -> None:
        """Take note of what earlier mounts have left; no request may have come yet."""
        if not self._partials.records.is_said:
            return
        found: set[int] = set()
        try:
            for place in settling.places(self._partials):
                self._are_others |= not self._is_found(*place, found)
        except OSError as exc:  # the end of the mount reports it
            log.debug("files in part are not all known: %s", exc)
            self._are_others = True

    def _is_found(self, layer: WritableLayer, path: bytes, found: set[int]) -> bool:
        """Look up a file in part by a name; *found*: the host's numbers of those found so far."""
        try:
            host_ino = layer.stat(path).st_ino
            if layer is self._union.upper.layer and self._is_partial_at(path):
                found.add(host_ino)
        except OSError as exc:  # a fault of one file says nothing of the others
            log.debug("%r is in part, and not filled: %s", path, exc)
            return False
        return host_ino in found

    def _is_partial_at(self, path: bytes) -> bool:
        node = self._union.root
        for name in path.split(b"/"):
            found = self._union.lookup.node(node, name)
            if found is None:
                self._union.nodes.drop_if_unknown(node)
                return False
            node = found[0]
        self._union.nodes.drop_if_unknown(node)
        return node.partial

    def _add(self, node: Node) -> None:
        if node.orphan:  # its rest would be deleted with it
            return
        self._union.nodes.keep(node)
        self._waiting[node] = 0.0
        self._begun.set()

    def _lost(self, node: Node) -> None:
        """Take note of a file that has lost its known names: it may have others in upper."""
        self._are_others |= node.pin < 0 or os.fstat(node.pin).st_nlink > 0

    async def watch(self) -> None:
        """Fill for ever; a bug in it is logged, and ends the filling, but not the mount."""
        try:
            while True:
                await self._fill_all()
                if self._waiting:
                    await trio.sleep(_LOOK)
                elif self._partials.records.is_said and not self._are_others:
                    await self._end_when_calm()
                else:
                    await self._begun.wait()
        except Exception:
            log.exception("files in part are not filled any more")

    def leave(self) -> None:
        """Leave the rest to the end of the mount."""

    async def _fill_all(self) -> None:
        self._begun = trio.Event()
        for node, when in [*self._waiting.items()]:
            if when <= monotonic():
                await self._fill(node)
            if not self._is_in_part(node):
                del self._waiting[node]
                self._union.nodes.keep_no_more(node)

    async def _fill(self, node: Node) -> None:
        """Bring the rest of a file, until somebody opens it for writing."""
        try:
            if self._is_to_be_filled(node) and self._has_room(node):
                await self._bring(node)
        except OSError as exc:
            self._waiting[node] = monotonic() + _FAILED
            log.warning("%r stays in upper in part: %s", node.path, exc.strerror)

    async def _bring(self, node: Node) -> None:
        unsynced = 0
        while await self._may_go_on(node):
            began = perf_counter()
            run = self._partials.rest(node, _PIECE)
            if run is None:
                await self._finish(node)
                return
            data = await self._copies.read_lower(node, run)
            if not self._is_in_part(node):
                return
            self._partials.take(node, run.start, data)
            unsynced += len(data)
            if unsynced >= _UNSYNCED and node.partial:
                unsynced = 0
                await self._copies.sync(node)
            await trio.sleep(_SHARE * (perf_counter() - began))

    async def _finish(self, node: Node) -> None:
        if self._is_in_part(node):
            await self._copies.sync(node)
        if self._is_in_part(node):
            self._partials.finish(node)

    def _is_in_part(self, node: Node) -> bool:
        """Tell whether a node is still in part; a deleted one may have no place any more."""
        return node.partial and node in self._union.nodes.kept

    def _is_to_be_filled(self, node: Node) -> bool:
        if not self._is_in_part(node) or self._partials.suspended:
            return False
        if self._union.upper.partials.is_lost(node):
            return False
        return not self._is_written(node)

    async def _may_go_on(self, node: Node) -> bool:
        """Wait until nobody asks for anything; tell whether a file is still to be filled then."""
        while self._was_asked():  # noqa: ASYNC110 - no event tells that requests have come
            await trio.sleep(_QUIET)
        return self._is_to_be_filled(node)

    def _has_room(self, node: Node) -> bool:
        """Tell whether the rest of a file leaves some room for others; log it once if not."""
        room = os.fstatvfs(self._union.upper.partials.of(node).target)
        left = (room.f_bavail - room.f_blocks // _KEPT_FREE) * room.f_frsize
        if self._partials.room_for_rest(node) <= left:
            return True
        if not self._is_full:
            log.warning("upper has no room to fill %r and others", node.path)
        self._is_full = True
        return False

    async def _end_when_calm(self) -> None:
        """Say that no file is in part, when none has come to be so for a while."""
        with trio.move_on_after(_CALM):
            await self._begun.wait()
        if self._are_any():
            return
        if self._partials.syncs:  # first, all marks are off on the disk, too
            own = os.dup(self._union.upper.layer.fd)
            try:
                await trio.to_thread.run_sync(mountcalls.sync_filesystem, own)
            finally:
                os.close(own)
        if not self._are_any():
            self._partials.records.say_no_more()

    def _are_any(self) -> bool:
        nodes = self._union.nodes
        if self._waiting or any(node.partial for node in nodes.orphans.values()):
            return True
        return any(node.partial for node in nodes.all())
