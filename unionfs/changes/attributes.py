"""Changing and reading an object's metadata: everything but its names and content.

A change copies the object up first, only its metadata where that suffices.
Attributes that are markers on disk never show, and a user's own attribute of
such a name is kept under an escaped one (overlayfs.rst, "Nesting overlayfs
mounts").
"""

import contextlib
import errno
import logging
import os
import stat
from collections.abc import Iterator
from typing import NamedTuple

from unionfs.changes import protection
from unionfs.changes.copyup import CopyUp
from unionfs.host.credentials import ROOT, SET_IDS, Requester, is_set_gid_alone
from unionfs.layers import markers
from unionfs.layers.descent import stale
from unionfs.layers.iflags import IMMUTABLE, PROTECTING
from unionfs.layers.layer import Layer, WritableLayer
from unionfs.view.node import Node
from unionfs.view.union import Union

log = logging.getLogger(__name__)

_ACL = b"system.posix_acl_"
_ACCESS_ACL = b"system.posix_acl_access"
CAPABILITY = b"security.capability"


class NewAttributes(NamedTuple):
    """What setattr is to change; None, or -1 for an owner, leaves the value as it is."""

    mode: int | None = None
    uid: int = -1
    gid: int = -1
    size: int | None = None
    atime_ns: int | None = None
    mtime_ns: int | None = None


# An object before a change: its attributes, and its capability.
_Before = tuple[os.stat_result, bytes | None]

NOTHING = NewAttributes()  # chown(-1, -1) arrives as this, and so do writes that take set-uid bits


def _owns(new: NewAttributes) -> bool:
    """Tell whether chown(2) is asked for.

    A request that changes nothing counts, too: it takes set-uid bits away.
    """
    return new.uid != -1 or new.gid != -1 or new == NOTHING


def _has_several(new: NewAttributes) -> bool:
    """Tell whether *new* takes more than one step."""
    times = new.atime_ns is not None or new.mtime_ns is not None
    return _owns(new) + times + (new.mode is not None) + (new.size is not None) > 1


def _times(
    atime_ns: int | None, mtime_ns: int | None, layer: Layer, path: bytes
) -> tuple[int, int]:
    """Return access and modification time; a time that is not to change is as it is now."""
    if atime_ns is not None and mtime_ns is not None:
        return atime_ns, mtime_ns
    st = layer.stat(path)
    return (
        st.st_atime_ns if atime_ns is None else atime_ns,
        st.st_mtime_ns if mtime_ns is None else mtime_ns,
    )


class Attributes:
    """The verbs that change attributes of one union."""

    def __init__(self, union: Union, copyup: CopyUp) -> None:
        self.union = union
        self.copyup = copyup

    def change(
        self,
        node: Node,
        new: NewAttributes,
        fd: int = -1,
        requester: Requester = ROOT,
        *,
        sized: bool = False,
    ) -> os.stat_result:
        """Change the attributes to *new* and return them all; *fd* is open for writing, or -1.

        All of it changes or, where a step fails, nothing.  Content that was cut off does not come
        back, so the cut comes last, and only the times after it; or it has been done (*sized*).
        """
        self.union.require_upper()
        of_two_steps = _has_several(new) or (_owns(new) and requester.uid)
        before = self._before(node) if of_two_steps else None
        try:
            if new.size is None or sized:
                layer, path = self._place(node)
                self._set_owner_and_mode(node, layer, path, new)
            else:
                layer, path = self._cut(node, new, new.size, fd)
            self._set_times(node, layer, path, new)
        except OSError:
            if before is not None:
                self._restore(node, before)
            raise
        try:
            st = layer.stat(path)
        except OSError:  # no error may say that it was not
            log.exception("%r is changed, but its new attributes cannot be read", node.path)
            st = layer.stat(path)
        if stat.S_IFMT(st.st_mode) != node.format:  # as in `Union.attributes`
            raise stale()
        if is_set_gid_alone(st.st_mode) and _owns(new):
            st = self._leave_set_gid(node, st, before, requester)
        return self.union.upper.fills.shown(node, st)

    def _leave_set_gid(
        self, node: Node, st: os.stat_result, before: _Before | None, requester: Requester
    ) -> os.stat_result:
        """Take set-gid from a file without group execute that somebody outside its group gave away.

        The owners before the change count: fs/open.c, chown_common.
        """
        owned = st if before is None else before[0]
        try:
            return self._without_set_gid(node, st, owned, requester)
        except OSError:
            if before is None:
                log.exception("%r has a new owner, and is still set-gid", node.path)
                return st
            self._restore(node, before)
            raise

    def _cut(
        self, node: Node, new: NewAttributes, size: int, fd: int
    ) -> tuple[WritableLayer, bytes]:
        """Set owner and mode, then the size; return the file's place after that."""
        if new.mode is not None or _owns(new):
            self._set_owner_and_mode(node, *self._place(node), new)
        self._resize(node, size, fd)
        return self.union.upper.place(node)

    def _before(self, node: Node) -> _Before:
        """Return what `_restore` needs; chown(2) takes capabilities away, too."""
        layer, path = self.union.place(node)
        return layer.stat(path), layer.find_attribute(path, self._stored(node, CAPABILITY))

    def _restore(self, node: Node, before: _Before) -> None:
        """Undo changes of owner and mode."""
        if not node.upper:
            return
        st, capability = before
        try:
            layer, path = self.union.upper.place(node)
            layer.chown(path, st.st_uid, st.st_gid)
            if node.format != stat.S_IFLNK:
                layer.chmod(path, stat.S_IMODE(st.st_mode))
            if capability is not None:
                layer.set_attribute(path, self._stored(node, CAPABILITY), capability)
        except OSError:
            log.exception("%r has only some of its new attributes", node.path)

    def _set_owner_and_mode(
        self, node: Node, layer: WritableLayer, path: bytes, new: NewAttributes
    ) -> None:
        if _owns(new):
            layer.chown(path, new.uid, new.gid)
            self.union.upper.fills.take_capability(node, layer, path)
        if new.mode is not None:
            layer.chmod(path, stat.S_IMODE(new.mode))

    def _set_times(self, node: Node, layer: WritableLayer, path: bytes, new: NewAttributes) -> None:
        atime_ns, mtime_ns = new.atime_ns, new.mtime_ns
        if atime_ns is None and mtime_ns is None:
            return
        try:
            layer.utime(path, *_times(atime_ns, mtime_ns, layer, path))
            if mtime_ns is not None:
                self.union.upper.fills.set_mtime(node, layer, path, mtime_ns)
        except OSError:
            if new.size is None:
                raise
            log.exception("%r has its new size, but not its new times", node.path)

    def _place(self, node: Node) -> tuple[WritableLayer, bytes]:
        """Return the place in upper where attributes of *node* are to be changed."""
        if not node.upper:
            self.copyup.metadata(node)
        if node.format == stat.S_IFDIR:
            self.union.known.names_change()
        return self.union.upper.place(node)

    def _resize(self, node: Node, size: int, fd: int) -> None:
        """Set a file's size; of a lower one, no byte beyond it is copied."""
        if self.copyup.cuts_by_blocks(node, size) and self.copyup.by_blocks(node):
            self.copyup.partials.cut(node, size)
            return
        if self.union.has_lower_content(node) and self.copyup.whole(node, size):
            return
        layer, path = self.union.upper.place(node)
        if fd >= 0:
            layer.truncate(fd, size)
            return
        opened = layer.open_to_write(path, os.O_WRONLY)
        try:
            layer.truncate(opened, size)
        finally:
            os.close(opened)

    def permit(self, node: Node, new: NewAttributes, *, touches: bool) -> None:
        """Raise EPERM where *node* is protected from *new*: fs/attr.c, notify_change.

        *touches*: the times are set to now, which an append-only file allows.
        """
        only_times = new == NewAttributes(atime_ns=new.atime_ns, mtime_ns=new.mtime_ns)
        protection.require(self.union, node, IMMUTABLE if touches and only_times else PROTECTING)

    def _without_set_gid(
        self, node: Node, st: os.stat_result, owned: os.stat_result, requester: Requester
    ) -> os.stat_result:
        """Take set-gid away, unless *requester* may keep it on a file with the owners *owned*."""
        if requester.credentials().keeps_set_gid(owned):
            return st
        return self.change(node, NewAttributes(mode=stat.S_IMODE(st.st_mode) & ~stat.S_ISGID))

    def drop_privileges(
        self, node: Node, st: os.stat_result, requester: Requester
    ) -> os.stat_result:
        """Take the bits that fall as *requester* changed a file; return the new attributes."""
        if not st.st_mode & SET_IDS:
            return st
        taken = requester.credentials().takes(st)
        if not taken:
            return st
        return self.change(node, NewAttributes(mode=stat.S_IMODE(st.st_mode) & ~taken))

    def privileges_dropped(
        self, node: Node, requester: Requester
    ) -> contextlib.AbstractContextManager[None]:
        """Take from a file the bits that fall, before *requester* cuts it.

        They come back if the cut fails.  They go first, as a file that was cut must not have them,
        and an error after the cut would say that nothing happened.
        """
        if requester is ROOT:
            return contextlib.nullcontext()
        before = self.union.attributes(node)
        return self._dropped(node, before, self.drop_privileges(node, before, requester))

    def _set_gid_dropped(
        self, node: Node, requester: Requester
    ) -> contextlib.AbstractContextManager[None]:
        """Take set-gid while an ACL is set: fs/posix_acl.c, posix_acl_update_mode."""
        before = self.union.attributes(node)
        if not before.st_mode & stat.S_ISGID:
            return contextlib.nullcontext()
        after = self._without_set_gid(node, before, before, requester)
        return self._dropped(node, before, after)

    @contextlib.contextmanager
    def _dropped(self, node: Node, before: os.stat_result, after: os.stat_result) -> Iterator[None]:
        try:
            yield
        except BaseException:
            if after is not before:
                self._give_privileges_back(node, before, after)
            raise

    def _give_privileges_back(
        self, node: Node, before: os.stat_result, after: os.stat_result
    ) -> None:
        """Set the mode again, unless somebody else has done so meanwhile."""
        try:
            if self.union.attributes(node).st_mode == after.st_mode:
                self.change(node, NewAttributes(mode=before.st_mode))
        except OSError:
            log.exception("%r has lost its set-uid bits", node.path)

    def get(self, node: Node, name: bytes) -> bytes:
        """Return an extended attribute; ENODATA where there is none."""
        layer, path = self.union.place(node)
        try:
            return layer.attribute(path, self._stored(node, name))
        except OSError as exc:
            if exc.errno == errno.EOPNOTSUPP and name.startswith(_ACL):
                # The kernel asks before it decides on access, and would pass this error on: a
                # file system without ACLs, squashfs say, has none to apply (fs/fuse/acl.c).
                raise OSError(errno.ENODATA, os.strerror(errno.ENODATA)) from None
            raise

    def _stored(self, node: Node, name: bytes) -> str:
        """Return the name under which a user's attribute is kept on disk."""
        stored = markers.stored_name(os.fsdecode(name))
        if stored == markers.CAPABILITY and self._is_filled(node):
            return markers.KEPT_CAPABILITY
        return stored

    def _is_filled(self, node: Node) -> bool:
        return node.upper and node in self.union.upper.fills

    def names(self, node: Node) -> list[bytes]:
        """Return the names of a node's extended attributes."""
        layer, path = self.union.place(node)
        stored = layer.attributes(path)
        if markers.KEPT_CAPABILITY in stored and self._is_filled(node):
            stored.append(markers.CAPABILITY)
        return [os.fsencode(name) for name in markers.shown_names(stored)]

    def names_for(self, node: Node, uid: int) -> list[bytes]:
        """Return the names that the user *uid* may see: xattr(7), "Trusted extended attributes"."""
        names = self.names(node)
        return names if uid == 0 else [name for name in names if not name.startswith(b"trusted.")]

    def set(
        self, node: Node, name: bytes, value: bytes, flags: int = 0, requester: Requester = ROOT
    ) -> None:
        """Set an extended attribute; *flags* as setxattr(2) takes them.

        With an ACL set-gid falls, unless *requester* may set it.
        """
        self.union.require_upper()
        protection.require(self.union, node)
        is_acl = name == _ACCESS_ACL
        with self._set_gid_dropped(node, requester) if is_acl else contextlib.nullcontext():
            layer, path = self._place(node)
            layer.set_attribute(path, self._stored(node, name), value, flags)

    def remove(self, node: Node, name: bytes) -> None:
        """Remove an extended attribute; where there is none, ENODATA and no copy-up.

        An ACL that is not there is removed without an error: fs/posix_acl.c, vfs_remove_acl.
        """
        self.union.require_upper()
        protection.require(self.union, node)
        try:
            self.get(node, name)
        except OSError as exc:
            if exc.errno == errno.ENODATA and name.startswith(_ACL):
                return
            raise
        layer, path = self._place(node)
        layer.remove_attribute(path, self._stored(node, name))
