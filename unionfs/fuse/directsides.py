"""Requests that may take a file of a union of two sides to the other one: `crossing_copies`.

They stand in the place of those of `direct`; those of a union of one side know nothing of it.
"""

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from unionfs.fuse.crossing_copies import CrossingCopies
from unionfs.fuse.session import messages
from unionfs.fuse.session.crew import Waiting
from unionfs.view.node import Node, NodeTable

if TYPE_CHECKING:
    from unionfs.fuse.session.dispatch import Handler


class DirectSides:
    """The direct handlers of one mount for changes of names across its sides."""

    def __init__(
        self,
        nodes: NodeTable,
        crossing: CrossingCopies,
        entry: Callable[[int, Node, os.stat_result], bytes],
    ) -> None:
        """Take also what makes the reply that the kernel counts as a look-up."""
        self._nodes = nodes
        self._crossing = crossing
        self._entry = entry
        self.table: Mapping[int, Handler] = {
            messages.UNLINK: self._unlink,
            messages.RENAME: self._rename,
            messages.RENAME2: self._rename2,
            messages.LINK: self._link,
        }

    def _unlink(
        self, unique: int, number: int, body: memoryview, _uid: int, _gid: int
    ) -> bytes | Waiting:
        parent, name = self._nodes[number], bytes(body[:-1])
        if self._crossing.unlinks_at_once(parent, name):
            self._crossing.changes.unlink(parent, name)
            return messages.empty(unique)

        async def job() -> bytes:
            await self._crossing.unlink(parent, name)
            return messages.empty(unique)

        return Waiting(job)

    def _rename(
        self, unique: int, parent: int, body: memoryview, _uid: int, _gid: int
    ) -> bytes | Waiting:
        (target,) = messages.RENAME_IN.unpack_from(body)
        return self._move(unique, parent, target, 0, body[messages.RENAME_IN.size : -1])

    def _rename2(
        self, unique: int, parent: int, body: memoryview, _uid: int, _gid: int
    ) -> bytes | Waiting:
        target, flags = messages.RENAME2_IN.unpack_from(body)
        return self._move(unique, parent, target, flags, body[messages.RENAME2_IN.size : -1])

    def _move(
        self, unique: int, parent: int, target: int, flags: int, names: memoryview
    ) -> bytes | Waiting:
        name, new_name = bytes(names).split(b"\0")
        change = self._nodes[parent], name, self._nodes[target], new_name, flags
        if self._crossing.renames_at_once(*change):
            self._crossing.changes.rename(*change)
            return messages.empty(unique)

        async def job() -> bytes:
            await self._crossing.rename(*change)
            return messages.empty(unique)

        return Waiting(job)

    def _link(
        self, unique: int, parent: int, body: memoryview, _uid: int, _gid: int
    ) -> bytes | Waiting:
        (number,) = messages.LINK_IN.unpack_from(body)
        node, directory = self._nodes[number], self._nodes[parent]
        name = bytes(body[messages.LINK_IN.size : -1])
        if self._crossing.links_at_once(node, directory, name):
            return self._entry(unique, node, self._crossing.changes.link(node, directory, name))

        async def job() -> bytes:
            return self._entry(unique, node, await self._crossing.link(node, directory, name))

        return Waiting(job)
