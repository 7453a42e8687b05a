"""What reaches the disk, and when: fsync(2) of files whose names are new in upper.

A file that was copied up had its name on disk before, in the lower layer.  So
after fsync(2) of such a file its name in upper must be on disk as well, or a
power cut would bring the lower content back: upper's directories are synced up
to the first one that is known to be there.  `fsync=off` syncs nothing
(overlayfs.rst, "Volatile mount").

On btrfs directories and copies are synced by a commit of the file system.  For
fsync(2) btrfs writes to a log instead.  Replayed after a power cut, that log leaves
metadata-only copies in a directory without their size, a renamed object at both
of its names, or no whiteout at the old one (docs/durability.md).  A program's own
fsync(2) of a file is left as it is.
"""

import os
from typing import TYPE_CHECKING

import trio

from unionfs.host import content
from unionfs.view.node import Node

if TYPE_CHECKING:
    from unionfs.view.union import Union


class Durability:
    """The syncing of one union, always in threads: nobody waits for another's disk."""

    def __init__(self, union: "Union") -> None:
        self.union = union

    async def sync_file(self, node: Node, fd: int, *, datasync: bool) -> None:
        """Write a file's content to disk, and its name where copy-up made it."""
        if not self.union.upper or not node.upper or self.union.features.fsync == "off":
            return
        if node.partial:
            await self._sync_partial(node, fd)
        elif self.union.has_lower_content(node):  # the handle is on the lower file
            layer, path = self.union.upper.place(node)
            await _sync_and_close(layer.open(path, os.O_RDONLY))
        else:
            # fdatasync(2) leaves out attributes, such as one that says that the content is below.
            await _sync_content(fd, datasync=datasync and not node.unsynced)
        await self._sync_names(node)

    async def _sync_partial(self, node: Node, fd: int) -> None:
        """Sync a file in part, its map too.

        Each descriptor that was open when the disk did not take something tells so once: fsync(2).
        So it is the client's, unless that is on the lower file.
        """
        upper = self.union.upper
        target = upper.partials.of(node).target
        is_on_copy = fd >= 0 and os.path.sameopenfile(fd, target)
        own = os.dup(fd if is_on_copy else target)
        with upper.partials.syncing(node):
            await _sync_and_close(own)

    async def sync_directory(self, node: Node) -> None:
        """Write a directory's names to disk."""
        if not self.union.upper or self.union.features.fsync == "off":
            return
        for at in self.union.faces(node):
            if at.upper:
                layer, path = self.union.upper.place(at)
                await _sync_and_close(layer.open(path, os.O_RDONLY | os.O_DIRECTORY))
                await self._sync_names(at)

    async def _sync_names(self, node: Node) -> None:
        """Sync the directories that hold names which copy-up made, from *node* up.

        A name counts as synced only when all directories above it are on disk; a copy that was
        made meanwhile does not count.
        """
        synced: list[tuple[Node, int]] = []
        at = node
        while at.unsynced and not at.orphan and at.parent is not None:
            parent, copy = at.parent, at.unsynced
            layer, path = self.union.upper.place(parent)
            await _sync_and_close(layer.open(path, os.O_RDONLY | os.O_DIRECTORY))
            if at.parent is parent:  # else it was moved: its new directory is synced
                synced.append((at, copy))
                at = parent
        for at, copy in synced:
            if at.unsynced == copy:
                at.unsynced = 0


async def _sync_content(fd: int, *, datasync: bool) -> None:
    own = os.dup(fd)  # the handle may be closed or moved while the thread runs
    try:
        await trio.to_thread.run_sync(os.fdatasync if datasync else os.fsync, own)
    finally:
        os.close(own)


async def _sync_and_close(fd: int) -> None:
    try:
        await trio.to_thread.run_sync(content.sync, fd)
    finally:
        os.close(fd)
