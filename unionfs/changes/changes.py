"""Changing names: create, remove, rename and link, each in one visible step.

Every change of names is a single system call on upper.  The steps that prepare it
change nothing that is seen: copying up, staging in work, marking a directory
opaque or redirected.  So an error, or a crash, leaves the old state or the new
one (renameat2(2); overlayfs.rst).

A name leaves a whiteout behind if a lower shows something under it, and only then.
"""

import contextlib
import errno
import logging
import os
import stat
from collections.abc import Callable, Iterator
from typing import NamedTuple

from unionfs.changes import protection
from unionfs.changes.copyup import CopyUp
from unionfs.changes.names import Names, error
from unionfs.changes.removals import Removals
from unionfs.changes.renames import Renames
from unionfs.layers.inodes import number
from unionfs.layers.layer import Layer, WritableLayer
from unionfs.view.lookup_result import LookupResult, plain
from unionfs.view.node import Node, child_path
from unionfs.view.pins import path_of_pin
from unionfs.view.union import Union

log = logging.getLogger(__name__)

Maker = Callable[[WritableLayer, bytes], None]


class Caller(NamedTuple):
    """Who made a request: new objects get this owner and group, and this umask applies."""

    uid: int
    gid: int
    umask: int


ROOT = Caller(0, 0, 0)


class Changes:
    """The verbs that change names of one union."""

    def __init__(self, union: Union, copyup: CopyUp) -> None:
        self.union = union
        self.upper = union.upper
        self.names = Names(union, copyup)
        self._removals = Removals(self.names)
        self.unlink, self.rmdir = self._removals.unlink, self._removals.rmdir
        self.renames = Renames(self.names)
        self.rename = self.renames.rename
        self._acting = union.acting

    # Making objects

    def create(
        self, parent: Node, name: bytes, flags: int, mode: int, caller: Caller
    ) -> tuple[Node, os.stat_result, int]:
        """Create a regular file; return its node, its attributes and an open descriptor."""
        upper, path = self._place(parent, name, caller)
        try:
            self.union.whiteouts.require_name(upper, path)
            fd = upper.create(path, flags, mode)
        except FileExistsError:
            fd = self._create_over_whiteout(parent, name, flags, mode, caller)
        try:
            st = os.fstat(fd)
            return self._made(upper, parent, name, st), st, fd
        except BaseException:
            os.close(fd)
            raise

    def create_unnamed(
        self, parent: Node, flags: int, mode: int, caller: Caller
    ) -> tuple[Node, os.stat_result, int]:
        """Create a regular file that has no name in *parent*, as open(2) with O_TMPFILE.

        The file has no name in upper, either, so nothing is left if it never gets one.  In a
        removed directory the host decides whether it may be made: tmpfs makes one, ext4 does not.
        """
        if parent.orphan:
            self.names.copyup.metadata(parent)
            upper, path = self.upper.place(parent)
        else:
            upper, path = self.names.directory(parent), parent.path
        if caller != self._acting.now:
            self._acting.become(caller)
        fd = upper.create_unnamed(path, flags, mode)
        try:
            st = os.fstat(fd)
            pin = self.upper.pins.open(path_of_pin(fd), os.O_PATH)
        except BaseException:
            os.close(fd)
            raise
        return self.union.nodes.add_unnamed(parent, number(upper, st), st, pin), st, fd

    def _create_over_whiteout(
        self, parent: Node, name: bytes, flags: int, mode: int, caller: Caller
    ) -> int:
        fds: list[int] = []
        try:
            self._make_over_whiteout(
                parent, name, caller, lambda on, at: fds.append(on.create(at, flags, mode))
            )
        except BaseException:
            for fd in fds:
                os.close(fd)
            raise
        return fds[0]

    def mknod(
        self, parent: Node, name: bytes, mode: int, device: int, caller: Caller
    ) -> tuple[Node, os.stat_result]:
        """Make a FIFO, socket, device or empty regular file; EPERM for a whiteout's device."""
        if stat.S_ISCHR(mode) and device == 0:
            raise error(errno.EPERM)
        return self._make(parent, name, caller, lambda on, at: on.mknod(at, mode, device))

    def symlink(
        self, parent: Node, name: bytes, target: bytes, caller: Caller
    ) -> tuple[Node, os.stat_result]:
        """Make a symlink."""
        return self._make(parent, name, caller, lambda on, at: on.symlink(target, at))

    def mkdir(
        self, parent: Node, name: bytes, mode: int, caller: Caller
    ) -> tuple[Node, os.stat_result]:
        """Make a directory, an opaque one over a whiteout that has to stay in force."""
        return self._make(parent, name, caller, lambda on, at: on.mkdir(at, mode))

    def _make(
        self, parent: Node, name: bytes, caller: Caller, maker: Maker
    ) -> tuple[Node, os.stat_result]:
        """Let *maker* make an object in upper; return its node and its attributes."""
        upper, path = self._place(parent, name, caller)
        covered = False
        try:
            self.union.whiteouts.require_name(upper, path)
            maker(upper, path)
        except FileExistsError:
            self._make_over_whiteout(parent, name, caller, maker)
            covered = True
        with self._taking_back(upper, path, covered=covered):
            st = upper.stat(path)
        return self._made(upper, parent, name, st), st

    @contextlib.contextmanager
    def _taking_back(self, upper: WritableLayer, path: bytes, *, covered: bool) -> Iterator[None]:
        """Take a new name away again if a later step fails: the caller gets an error then.

        *covered*: there was a whiteout under the name.
        """
        try:
            yield
        except BaseException:
            try:
                if covered:
                    self._removals.hide(path)
                else:
                    _remove(upper, path)
            except OSError:
                log.exception("%r was made, although its caller got an error", path)
            raise

    def _place(self, parent: Node, name: bytes, caller: Caller) -> tuple[WritableLayer, bytes]:
        """Return the place in upper for a new object of the caller's, when all is ready for it."""
        self._require_unused_below(parent, name)
        upper = self.names.directory(parent)
        if caller != self._acting.now:
            self._acting.become(caller)
        return upper, child_path(parent, name)

    def _make_over_whiteout(self, parent: Node, name: bytes, caller: Caller, maker: Maker) -> None:
        """Make an object by way of work; EEXIST where the name is not a whiteout's."""
        if self.union.lookup.find(parent, name) is not None:
            raise error(errno.EEXIST)
        upper, work = self.upper.layer, self.upper.work
        path = child_path(parent, name)
        with self.upper.stand_ins.staging(parent.path, name) as staged:
            if caller != self._acting.now:  # a stand-in has been made
                self._acting.become(caller)
            maker(work, staged)
            if stat.S_ISDIR(work.stat(staged).st_mode):
                self.union.whiteouts.make_opaque(work, staged)
            self.union.whiteouts.publish(work, staged, upper, path)

    def _require_unused(self, parent: Node, name: bytes) -> None:
        if self.union.whiteouts.reserved(name):
            raise error(errno.EPERM)
        if parent.below and self.union.lookup.find(parent, name) is not None:
            raise error(errno.EEXIST)

    def _require_unused_below(self, parent: Node, name: bytes) -> None:
        """Require that a name is unused; upper itself will refuse a name that it holds."""
        union = self.union
        if union.whiteouts.are_in_place:
            if union.known.is_absent(parent, name):
                return
            if parent.upper and not union.lookup.shows_below(parent, name):
                return
        self._require_unused(parent, name)

    def _made(self, upper: Layer, parent: Node, name: bytes, st: os.stat_result) -> Node:
        ino, nodes = number(upper, st), self.union.nodes
        if ino in nodes:
            return nodes.adopt(parent, name, plain(ino, st))
        node = Node(ino, stat.S_IFMT(st.st_mode), st.st_ino, parent, name, upper=True, below=())
        node.persisted = parent.persisted
        return nodes.add(node, parent)

    def stand_alone(self, node: Node) -> None:
        """Make an object independent of the lowers, in which its name is going to change.

        The union shows the same as before.  A file then has its content in upper, under all of
        its names that are known; a directory has all that it shows in upper.
        """
        self.union.require_upper()
        if node.is_directory and node is not self.union.root:
            self.names.bring_tree(node)
        else:
            self.names.copyup.whole(node)
        names = [(node.parent, node.name), *(node.aliases or ())] if node.link else []
        for parent, name in names:
            if parent is not None:
                self.names.directory(parent)
                self.names.give_name(node, parent, name)
        self.union.known.lowers_change()

    def renew_link(self, old: bytes, new: bytes) -> None:
        """Take note that a lower file with several names has another key: `links`."""
        self.union.require_upper()
        if not self.upper.links.renew(old, new):
            return
        for node in self.union.nodes.all():
            if node.link == old:
                node.link = new
        self.union.known.lowers_change()

    # Giving names, and preparing for a change of the lowers

    def link(self, node: Node, parent: Node, name: bytes) -> os.stat_result:
        """Give a file one more name, as link(2) does; return its attributes.

        The host knows whether a file without a name can get one: not if it had one before.
        """
        upper = self.upper.layer
        if node.orphan and not node.upper:
            raise error(errno.ENOENT)
        self.names.copyup.foresee(node)  # the reply needs the answers, too
        self._require_unused(parent, name)
        self.names.directory(parent)
        protection.require(self.union, node)
        self.names.copyup.metadata(node)
        self.names.anchor(node, absolute=True)
        if node.link:
            self.upper.links.require_settled(node.link)
        path, covered = child_path(parent, name), False
        layer, source = self.upper.place(node)
        try:
            self.union.whiteouts.require_name(upper, path)
            layer.link(source, upper, path)
        except FileExistsError:
            self._link_over_whiteout(layer, source, parent, name)
            covered = True
        with self._taking_back(upper, path, covered=covered):
            st = self.union.attributes(node)
        self.union.nodes.adopt(
            parent, name, LookupResult(node.ino, st, upper=True, named=True, below=node.lowers)
        )
        if not node.superseded:
            self.names.unpin(node)
        return st

    def _link_over_whiteout(
        self, layer: WritableLayer, source: bytes, parent: Node, name: bytes
    ) -> None:
        """Give a name by way of work; EEXIST where the name is not a whiteout's."""
        if self.union.lookup.find(parent, name) is not None:
            raise error(errno.EEXIST)
        upper, work = self.upper.layer, self.upper.work
        staged = self.upper.staging.name()
        layer.link(source, work, staged)
        try:
            self.union.whiteouts.publish(work, staged, upper, child_path(parent, name))
        except BaseException:
            self.upper.staging.drop(staged)
            raise


def _remove(upper: WritableLayer, path: bytes) -> None:
    """Remove a new object, of whatever kind."""
    try:
        upper.unlink(path)
    except IsADirectoryError:
        upper.rmdir(path)
