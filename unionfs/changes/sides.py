"""Changing names in a union with two writable sides (`view/sides`).

Each side has verbs of its own, and knows nothing of the other.  This module decides which side a
change goes to, and does what concerns both sides.  A split directory is brought up on the side
where a name in it changes, and shows one modification time.  A change that would carry names of
one side along to the other fails with EXDEV, as between two disks.  `crossings` takes single files
to the other side.
"""

import contextlib
import errno
import logging
import os
from collections.abc import Iterator

from unionfs.changes import protection
from unionfs.changes.arrivals import Place
from unionfs.changes.changes import Caller, Changes
from unionfs.changes.copyup import CopyUp
from unionfs.changes.crossings import Crossings
from unionfs.changes.names import error
from unionfs.changes.remembering import Memory
from unionfs.changes.sided_copyups import SidedCopyUps
from unionfs.host import syscalls
from unionfs.layers.iflags import IMMUTABLE, PROTECTING
from unionfs.view.node import Node
from unionfs.view.sides import Side, Split, TwoSided
from unionfs.view.transfers import Transfer, Wanted

log = logging.getLogger(__name__)


def verbs_of(union: TwoSided) -> tuple[CopyUp, Changes]:
    """Return the verbs that copy up, and those that change names, of both sides."""
    copyups = SidedCopyUps(union)
    return copyups, SidedChanges(union, copyups)


class SidedChanges(Changes):
    """The verbs of both sides; parents are as the kernel knows them."""

    def __init__(self, union: TwoSided, copyups: SidedCopyUps) -> None:
        self.union: TwoSided = union
        self._copyups = copyups
        self._scratch = Changes(union.scratch, copyups.scratch)
        self._state = Changes(union.state, copyups.state)
        self._memory = Memory(union.state)
        self._crossings = Crossings(union, self._scratch, self._state)

    def _of(self, side: Side) -> Changes:
        return self._state if side.persisted else self._scratch

    @contextlib.contextmanager
    def _changing(
        self, parent: Node, name: bytes, barred: int = IMMUTABLE
    ) -> Iterator[tuple[Changes, Node]]:
        """Yield the verbs that are to change a name, and the parent node that they know.

        EPERM where the directory has one of the flags *barred*, which a companion never has.
        """
        side, at = self.union.at(parent, name)
        if side.persisted:
            self._memory.before_change(at, name)
        if at is parent:
            yield self._of(side), at
            return
        protection.require(self.union, parent, barred)
        self._copyups.directories(parent)
        self._copyups.directories(at)
        before = self._dated(at)
        yield self._of(side), at
        self._date(parent, at, before)

    def _dated(self, companion: Node) -> int:
        layer, path = self.union.upper.place(companion)
        return layer.stat(path).st_mtime_ns

    def _date(self, shown: Node, companion: Node, before: int) -> None:
        """Give a split directory the time of a change of a name on its other side."""
        self.union.known.names_change(shown)
        try:
            mtime_ns = self._dated(companion)
            if mtime_ns != before:  # else a file was renamed to a link of itself: no change
                layer, path = self.union.upper.place(shown)
                layer.utime(path, layer.stat(path).st_atime_ns, mtime_ns)
        except OSError:  # the name is changed: no error may say otherwise
            log.exception("%r has its old time", shown.path)

    # Making objects

    def create(
        self, parent: Node, name: bytes, flags: int, mode: int, caller: Caller
    ) -> tuple[Node, os.stat_result, int]:
        """Create a regular file; return its node, its attributes and an open descriptor."""
        with self._changing(parent, name) as (changes, at):
            return changes.create(at, name, flags, mode, caller)

    def create_unnamed(
        self, parent: Node, flags: int, mode: int, caller: Caller
    ) -> tuple[Node, os.stat_result, int]:
        """Create a regular file that has no name, on the side of *parent*."""
        changes = self._of(self.union.side_of(parent))
        return changes.create_unnamed(parent, flags, mode, caller)

    def mknod(
        self, parent: Node, name: bytes, mode: int, device: int, caller: Caller
    ) -> tuple[Node, os.stat_result]:
        """Make a FIFO, socket, device or empty regular file; EPERM for what is a whiteout."""
        with self._changing(parent, name) as (changes, at):
            return changes.mknod(at, name, mode, device, caller)

    def symlink(
        self, parent: Node, name: bytes, target: bytes, caller: Caller
    ) -> tuple[Node, os.stat_result]:
        """Make a symlink."""
        with self._changing(parent, name) as (changes, at):
            return changes.symlink(at, name, target, caller)

    def mkdir(
        self, parent: Node, name: bytes, mode: int, caller: Caller
    ) -> tuple[Node, os.stat_result]:
        """Make a directory."""
        with self._changing(parent, name) as (changes, at):
            made = changes.mkdir(at, name, mode, caller)
        return self.union.entered(parent, name, *made)

    # Removing and moving

    def unlink(self, parent: Node, name: bytes) -> None:
        """Remove a name that is not a directory."""
        with (
            self._changing(parent, name, PROTECTING) as (changes, at),
            self._crossings.retiring(self._at(parent, name)),
        ):
            changes.unlink(at, name)
        self._crossings.settle()

    def _at(self, parent: Node, name: bytes) -> Place:
        return Place(*self.union.at(parent, name), name)

    def rmdir(self, parent: Node, name: bytes) -> None:
        """Remove a directory that shows no name."""
        split = self._split_under(parent, name)
        with self._changing(parent, name, PROTECTING) as (changes, at):
            changes.rmdir(at, name)
        if split is not None:
            self._remove_scaffold(split)

    def _split_under(self, parent: Node, name: bytes) -> Split | None:
        """Return the split directory under a name, if it is one."""
        if not self.union.leads(parent, name):
            return None
        found = self.union.lookup.node(parent, name)
        return found and self.union.splits.get(found[0])

    def _remove_scaffold(self, split: Split) -> None:
        """Remove the scaffold that a removed directory has left on the other side.

        Over a lower it stays: whiteouts in it say what does not persist any more.
        """
        self.union.join(split.shown)
        if split.companion.upper and not split.companion.below:
            with contextlib.suppress(OSError):  # what stays there shows nothing
                layer, path = self.union.upper.place(split.companion)
                layer.rmdir(path)

    def rename(
        self, parent: Node, name: bytes, new_parent: Node, new_name: bytes, flags: int
    ) -> None:
        """Rename as renameat2(2) with RENAME_NOREPLACE or RENAME_EXCHANGE."""
        old, new = self._at(parent, name), self._at(new_parent, new_name)
        self._require_one_side((parent, old), (new_parent, new), flags)
        with (
            self._changing(parent, name, PROTECTING) as (changes, _),
            self._changing(new_parent, new_name),
        ):
            if old.side is not new.side:
                self._crossings.rename(old, new, flags)
                return
            with self._crossings.retiring(new) if not flags else contextlib.nullcontext():
                changes.rename(old.parent, old.name, new.parent, new.name, flags)
        self._crossings.settle()

    def _require_one_side(
        self, old: tuple[Node, Place], new: tuple[Node, Place], flags: int
    ) -> None:
        """Raise EXDEV where a directory would go to the other side, or take names there."""
        across = old[1].side is not new[1].side
        led = self.union.leads(old[0], old[1].name) or self.union.leads(new[0], new[1].name)
        if not across and not led:
            return
        if self._is_directory(old[1]):
            raise error(errno.EXDEV)
        if flags == syscalls.RENAME_EXCHANGE and self._is_directory(new[1]):
            raise error(errno.EXDEV)

    @staticmethod
    def _is_directory(place: Place) -> bool:
        return place.side.lookup.require(place.parent, place.name).is_directory

    # What these changes take to the other side, asked before: `view/transfers`

    def wanted_by_unlink(self, parent: Node, name: bytes) -> list[Wanted]:
        """Return the content that `unlink` takes across."""
        return [*self._crossings.wanted_by_loss(self._at(parent, name))]

    def wanted_by_rename(
        self, parent: Node, name: bytes, new_parent: Node, new_name: bytes, flags: int
    ) -> list[Wanted]:
        """Return the content that `rename` takes across."""
        places = self._at(parent, name), self._at(new_parent, new_name)
        return [*self._crossings.wanted_by_rename(*places, flags)]

    def wanted_by_link(self, node: Node, parent: Node, name: bytes) -> list[Wanted]:
        """Return the content that `link` takes across."""
        return [*self._crossings.wanted_by_link(node, self._at(parent, name))]

    def begin(self, wanted: Wanted) -> Transfer | None:
        """Begin to copy it ahead of the change; None where it is changing just now."""
        return self._crossings.begin(wanted)

    # Others

    def link(self, node: Node, parent: Node, name: bytes) -> os.stat_result:
        """Give a file one more name, as link(2) does; return its attributes."""
        place = self._at(parent, name)
        with self._changing(parent, name) as (changes, at):
            if place.side is self.union.side_of(node):
                return changes.link(node, at, name)
            return self._crossings.link(node, place)

    def renew_link(self, old: bytes, new: bytes) -> None:
        """Take note that a lower file with several names has another key: `links`."""
        self._scratch.renew_link(old, new)
        self._state.renew_link(old, new)

    def stand_alone(self, node: Node) -> None:
        """Make an object independent of the lowers, in which its name is going to change."""
        self._of(self.union.side_of(node)).stand_alone(node)
        placeholder = self.union.twins.placeholder(node)
        if placeholder is not None:
            self._scratch.stand_alone(placeholder)
        if node is self.union.root:  # some have changed
            self.union.look_at_lowers()
