"""Changing names: create, remove, rename and link, each in one visible step.

Every change of names is a single system call on upper, prepared by steps that
change nothing that is seen: copying up, staging in work, marking a directory
opaque or redirected.  So an error, or a crash, leaves the old state or the new
one (renameat2(2); overlayfs.rst).

A name that something lies below leaves a whiteout behind, and only such a name.
"""

import contextlib
import errno
import logging
import os
import stat
from collections.abc import Callable, Iterator
from typing import NamedTuple

from unionfs import markers, rules, syscalls
from unionfs.copyup import CopyUp
from unionfs.layer import WritableLayer, join
from unionfs.node import Node, Sighting, child_path, number
from unionfs.rules import Facts, Kind, Plan
from unionfs.union import Union


log = logging.getLogger(__name__)

Maker = Callable[[WritableLayer, bytes], None]
_DEFAULT_ACL = "system.posix_acl_default"


class Caller(NamedTuple):
    """Who made a request: new objects belong to these, and get this umask."""

    uid: int
    gid: int
    umask: int


ROOT = Caller(0, 0, 0)


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


class Changes:
    """The verbs that change names of one union."""

    def __init__(self, union: Union, copyup: CopyUp) -> None:
        self.union = union
        self.copyup = copyup
        self._acting = Caller(-1, -1, -1)  # whom the credentials of this thread stand for

    def _act_as(self, caller: Caller) -> None:
        """Let the host decide owner, group and mode of new objects, as for the caller itself."""
        if caller == self._acting:
            return
        syscalls.set_filesystem_ids(caller.uid, caller.gid)
        os.umask(caller.umask)
        self._acting = caller

    def _upper_directory(self, parent: Node) -> tuple[WritableLayer, WritableLayer]:
        """Bring a directory up and return upper and work; ENOENT in a deleted directory."""
        writable = self.union.writable()
        if parent.orphan:
            raise _error(errno.ENOENT)
        self.copyup.directories(parent)
        return writable

    # Making objects

    def create(
        self, parent: Node, name: bytes, flags: int, mode: int, caller: Caller
    ) -> tuple[Node, os.stat_result, int]:
        """Create a regular file; return its node, its attributes and an open descriptor."""
        fds: list[int] = []
        try:
            self._make(parent, name, caller, lambda on, at: fds.append(on.create(at, flags, mode)))
            st = os.fstat(fds[0])
            return self._made(parent, name, st), st, fds[0]
        except BaseException:
            for fd in fds:
                os.close(fd)
            raise

    def mknod(
        self, parent: Node, name: bytes, mode: int, device: int, caller: Caller
    ) -> tuple[Node, os.stat_result]:
        """Make a FIFO, socket, device or empty regular file; EPERM for what is a whiteout."""
        if stat.S_ISCHR(mode) and device == 0:
            raise _error(errno.EPERM)
        return self._make_and_look(parent, name, caller, lambda on, at: on.mknod(at, mode, device))

    def symlink(
        self, parent: Node, name: bytes, target: bytes, caller: Caller
    ) -> tuple[Node, os.stat_result]:
        """Make a symlink."""
        return self._make_and_look(parent, name, caller, lambda on, at: on.symlink(target, at))

    def mkdir(
        self, parent: Node, name: bytes, mode: int, caller: Caller
    ) -> tuple[Node, os.stat_result]:
        """Make a directory, opaque where a whiteout has to stay in force."""
        return self._make_and_look(parent, name, caller, lambda on, at: on.mkdir(at, mode))

    def _make_and_look(
        self, parent: Node, name: bytes, caller: Caller, maker: Maker
    ) -> tuple[Node, os.stat_result]:
        path = self._make(parent, name, caller, maker)
        st = self._upper_directory(parent)[0].stat(path)
        return self._made(parent, name, st), st

    def _make(self, parent: Node, name: bytes, caller: Caller, maker: Maker) -> bytes:
        """Let *maker* make an object in upper, over a whiteout by way of work; return its path."""
        upper, work = self.union.writable()
        self._require_unused(parent, name)
        self._upper_directory(parent)
        path = child_path(parent, name)
        self._act_as(caller)
        try:
            self.union.markers.require_name(upper, path)
            maker(upper, path)
        except FileExistsError:
            if not parent.lowers:
                raise
        else:
            return path
        with self._crib(parent) as crib:
            staged = join(crib, b"new")
            maker(work, staged)
            if stat.S_ISDIR(work.stat(staged).st_mode):
                self.union.markers.make_opaque(work, staged)
            self.union.markers.publish(work, staged, upper, path)
        return path

    def _require_unused(self, parent: Node, name: bytes) -> None:
        if self.union.markers.reserved(name):
            raise _error(errno.EPERM)
        if parent.lowers and self.union.look(parent, name) is not None:
            raise _error(errno.EEXIST)

    @contextlib.contextmanager
    def _crib(self, parent: Node) -> Iterator[bytes]:
        """Stage in a directory like *parent*, whose group and default ACL new objects inherit."""
        upper, work = self.union.writable()
        crib = self.union.temporaries.name()
        work.mkdir(crib, 0o700)
        try:
            st = upper.stat(parent.path)
            work.chown(crib, st.st_uid, st.st_gid)
            work.chmod(crib, stat.S_IMODE(st.st_mode))
            acl = upper.find_attribute(parent.path, _DEFAULT_ACL)
            if acl is not None:
                work.set_attribute(crib, _DEFAULT_ACL, acl)
            yield crib
        finally:
            self.union.temporaries.discard(crib)

    def _made(self, parent: Node, name: bytes, st: os.stat_result) -> Node:
        upper, _ = self.union.writable()
        sighting = Sighting(number(upper, st), st, upper=True, named=True, lowers=())
        return self.union.nodes.adopt(parent, name, sighting)

    # Removing names

    def unlink(self, parent: Node, name: bytes) -> None:
        """Remove a name that is not a directory."""
        self.union.writable()
        sighting = self.union.find(parent, name)
        if sighting.is_directory:
            raise _error(errno.EISDIR)
        sighting = self._counted(parent, name, sighting)
        self._remove(parent, name, sighting)

    def rmdir(self, parent: Node, name: bytes) -> None:
        """Remove a directory that shows no name."""
        self.union.writable()
        sighting = self.union.find(parent, name)
        if not sighting.is_directory:
            raise _error(errno.ENOTDIR)
        if not self.union.is_empty(sighting, parent, name):
            raise _error(errno.ENOTEMPTY)
        self._remove(parent, name, sighting)

    def _counted(self, parent: Node, name: bytes, sighting: Sighting) -> Sighting:
        """See that removing a name of a lower file with several is counted, in the same step.

        The file is copied up, and the name given to the copy in upper, whose st_nlink then
        counts.  Kernel overlayfs does the first with index=on (fs/overlayfs/util.c,
        ovl_nlink_start).
        """
        if sighting.named or (sighting.st.st_nlink == 1 and not sighting.link):
            return sighting
        node = self.union.nodes.adopt(parent, name, sighting)
        self.copyup.metadata(node)
        if node.link:
            self._upper_directory(parent)
            self._give_name(node, child_path(parent, name))
        return self.union.find(parent, name)

    def _remove(self, parent: Node, name: bytes, sighting: Sighting) -> None:
        upper, work = self._upper_directory(parent)
        path = child_path(parent, name)
        below = not sighting.named or self.union.shows_below(parent, name)
        node = self.union.nodes.known(sighting)
        with self._keeping(node, sighting, path):
            if below:
                staged = self.union.temporaries.name()
                if self.union.markers.hide(work, staged, upper, path):
                    self._tidy(staged)
            elif sighting.is_directory:
                self._empty_of_whiteouts(path)
                upper.rmdir(path)
            else:
                upper.unlink(path)
        self._removed(parent, name, sighting, node)

    def _empty_of_whiteouts(self, path: bytes) -> None:
        """Take the whiteouts out of an upper directory that shows nothing."""
        upper, _ = self.union.writable()
        for entry in upper.scan(path):
            upper.unlink(join(path, entry.name))

    @contextlib.contextmanager
    def _keeping(self, node: Node | None, sighting: Sighting, path: bytes) -> Iterator[None]:
        """Pin what is about to lose its last known name in upper, while the kernel knows it."""
        upper, _ = self.union.writable()
        if node is None or not sighting.named or node.link or node.pin >= 0 or node.aliases:
            yield
            return
        node.pin = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=upper.fd)
        try:
            yield
        except BaseException:
            os.close(node.pin)
            node.pin = -1
            raise

    def _removed(self, parent: Node, name: bytes, sighting: Sighting, node: Node | None) -> None:
        """Bring the link count and the node table up to date after a name is gone."""
        if sighting.link:
            try:
                self._lost_link(sighting, node)
            except OSError:
                log.exception("%r: its index entry is left", child_path(parent, name))
        if node is not None:
            self.union.nodes.detach(node, parent, name)

    def _lost_link(self, sighting: Sighting, node: Node | None) -> None:
        """Remove the index entry of a file that no name shows any more."""
        _, work = self.union.writable()
        path = self.union.links.path(sighting.link)
        if work.stat(path).st_nlink + markers.read(work, path).links > 0:
            return
        if node is not None:
            flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
            node.pin, node.link = os.open(path, flags, dir_fd=work.fd), b""
        self.union.links.remove(sighting.link)

    def _tidy(self, staged: bytes) -> None:
        """Remove what a finished change left in work; the next mount does it otherwise."""
        try:
            self.union.temporaries.discard(staged)
        except OSError:
            log.exception("%r is left in work until the next mount", staged)

    # Giving names

    def link(self, node: Node, parent: Node, name: bytes) -> os.stat_result:
        """Give a file one more name: link(2); return its attributes."""
        upper, work = self.union.writable()
        if node.orphan and (not node.upper or self.union.attributes(node).st_nlink == 0):
            raise _error(errno.ENOENT)
        self._require_unused(parent, name)
        self._upper_directory(parent)
        self.copyup.metadata(node)
        self._anchor(node, absolute=True)
        path = child_path(parent, name)
        layer, source = self.union.upper_place(node)
        if parent.lowers and self.union.markers.hides(upper, path):
            staged = self.union.temporaries.name()
            layer.link(source, work, staged)
            try:
                self.union.markers.publish(work, staged, upper, path)
            except BaseException:
                self.union.temporaries.discard(staged)
                raise
        else:
            layer.link(source, upper, path)
        st = self.union.attributes(node)
        self.union.nodes.adopt(parent, name, Sighting(node.ino, st, node.upper, True, node.lowers))
        return st

    def _anchor(self, node: Node, *, absolute: bool) -> None:
        """Say on disk where the lower part of *node* is, before its name changes.

        Within the same parent the old name will do; else it is a path from the root
        of the union (overlayfs.rst, "redirect_dir").
        """
        if not node.lowers or node.redirect.startswith(b"/") or (node.redirect and not absolute):
            return
        redirect = node.lower_path if absolute else node.name
        layer, path = self.union.upper_place(node)
        markers.set_redirect(layer, path, redirect)
        node.redirect = redirect

    def rename(
        self, parent: Node, name: bytes, new_parent: Node, new_name: bytes, flags: int
    ) -> None:
        """Rename as renameat2(2) with RENAME_NOREPLACE or RENAME_EXCHANGE."""
        self.union.writable()
        source = self.union.find(parent, name)
        if self.union.markers.reserved(new_name):
            raise _error(errno.EPERM)
        target = self.union.look(new_parent, new_name)
        if flags == syscalls.RENAME_EXCHANGE:
            self._exchange(_Side(parent, name, source), new_parent, new_name, target)
            return
        if flags & ~syscalls.RENAME_NOREPLACE:
            raise _error(errno.EINVAL)
        if flags and target is not None:
            raise _error(errno.EEXIST)
        plan = rules.rename(self._facts(source, target, new_parent, new_name))
        if not plan.nothing:
            self._rename(plan, _Side(parent, name, source), _Side(new_parent, new_name, target))

    def _facts(
        self, source: Sighting, target: Sighting | None, new_parent: Node, new_name: bytes
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
            below_new=source.is_directory and self.union.shows_below(new_parent, new_name),
        )

    def _rename(self, plan: Plan, old: "_Side", new: "_Side") -> None:
        upper, _ = self._upper_directory(new.parent)
        node = self._bring_name(old)
        self._ready(node, plan, same_parent=old.parent is new.parent)
        target = new.sighting
        replaced = None
        if target is not None:
            if not target.is_directory:
                target = self._counted(new.parent, new.name, target)
            replaced = self.union.nodes.known(target)
            if plan.clear and target.named:
                self.union.markers.clear(upper, new.path)
        cover = self.union.shows_below(old.parent, old.name)
        kinds = self.union.markers
        move = kinds.move_directory if node.is_directory else kinds.move_file
        if target is None:
            move(upper, old.path, new.path, cover=cover)
        else:
            with self._keeping(replaced, target, new.path):
                move(upper, old.path, new.path, cover=cover)
            self._removed(new.parent, new.name, target, replaced)
        self.union.nodes.rename(node, old[:2], new[:2])

    def _bring_name(self, side: "_Side") -> Node:
        """Make sure that upper holds this very name; return its node."""
        if side.sighting is None:
            raise _error(errno.ENOENT)
        node = self.union.nodes.adopt(side.parent, side.name, side.sighting)
        self._upper_directory(side.parent)
        if node.is_directory and node.lowers and not self.union.features.redirect_dir:
            self._bring_tree(node)
        else:
            self.copyup.metadata(node)
        if node.link and not side.sighting.named:
            self._give_name(node, side.path)
        return node

    def _give_name(self, node: Node, path: bytes) -> None:
        """Link a file of the link index under its lower name, unless copy-up chose that name."""
        upper, work = self.union.writable()
        if upper.find(path) is not None:
            return
        entry = self.union.links.path(node.link)
        markers.prepare_links(work, entry, node.links, node.links - 1)
        try:
            work.link(entry, upper, path)
        except BaseException:
            self.union.links.settle(node.link)
            raise
        node.links -= 1
        self.union.links.settle(node.link)

    def _bring_tree(self, node: Node) -> None:
        """Copy a directory up with all that it shows, for want of redirects; then hide the lower.

        Nothing that is seen changes, at no step.
        """
        self.copyup.directories(node)
        for name in self.union.listing(node):
            child = self.union.nodes.adopt(node, name, self.union.find(node, name))
            if child.is_directory and child.lowers:
                self._bring_tree(child)
            elif not child.is_directory:
                self.copyup.whole(child)
                if child.link:
                    self._give_name(child, child_path(node, name))
            self.union.nodes.forget(child.ino, 0)
        layer, path = self.union.upper_place(node)
        self.union.markers.make_opaque(layer, path)
        node.lowers, node.redirect = (), b""

    def _ready(self, node: Node, plan: Plan, *, same_parent: bool) -> None:
        """Mark a node in upper for its new name; at the old one the marks say nothing new."""
        if node.is_directory:
            layer, path = self.union.upper_place(node)
            if node.lowers:
                self._anchor(node, absolute=not same_parent)
            elif plan.opaque:
                self.union.markers.make_opaque(layer, path)
        else:
            self._anchor(node, absolute=True)

    def _exchange(
        self, old: "_Side", new_parent: Node, new_name: bytes, target: Sighting | None
    ) -> None:
        if target is None or old.sighting is None:
            raise _error(errno.ENOENT)
        new = _Side(new_parent, new_name, target)
        if old.sighting.ino == target.ino:
            return
        upper, _ = self.union.writable()
        for side, other in ((old, new), (new, old)):
            node = self._bring_name(side)
            opaque = not node.lowers and self.union.shows_below(other.parent, other.name)
            self._ready(node, Plan(opaque=opaque), same_parent=old.parent is new.parent)
        one = self.union.nodes.adopt(*old[:2], self.union.find(*old[:2]))
        two = self.union.nodes.adopt(*new[:2], self.union.find(*new[:2]))
        upper.exchange(old.path, upper, new.path)
        self.union.nodes.rename(one, old[:2], new[:2])
        self.union.nodes.rename(two, new[:2], old[:2])


class _Side(NamedTuple):
    """One of the two names of a rename, and what it shows."""

    parent: Node
    name: bytes
    sighting: Sighting | None

    @property
    def path(self) -> bytes:
        return child_path(self.parent, self.name)


def _kind(sighting: Sighting | None) -> Kind:
    if sighting is None:
        return Kind.NOTHING
    return Kind.DIRECTORY if sighting.is_directory else Kind.FILE
