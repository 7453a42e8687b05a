"""Requests that take names away or give further ones, answered directly; see `direct`.

Where content has to come up first, or a large file goes to another side, a task waits for that:
`name_changes`.
"""

import functools
import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from unionfs.fuse.service import Service
from unionfs.fuse.session import messages
from unionfs.fuse.session.crew import Waiting
from unionfs.view.node import Node

if TYPE_CHECKING:
    from collections.abc import Mapping

    from unionfs.fuse.session.dispatch import Handler


class DirectNames:
    """The direct handlers of one mount for changes of names."""

    def __init__(
        self, service: Service, entry: Callable[[int, Node, os.stat_result], bytes]
    ) -> None:
        """Take also the function that makes the reply that the kernel counts as a look-up."""
        self._nodes = service.union.nodes
        self._changes = service.changes
        self._names = service.name_changes
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
        if self._names.unlinks_at_once(parent, name):
            self._changes.unlink(parent, name)
            return messages.empty(unique)
        return _waiting(unique, functools.partial(self._names.unlink, parent, name))

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
        if self._names.renames_at_once(*change):
            self._changes.rename(*change)
            return messages.empty(unique)
        return _waiting(unique, functools.partial(self._names.rename, *change))

    def _link(
        self, unique: int, parent: int, body: memoryview, _uid: int, _gid: int
    ) -> bytes | Waiting:
        (number,) = messages.LINK_IN.unpack_from(body)
        node, directory = self._nodes[number], self._nodes[parent]
        name = bytes(body[messages.LINK_IN.size : -1])
        if self._names.links_at_once(node, directory, name):
            return self._entry(unique, node, self._changes.link(node, directory, name))

        async def job() -> bytes:
            return self._entry(unique, node, await self._names.link(node, directory, name))

        return Waiting(job)


def _waiting(unique: int, change: Callable[[], Awaitable[None]]) -> Waiting:
    """Return the answer of a task that makes a change."""

    async def job() -> bytes:
        await change()
        return messages.empty(unique)

    return Waiting(job)
