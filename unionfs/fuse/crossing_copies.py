"""Changes of names in a union of two sides; a thread copies large content ahead of them.

Meanwhile others are served.  The change itself takes the copies that are ready (`view/transfers`).
If such a copy has become useless, because the file was changed or is another one by now, the change
copies the content once more.  Content that a rename or link in state has to bring up comes first,
too: state takes no metadata-only copies.
"""

import contextlib
import functools
import os
import stat
from collections.abc import AsyncIterator, Callable
from typing import cast

import trio

from unionfs.changes.changes import Changes
from unionfs.changes.sides import SidedChanges
from unionfs.fuse.content_copies import THREAD_BYTES, ContentCopies
from unionfs.fuse.name_changes import NameChanges
from unionfs.view.node import Node
from unionfs.view.sides import TwoSided
from unionfs.view.transfers import Transfer, Wanted
from unionfs.view.union import Union

# Seconds after which a further change of a file that has just changed shows in its times.
_PAUSE = 0.03

# How many times a file that changes meanwhile is copied ahead.
_TRIES = 3

_What = Callable[[], list[Wanted]]


class CrossingCopies(NameChanges):
    """The copies of one mount that go to the other side."""

    def __init__(self, union: TwoSided, changes: SidedChanges, copies: ContentCopies) -> None:
        super().__init__(union, changes, copies)
        self._union = union
        self._changes: SidedChanges = changes
        self._ends: dict[tuple[Node, bool], trio.Event] = {}  # what goes to state -> the end

    # The changes; a change is made at once if it takes nothing large across

    def unlinks_at_once(self, parent: Node, name: bytes) -> bool:
        """Tell whether `unlink` waits for nothing."""
        return not self._union.twins or not self._large(
            functools.partial(self._changes.wanted_by_unlink, parent, name)
        )

    async def unlink(self, parent: Node, name: bytes) -> None:
        """Remove a name that is not a directory."""
        what = functools.partial(self._changes.wanted_by_unlink, parent, name)
        async with self._ahead(what):
            self._changes.unlink(parent, name)

    def renames_at_once(
        self, parent: Node, name: bytes, new_parent: Node, new_name: bytes, flags: int
    ) -> bool:
        """Tell whether `rename` waits for nothing."""
        if self._comes_whole(parent, name):
            return False
        names = parent, name, new_parent, new_name, flags
        return not self._large(functools.partial(self._changes.wanted_by_rename, *names))

    async def rename(
        self, parent: Node, name: bytes, new_parent: Node, new_name: bytes, flags: int
    ) -> None:
        """Rename as renameat2(2)."""
        await self._copies.bring_source(parent, name)
        names = parent, name, new_parent, new_name, flags
        async with self._ahead(functools.partial(self._changes.wanted_by_rename, *names)):
            self._changes.rename(*names)

    def links_at_once(self, node: Node, parent: Node, name: bytes) -> bool:
        """Tell whether `link` waits for nothing."""
        if not self._union.leaves_content(node) and self._union.has_lower_content(node):
            return False
        return not self._large(functools.partial(self._changes.wanted_by_link, node, parent, name))

    async def link(self, node: Node, parent: Node, name: bytes) -> os.stat_result:
        """Give a file one more name; return its attributes."""
        await self._copies.bring_wholly(node)
        async with self._ahead(functools.partial(self._changes.wanted_by_link, node, parent, name)):
            return self._changes.link(node, parent, name)

    # What is copied ahead

    def _comes_whole(self, parent: Node, name: bytes) -> bool:
        """Tell whether a rename brings content up first."""
        if not self._union.at(parent, name)[0].persisted:
            return False
        with contextlib.suppress(OSError):
            found = self._union.lookup.node(parent, name)
            return found is not None and self._union.has_lower_content(found[0])
        return False

    def _large(self, what: _What) -> list[Wanted]:
        """Return the content for a thread to copy; none where the change itself will fail."""
        try:
            return [one for one in what() if self._is_large(one.node)]
        except OSError:
            return []

    def _is_large(self, node: Node) -> bool:
        is_file = node.format == stat.S_IFREG
        return is_file and self._union.attributes(node).st_size >= THREAD_BYTES

    @contextlib.asynccontextmanager
    async def _ahead(self, what: _What) -> AsyncIterator[None]:
        """Copy ahead of a change, which is made inside; errors of the copying are not reported."""
        made: list[Transfer] = []
        try:
            for _ in range(_TRIES):
                ready = self._union.transfers.is_ready
                missing = [one for one in self._large(what) if not ready(one)]
                if not missing:
                    break
                with contextlib.suppress(OSError):  # the change itself will say so
                    for wanted in missing:
                        await self._copy(wanted, made)
            yield
        finally:
            for transfer in made:
                self._union.transfers.end(transfer)

    async def _copy(self, wanted: Wanted, made: list[Transfer]) -> None:
        key = wanted.node, wanted.side.persisted
        if key in self._ends:
            await self._ends[key].wait()
            return
        event = self._ends[key] = trio.Event()
        wanted.node.lookups += 1
        try:
            await self._copies.end_of(wanted.node)
            transfer = self._changes.begin(wanted)
            if transfer is None:
                await trio.sleep(_PAUSE)
                return
            made.append(transfer)
            await trio.to_thread.run_sync(transfer.fill)
        finally:
            wanted.node.lookups -= 1
            self._union.nodes.drop_if_unknown(wanted.node)
            del self._ends[key]
            event.set()


def of(union: Union, changes: Changes, copies: ContentCopies) -> CrossingCopies:
    """Return the crossing copies of a union with two sides."""
    return CrossingCopies(cast("TwoSided", union), cast("SidedChanges", changes), copies)
