"""Removing names: unlink(2), rmdir(2), each in one visible step.

Where something lies below a name, a whiteout takes the place of what upper holds.
"""

import errno

from unionfs.changes import protection
from unionfs.changes.names import Names, error
from unionfs.view.lookup_result import LookupResult
from unionfs.view.node import Node, child_path


class Removals:
    """The removals of one union."""

    def __init__(self, names: Names) -> None:
        self.names = names
        self.union = names.union
        self.upper = names.union.upper

    def unlink(self, parent: Node, name: bytes) -> None:
        """Remove a name that is not a directory."""
        self.union.require_upper()
        if self._cover(parent, name):
            return
        result = self.union.lookup.require(parent, name)
        if result.is_directory:
            raise error(errno.EISDIR)
        protection.require_removable(self.union, parent, result)
        result = self.names.counted(parent, name, result)
        self._remove(parent, name, result)

    def _cover(self, parent: Node, name: bytes) -> bool:
        """Hide a plain file that only a lower holds; say False where it is anything else.

        Making the whiteout tells whether upper holds the name.
        """
        result = self.union.lookup.plain_below(parent, name)
        if result is None:
            return False
        protection.require_removable(self.union, parent, result)
        upper = self.names.directory(parent)
        try:
            self.union.whiteouts.hide_below(upper, child_path(parent, name))
        except FileExistsError:
            return False
        self.names.removed(parent, name, result, self.union.nodes.of(result))
        self.union.known.name_removed(parent, name)
        return True

    def rmdir(self, parent: Node, name: bytes) -> None:
        """Remove a directory that shows no name."""
        self.union.require_upper()
        result = self.union.lookup.require(parent, name)
        if not result.is_directory:
            raise error(errno.ENOTDIR)
        protection.require_removable(self.union, parent, result)
        if not self.union.is_empty(result, self.union.nodes.of(result), child_path(parent, name)):
            raise error(errno.ENOTEMPTY)
        self._remove(parent, name, result)

    def _remove(self, parent: Node, name: bytes, result: LookupResult) -> None:
        if self.names.make_removable([(parent, name)]):
            result = self.union.lookup.require(parent, name)
        upper = self.names.directory(parent)
        path = child_path(parent, name)
        node = self.union.nodes.of(result)
        pinned = self.names.pin(node, result, path)
        try:
            if not result.named:
                self.union.whiteouts.hide_below(upper, path)
            elif self.union.lookup.shows_below(parent, name):
                self.hide(path)
            elif result.is_directory:
                self._remove_directory(path)
            else:
                upper.unlink(path)
        except BaseException:
            self.names.unpin(pinned)
            if node is not None and node.is_merged:
                self.names.look_again(node, parent, name)
            raise
        self.names.removed(parent, name, result, node)
        self.union.known.name_removed(parent, name)

    def hide(self, path: bytes) -> None:
        """Put a whiteout in the place of what upper holds at *path*."""
        upper, staged = self.upper, self.upper.staging.name()
        try:
            directory_left = self.union.whiteouts.hide(upper.work, staged, upper.layer, path)
        except BaseException:
            upper.staging.drop(staged)
            raise
        if directory_left:
            upper.staging.leave(staged)

    def _remove_directory(self, path: bytes) -> None:
        """Remove a directory of upper that shows nothing, with the whiteouts in it, in one step."""
        upper = self.upper.layer
        try:
            upper.rmdir(path)
        except OSError as exc:
            if exc.errno not in {errno.ENOTEMPTY, errno.EEXIST}:  # rmdir(2) has it both ways
                raise
            staged = self.upper.staging.name()
            upper.move(path, self.upper.work, staged)
            self.upper.staging.leave(staged)
