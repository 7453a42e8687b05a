"""Renaming, in any direction between layers: rename(2), renameat2(2).

The facts are gathered, `rules` decides, the names are prepared without any
change that is seen, and one system call on upper does it.
"""

import contextlib
import errno
import stat
from typing import NamedTuple

from unionfs.changes import protection
from unionfs.changes.names import Names, error
from unionfs.host import syscalls
from unionfs.layers import rules
from unionfs.layers.rules import Facts, Kind, Plan
from unionfs.view.lookup_result import LookupResult
from unionfs.view.node import Node, child_path


class _Side(NamedTuple):
    """One of the two names of a rename, and what it shows."""

    parent: Node
    name: bytes
    result: LookupResult | None

    @property
    def path(self) -> bytes:
        return child_path(self.parent, self.name)


def _is_in_upper(source: LookupResult) -> bool:
    """Tell whether a file is in upper as a whole, under the very name that it shows."""
    elsewhere = source.below or source.redirect or source.link
    return source.named and not elsewhere and not stat.S_ISDIR(source.st.st_mode)


def _gives_way(target: LookupResult | None) -> bool:
    """Tell whether a new name is free, or that of a file whose links need not be counted."""
    if target is None:
        return True
    counted = target.link or not (target.named or target.st.st_nlink == 1)
    return not counted and not stat.S_ISDIR(target.st.st_mode)


# A directory of the union and a name in it.
_Name = tuple[Node, bytes]


def _kind(result: LookupResult | None) -> Kind:
    if result is None:
        return Kind.NOTHING
    return Kind.DIRECTORY if result.is_directory else Kind.FILE


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
        union = self.union
        union.require_upper()
        source = union.lookup.require(parent, name)
        if union.whiteouts.reserved(new_name):
            raise error(errno.EPERM)
        absent = union.known.is_absent(new_parent, new_name)
        target = None if absent else union.lookup.find(new_parent, new_name)
        self._permit((parent, source), (new_parent, target))
        if flags == syscalls.RENAME_EXCHANGE:
            self._exchange(_Side(parent, name, source), new_parent, new_name, target)
            return
        if flags & ~syscalls.RENAME_NOREPLACE:
            raise error(errno.EINVAL)
        if flags and target is not None:
            raise error(errno.EEXIST)
        if _is_in_upper(source) and _gives_way(target):
            self._rename_file(source, (parent, name), (new_parent, new_name), target)
            return
        plan = rules.rename(self._facts(source, target, new_parent, new_name))
        if plan.nothing:
            return
        if self._make_removable((parent, name), (new_parent, new_name), target):
            source, target = (
                union.lookup.require(parent, name),
                union.lookup.find(new_parent, new_name),
            )
            plan = rules.rename(self._facts(source, target, new_parent, new_name))
        self._rename(plan, _Side(parent, name, source), _Side(new_parent, new_name, target))

    def _make_removable(self, old: _Name, new: _Name, target: LookupResult | None) -> bool:
        """See that the old name, and a directory under the new one, can be taken away.

        Say whether the layers of one of them changed by that.
        """
        changed = self.names.make_removable(*old)
        if target is not None and target.is_directory:
            changed = self.names.make_removable(*new) or changed
        return changed

    def _permit(
        self, old: tuple[Node, LookupResult], new: tuple[Node, LookupResult | None]
    ) -> None:
        """Raise EPERM where a name must not be taken away; links of one file keep theirs."""
        target = new[1]
        if target is not None:
            if target.ino == old[1].ino:
                return
            protection.require_removable(self.union, new[0], target)
        protection.require_removable(self.union, *old)

    def _rename_file(
        self, source: LookupResult, old: _Name, new: _Name, target: LookupResult | None
    ) -> None:
        """Rename a file where nothing is to be copied up, marked or decided.

        So editors and package managers replace files; the way for all cases takes three times
        as long, most of it to find out just that.
        """
        if target is not None and target.ino == source.ino:
            return  # links of one file keep both names: rename(2)
        if self.names.make_removable(*old):
            target = self.union.lookup.find(*new)
        self.names.directory(new[0])
        self._move(self.union.nodes.adopt(*old, source), old, new, target)

    def _move(self, node: Node, old: _Name, new: _Name, target: LookupResult | None) -> None:
        """Change the names in one visible step, when all else is ready; if it fails, none has."""
        nodes, whiteouts, path = self.union.nodes, self.union.whiteouts, child_path(*new)
        move = whiteouts.move_directory if node.is_directory else whiteouts.move_file
        replaced = pinned = None
        try:
            cover = self.union.lookup.shows_below(*old)
            if target is not None:
                replaced = nodes.of(target)
                if target.named and target.is_directory:
                    self.names.make_way(replaced, path)
                pinned = self.names.pin(replaced, target, path)
            move(self.upper.layer, child_path(*old), path, cover=cover)
        except BaseException:
            self.names.unpin(pinned)
            nodes.drop_if_unknown(node)
            raise
        if target is not None:
            self.names.removed(*new, target, replaced)
        nodes.rename(node, old, new)
        nodes.drop_if_unknown(node)

    def _facts(
        self, source: LookupResult, target: LookupResult | None, new_parent: Node, new_name: bytes
    ) -> Facts:
        is_directory = target is not None and target.is_directory
        return Facts(
            source=_kind(source),
            merged=bool(source.lowers),
            target=_kind(target),
            target_empty=is_directory
            and target is not None
            and self.union.is_empty(target, new_parent, new_name),
            same=target is not None and source.ino == target.ino,
            below_new=source.is_directory
            and not source.lowers  # a merged one is redirected, which hides it as well
            and self.union.lookup.shows_below(new_parent, new_name),
        )

    def _rename(self, plan: Plan, old: _Side, new: _Side) -> None:
        self.names.directory(new.parent)
        with self._held(old) as node:
            self._bring_name(node, old)
            self._ready(node, plan, same_parent=old.parent is new.parent)
            target = new.result
            if target is not None and not target.is_directory:
                target = self.names.counted(new.parent, new.name, target)
            self._move(node, old[:2], new[:2], target)

    def _held(self, side: _Side) -> contextlib.AbstractContextManager[Node]:
        if side.result is None:
            raise error(errno.ENOENT)
        return self.union.nodes.held(*side[:2], side.result)

    def _bring_name(self, node: Node, side: _Side) -> None:
        """Make sure that upper holds this very name of *node*."""
        self.names.directory(side.parent)
        if node.is_directory and node.lowers and not self.union.features.redirect_dir:
            self.names.bring_tree(node)
        else:
            self.names.copyup.metadata(node)
        if node.link and side.result and not side.result.named:
            self.names.give_name(node, side.path)

    def _ready(self, node: Node, plan: Plan, *, same_parent: bool) -> None:
        """Mark a node in upper for its new name; at the old one the marks say nothing new."""
        if node.is_directory:
            layer, path = self.upper.place(node)
            if node.lowers:
                self.names.anchor(node, absolute=not same_parent)
            elif plan.opaque:
                self.union.whiteouts.make_opaque(layer, path)
        else:
            self.names.anchor(node, absolute=True)

    def _exchange(
        self, old: _Side, new_parent: Node, new_name: bytes, target: LookupResult | None
    ) -> None:
        if target is None or old.result is None:
            raise error(errno.ENOENT)
        new = _Side(new_parent, new_name, target)
        if old.result.ino == target.ino:
            return
        upper, nodes = self.upper.layer, self.union.nodes
        with self._held(old) as one, self._held(new) as two:
            for node, side, other in ((one, old, new), (two, new, old)):
                self._bring_name(node, side)
                opaque = not node.lowers and self.union.lookup.shows_below(other.parent, other.name)
                self._ready(node, Plan(opaque=opaque), same_parent=old.parent is new.parent)
            upper.exchange(old.path, upper, new.path)
            nodes.rename(one, old[:2], new[:2])
            nodes.rename(two, new[:2], old[:2])
