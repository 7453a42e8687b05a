"""Files that go from one side of a union to the other (`view/sides`): rename, exchange, link.

An object comes to the other side as a copy with all that it has, staged in work there, on disk if
that side has one; one rename gives it its name.  Then the old name goes.  A crash in between leaves
both names with the same content, or scratch is gone anyway.  Programs see one step: the node, with
its inode number, and open descriptors go along.  Where a step fails, all is as before.

A file lives in state as long as it has a name there; `view/twins` has its names in scratch.
So a new name on the other side is one of these:

* in state: a link, or, for a file of scratch, the file itself: its names in scratch stay behind as
  those of its placeholder;
* in scratch: a link of the placeholder; or, where the last name in state is to go, the file itself,
  which takes the place of its placeholder, if it has one.
"""

import contextlib
import errno
import logging
import os
from collections.abc import Iterator

from unionfs.changes import protection
from unionfs.changes.arrivals import Arrival, Link, Merge, Merger, Move, NewPlaceholder, Place, put
from unionfs.changes.changes import Changes
from unionfs.changes.names import error
from unionfs.changes.renames import Target, require_free
from unionfs.host import content, syscalls
from unionfs.view.lookup_result import LookupResult
from unionfs.view.node import Node
from unionfs.view.sides import Side, TwoSided
from unionfs.view.transfers import Seen, Source, Transfer, Wanted, seen

log = logging.getLogger(__name__)


class Crossings:
    """The crossings of one union."""

    def __init__(self, union: TwoSided, scratch: Changes, state: Changes) -> None:
        self.union = union
        self.twins = union.twins
        self._scratch, self._state = scratch, state

    def _changes(self, side: Side) -> Changes:
        return self._state if side.persisted else self._scratch

    # The verbs

    def rename(self, old: Place, new: Place, flags: int) -> None:
        """Rename a file to a name of the other side: renameat2(2)."""
        source, target = old.require(), new.find()
        self._permit(old, source, new, target)
        if flags == syscalls.RENAME_EXCHANGE:
            self._exchange(old, source, new, target)
            return
        require_free(target, flags)
        with old.side.nodes.held(old.parent, old.name, source) as held:
            node = self.twins.file(held)
            if target is None or self._file_of(new, target) is not node:
                self._rename(node, source, old, new)
        # Else both are links of one file, and both names stay: rename(2).
        self.union.nodes.drop_if_unknown(node)
        self.settle()

    def _rename(self, node: Node, source: LookupResult, old: Place, new: Place) -> None:
        with self.retiring(new):
            giving_way = self._changes(new.side).renames.giving_way
            target = giving_way(source, new[1:], new.find())
            with self._arriving(node, new, target, leaves=True):
                self._changes(old.side).unlink(old.parent, old.name)

    def link(self, node: Node, new: Place) -> os.stat_result:
        """Give a file a name on the other side: link(2)."""
        if node.orphan:
            self._require_linkable(node)
        if new.find() is not None:
            raise error(errno.EEXIST)
        protection.require(self.union, node)
        with self._arriving(node, new, None):  # the file keeps its other names
            return self.union.attributes(node)

    @contextlib.contextmanager
    def retiring(self, place: Place) -> Iterator[None]:
        """Move a file to scratch if it is about to lose its last name in state."""
        file = self._losing_last(place)
        placeholder = self.twins.placeholder(file) if file is not None else None
        if file is None or placeholder is None:
            yield
            return
        self._make_ready(file)
        merger = Merger(self.union, file, placeholder, self._scratch)
        try:
            merger.fill()
            with contextlib.ExitStack() as undo:
                merger.merge(undo)
                yield
                undo.pop_all()
            merger.finish()
        finally:
            merger.close()

    def _losing_last(self, place: Place) -> Node | None:
        if not self.twins or not place.side.persisted:
            return None
        result = place.find()
        node = result and place.side.nodes.of(result)
        return node if node is not None and self._is_last(node) else None

    def _is_last(self, file: Node) -> bool:
        """Tell whether a file of state has but one name there."""
        return not file.orphan and self.union.links(file) == 1

    def settle(self) -> None:
        """Let go of placeholders that have no name any more."""
        for placeholder in self.twins.nameless():
            if self._is_gone(placeholder):
                file = self.twins.file(placeholder)
                self.twins.part(file, placeholder)
                for node in (placeholder, file):
                    self.union.nodes.drop_if_unknown(node)

    def _is_gone(self, placeholder: Node) -> bool:
        try:
            return self.union.links(placeholder) == 0
        except OSError:  # what came before is done; it is looked at again after the next change
            log.exception("%r: its number of names is not known", placeholder.path)
            return False

    # What a change takes to the other side: `transfers`

    def wanted_by_rename(self, old: Place, new: Place, flags: int) -> Iterator[Wanted]:
        """Yield the content that a rename takes across, as far as it is known now."""
        if not flags & syscalls.RENAME_EXCHANGE:
            yield from self.wanted_by_loss(new)
        if old.side is new.side:
            return
        for at, to in (
            ((old, new), (new, old)) if flags & syscalls.RENAME_EXCHANGE else ((old, new),)
        ):
            result = at.find()
            node = result and self._file_of(at, result)
            if node is not None:
                yield from self._wanted(node, to.side, leaves=True)

    def wanted_by_link(self, node: Node, new: Place) -> Iterator[Wanted]:
        """Yield the content that a link takes across."""
        if new.side is not self.union.side_of(node):
            yield from self._wanted(node, new.side, leaves=False)

    def wanted_by_loss(self, place: Place) -> Iterator[Wanted]:
        """Yield the content that goes to scratch where a name is lost."""
        file = self._losing_last(place)
        placeholder = self.twins.placeholder(file) if file is not None else None
        if file is not None and placeholder is not None:
            yield Wanted(file, self.union.scratch, placeholder)

    def _wanted(self, node: Node, side: Side, *, leaves: bool) -> Iterator[Wanted]:
        if side.persisted:
            if not node.persisted:
                yield Wanted(node, side, None)
        elif node.persisted and (node.orphan or (leaves and self._is_last(node))):
            yield Wanted(node, side, self.twins.placeholder(node))

    def begin(self, wanted: Wanted) -> Transfer | None:
        """Open what is needed to copy that content; None where it is changing just now."""
        self._changes(self.union.side_of(wanted.node)).names.copyup.foresee_content(wanted.node)
        source = self.union.open_content(wanted.node)
        try:
            st = os.fstat(source.fd)
            at = seen(st)
            if at is not None:
                room = min(st.st_size, source.room(st))
                content.require_room(wanted.side.upper.work.fd, room)
                return self._begun(wanted, source, at)
        except BaseException:
            source.close()
            raise
        source.close()
        return None

    def _begun(self, wanted: Wanted, source: Source, at: Seen) -> Transfer:
        upper, copyup = wanted.side.upper, self._changes(wanted.side).names.copyup
        self.union.acting.as_root()
        staged = b""
        if wanted.placeholder is None:
            staged = upper.staging.name()
            target = upper.work.create(staged, os.O_RDWR, 0o600)
        else:
            copyup.whole(wanted.placeholder, 0)
            layer, path = upper.place(wanted.placeholder)
            target = layer.open_to_write(path, os.O_RDWR | os.O_TRUNC)
        transfer = Transfer(wanted, source, target, staged, at, copyup.syncs)
        self.union.transfers.add(transfer)
        return transfer

    # What may be done

    def _permit(
        self, old: Place, source: LookupResult, new: Place, target: LookupResult | None
    ) -> None:
        protection.require_removable(old.side, old.parent, source)
        if target is not None:
            protection.require_removable(new.side, new.parent, target)

    def _file_of(self, place: Place, result: LookupResult) -> Node | None:
        node = place.side.nodes.of(result)
        return None if node is None else self.twins.file(node)

    def _require_linkable(self, node: Node) -> None:
        """Raise ENOENT for a file that has lost its last name, not for one that never had any."""
        if not node.upper:
            raise error(errno.ENOENT)
        upper = self.union.side_of(node).upper
        layer, path = upper.place(node)
        staged = upper.staging.name()
        layer.link(path, upper.work, staged)
        upper.work.unlink(staged)

    # A name on the other side

    @contextlib.contextmanager
    def _arriving(
        self, node: Node, new: Place, target: Target | None, *, leaves: bool = False
    ) -> Iterator[None]:
        """Give a file a name on the other side, in the place of *target*; take it back on error.

        Another of its names *leaves* meanwhile.
        """
        names = self._changes(new.side).names
        self._make_ready(node)
        names.directory(new.parent)
        if target is not None:
            target = self._changes(new.side).renames.counted(new[1:], target)
        arrival = self._arrival(node, new, leaves=leaves)
        with arrival, contextlib.ExitStack() as undo:
            if target is not None:
                undo.callback(names.unpin, names.pin(target.node, target.result, new.path))
            put(new, arrival.staged, undo)
            arrival.arrive(undo)
            yield
            undo.pop_all()
            if target is not None:
                names.removed(new.parent, new.name, target.result, target.node)
            arrival.finish()

    def _make_ready(self, node: Node) -> None:
        """Fetch far content, and finish a copy that a thread is filling in."""
        copyup = self._changes(self.union.side_of(node)).names.copyup
        copyup.foresee_content(node)
        if node in self.union.upper.fills:
            copyup.whole(node)

    def _arrival(self, node: Node, new: Place, *, leaves: bool) -> Arrival:
        """Choose how a file gets its name: see above."""
        changes = self._changes(new.side)
        if new.side.persisted:
            if node.persisted:
                return Link(self.union, node, new, changes, node)
            keeps = self.union.links(node) > leaves
            return Move(self.union, node, new, changes, keeps=keeps)
        placeholder = self.twins.placeholder(node)
        if node.orphan or (leaves and self._is_last(node)):
            if placeholder is None:
                return Move(self.union, node, new, changes, keeps=False)
            return Merge(self.union, node, new, changes, placeholder)
        if placeholder is None:
            return NewPlaceholder(self.union, node, new, changes)
        return Link(self.union, node, new, changes, placeholder)

    # Both at once

    def _exchange(
        self, old: Place, source: LookupResult, new: Place, target: LookupResult | None
    ) -> None:
        """Exchange two files; EXDEV for a file that has further names."""
        if target is None:
            raise error(errno.ENOENT)
        with (
            old.side.nodes.held(old.parent, old.name, source) as one,
            new.side.nodes.held(new.parent, new.name, target) as two,
        ):
            files = self.twins.file(one), self.twins.file(two)
            if files[0] is files[1]:
                return
            if any(self.union.links(file) > 1 or self.twins.has(file) for file in files):
                raise error(errno.EXDEV)
            for place, node in ((old, one), (new, two)):
                self._changes(place.side).names.directory(place.parent)
                self._make_ready(node)
            there, back = (
                Move(self.union, node, to, self._changes(to.side), keeps=False)
                for node, to in ((one, new), (two, old))
            )
            with there, back, contextlib.ExitStack() as undo:
                put(new, there.staged, undo)
                put(old, back.staged, undo)
                there.arrive(undo)
                back.arrive(undo)
                undo.pop_all()
                for move in (there, back):
                    move.leave()
                    move.finish()
        for node in (one, two):
            self.union.nodes.drop_if_unknown(node)
