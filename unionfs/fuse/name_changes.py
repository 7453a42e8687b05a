"""Changes of names, for which content may have to come to upper first.

Each change can be asked whether it is made at once; else it waits for content.  A union of
two sides has `CrossingCopies` in the place of this.
"""

import os

from unionfs.changes.changes import Changes
from unionfs.fuse.content_copies import ContentCopies
from unionfs.view.node import Node
from unionfs.view.union import Union


class NameChanges:
    """The changes of names of one mount."""

    def __init__(self, union: Union, changes: Changes, copies: ContentCopies) -> None:
        self._leaves_content = union.features.metacopy
        self._changes = changes
        self._copies = copies

    def unlinks_at_once(self, _parent: Node, _name: bytes) -> bool:
        """Tell whether `unlink` waits for nothing."""
        return True

    async def unlink(self, parent: Node, name: bytes) -> None:
        """Remove a name that is not a directory."""
        self._changes.unlink(parent, name)

    def renames_at_once(
        self, _parent: Node, _name: bytes, _new_parent: Node, _new_name: bytes, _flags: int
    ) -> bool:
        """Tell whether `rename` waits for nothing."""
        return self._leaves_content

    async def rename(
        self, parent: Node, name: bytes, new_parent: Node, new_name: bytes, flags: int
    ) -> None:
        """Rename as renameat2(2)."""
        await self._copies.bring_source(parent, name)
        self._changes.rename(parent, name, new_parent, new_name, flags)

    def links_at_once(self, _node: Node, _parent: Node, _name: bytes) -> bool:
        """Tell whether `link` waits for nothing."""
        return self._leaves_content

    async def link(self, node: Node, parent: Node, name: bytes) -> os.stat_result:
        """Give a file one more name; return its attributes."""
        await self._copies.bring_wholly(node)
        return self._changes.link(node, parent, name)
