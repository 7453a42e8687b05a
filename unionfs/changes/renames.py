"""Renaming, in any direction between layers: rename(2), renameat2(2).

What the names show decides whether it may be done (`rules`); the names are prepared without any
change that is seen; and one system call on upper does it.  A file that is in upper as a whole, as
editors and package managers replace files, needs no preparing.
"""

import errno
import stat
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from unionfs.changes import protection
from unionfs.changes.names import FOR_STATE, Names, error
from unionfs.host import syscalls
from unionfs.layers import rules
from unionfs.view.lookup_result import LookupResult
from unionfs.view.node import Node, child_path

if TYPE_CHECKING:
    import os

# A directory of the union and a name in it.
_Name = tuple[Node, bytes]


class Target(NamedTuple):
    """What a new name shows, which is to give way."""

    result: LookupResult
    node: Node | None  # where the kernel knows it
    path: bytes
    is_directory: bool = False
    # What upper's directory still holds, and shows none of: whiteouts.
    spent: Sequence["os.DirEntry[bytes]"] = ()


def _is_in_upper(source: LookupResult) -> bool:
    """Tell whether a file is in upper as a whole, under the very name that it shows."""
    elsewhere = source.below or source.redirect or source.link
    return source.named and not elsewhere and not stat.S_ISDIR(source.st.st_mode)


def require_free(target: LookupResult | None, flags: int) -> None:
    """Raise EEXIST where a new name is taken that must not be: RENAME_NOREPLACE.

    EINVAL for other flags than that one.
    """
    if flags & ~syscalls.RENAME_NOREPLACE:
        raise error(errno.EINVAL)
    if flags and target is not None:
        raise error(errno.EEXIST)


class Renames:
    """The renames of one union."""

    def __init__(self, names: Names) -> None:
        self.names = names
        self.union = names.union
        self.upper = names.union.upper

    def rename(
        self, parent: Node, name: bytes, new_parent: Node, new_name: bytes, flags: int
    ) -> None:
        """Rename as renameat2(2) with RENAME_NOREPLACE or RENAME_EXCHANGE."""
        union, old, new = self.union, (parent, name), (new_parent, new_name)
        union.require_upper()
        source = union.lookup.require(parent, name)
        if union.whiteouts.reserved(new_name):
            raise error(errno.EPERM)
        absent = union.known.is_absent(new_parent, new_name)
        target = None if absent else union.lookup.find(new_parent, new_name)
        self._permit((parent, source), (new_parent, target))
        if flags == syscalls.RENAME_EXCHANGE:
            self._exchange(old, source, new, target)
            return
        if flags:
            require_free(target, flags)
        if target is not None and target.is_same(source):
            return  # links of one file keep both names: rename(2)
        giving_way = self.giving_way(source, new, target)
        names = [old, new] if giving_way is not None and giving_way.is_directory else [old]
        if self.names.make_removable(names):
            source, target = union.lookup.require(*old), union.lookup.find(*new)
            giving_way = self.giving_way(source, new, target)
        self._rename(source, old, new, giving_way)

    def _permit(
        self, old: tuple[Node, LookupResult], new: tuple[Node, LookupResult | None]
    ) -> None:
        """Raise EPERM where a name must not be taken away; links of one file keep theirs."""
        target = new[1]
        if target is not None:
            if target.is_same(old[1]):
                return
            protection.require_removable(self.union, new[0], target)
        protection.require_removable(self.union, *old)

    def giving_way(
        self, source: LookupResult, new: _Name, target: LookupResult | None
    ) -> Target | None:
        """Return what is to give way to *source*; raise what rename(2) does where it must not."""
        if target is None:
            return None
        node, path = self.union.nodes.of(target), child_path(*new)
        is_directory, over = stat.S_ISDIR(source.st.st_mode), stat.S_ISDIR(target.st.st_mode)
        if not is_directory and not over:
            return Target(target, node, path)
        held, empty = [], False
        if is_directory and over:
            held = self.upper.layer.scan(path) if target.named else []
            empty = self.union.is_empty(target, node, path, held)
        rules.require_replaceable(
            source_is_directory=is_directory, target_is_directory=over, target_is_empty=empty
        )
        return Target(target, node, path, over, held)

    def _rename(self, source: LookupResult, old: _Name, new: _Name, target: Target | None) -> None:
        self.names.directory(new[0])
        node = self.union.nodes.adopt(*old, source)
        node.lookups += 1  # as `NodeTable.held` does, which takes 2 us
        try:
            if not _is_in_upper(source):  # else nothing is to be copied up, marked or decided
                self._make_ready(node, source, old, new)
            if target is not None and not target.is_directory:
                target = self.counted(new, target)
            # What upper does not hold shows from a lower, and would do so again.
            cover = not source.named or self.union.lookup.shows_below(*old)
            self._move(node, old, new, target, cover=cover)
        finally:
            node.lookups -= 1
            self.union.nodes.drop_if_unknown(node)

    def _make_ready(self, node: Node, source: LookupResult, old: _Name, new: _Name) -> None:
        """Bring a node to upper under its old name, and mark it for its new one.

        At the old one the marks say nothing new.
        """
        if old[0] is not new[0]:
            self.names.directory(old[0])
        is_directory = node.is_directory
        if is_directory and node.below and not self.union.features.redirect_dir:
            if self.union.persisted:
                self.names.require_little(node, FOR_STATE, errno.EXDEV)
            self.names.bring_tree(node)
        else:
            self.names.copyup.metadata(node)
        if node.link and not source.named:
            self.names.give_name(node, *old)
        if node.below:  # it gets a redirect, which hides what lies below the new name as well
            self.names.anchor(node, absolute=not is_directory or old[0] is not new[0])
        elif is_directory and self.union.lookup.shows_below(*new):
            self.union.whiteouts.make_opaque(*self.upper.place(node))

    def counted(self, new: _Name, target: Target) -> Target:
        """See that the link which a file loses is counted."""
        result = self.names.counted(*new, target.result)
        if result is target.result:
            return target
        return Target(result, self.union.nodes.of(result), target.path)

    def _move(
        self, node: Node, old: _Name, new: _Name, target: Target | None, *, cover: bool
    ) -> None:
        """Change the names in one visible step, when all else is ready; if it fails, none has."""
        nodes, whiteouts = self.union.nodes, self.union.whiteouts
        path = child_path(*new) if target is None else target.path
        uncovers = target is None and node.is_directory  # perhaps a whiteout
        move = whiteouts.move_directory if uncovers else whiteouts.move_file
        pinned = None
        try:
            if target is not None:
                if target.spent:
                    self.names.make_way(target.node, path, target.result.st, target.spent)
                pinned = self.names.pin(target.node, target.result, path)
            move(self.upper.layer, child_path(*old), path, cover=cover)
        except BaseException:
            self.names.unpin(pinned)
            raise
        if target is not None:
            self.names.removed(*new, target.result, target.node)
        nodes.rename(node, old, new)

    def _exchange(
        self, old: _Name, source: LookupResult, new: _Name, target: LookupResult | None
    ) -> None:
        if target is None:
            raise error(errno.ENOENT)
        if source.is_same(target):
            return
        upper, nodes = self.upper.layer, self.union.nodes
        self.names.directory(new[0])
        with nodes.held(*old, source) as one, nodes.held(*new, target) as two:
            self._make_ready(one, source, old, new)
            self._make_ready(two, target, new, old)
            upper.exchange(child_path(*old), upper, child_path(*new))
            nodes.rename(one, old, new)
            nodes.rename(two, new, old)
