"""Changing and reading what is known of an object besides its names and content.

A change copies the object up first, only its metadata where that suffices.
Attributes that are markers on disk never show, and a user's own attribute of
such a name is kept under an escaped one (overlayfs.rst, "Nesting overlayfs
mounts").
"""

import errno
import os
import stat
from typing import NamedTuple

from unionfs import markers, protection
from unionfs.copyup import CopyUp
from unionfs.descent import stale
from unionfs.iflags import IMMUTABLE, PROTECTING
from unionfs.layer import Layer, WritableLayer
from unionfs.node import Node
from unionfs.union import Union

_ACL = b"system.posix_acl_"


class Wish(NamedTuple):
    """What setattr is to change; None, or -1 for the owners, leaves a thing as it is."""

    mode: int | None = None
    uid: int = -1
    gid: int = -1
    size: int | None = None
    atime_ns: int | None = None
    mtime_ns: int | None = None


NOTHING = Wish()  # what chown(-1, -1) arrives as, and writes that take set-uid bits away


def _times(
    atime_ns: int | None, mtime_ns: int | None, layer: Layer, path: bytes
) -> tuple[int, int]:
    """Return access and modification time, what is not wished as it is."""
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

    def change(self, node: Node, wish: Wish, fd: int = -1) -> os.stat_result:
        """Carry *wish* out and return the new attributes; *fd* is open for writing, or -1."""
        mode, uid, gid, size, atime_ns, mtime_ns = wish
        self.union.writable()
        if size is not None:
            self._resize(node, size, fd)
        layer, path = self._place(node)
        if uid != -1 or gid != -1 or wish == NOTHING:
            # With nothing too: it takes set-uid bits away, chown(2).
            layer.chown(path, uid, gid)
            self.union.fills.take_capability(node, layer, path)
        if mode is not None:
            layer.chmod(path, stat.S_IMODE(mode))
        if atime_ns is not None or mtime_ns is not None:
            layer.utime(path, *_times(atime_ns, mtime_ns, layer, path))
            if mtime_ns is not None:
                self.union.fills.set_mtime(node, layer, path, mtime_ns)
        st = layer.stat(path)
        if stat.S_IFMT(st.st_mode) != node.format:  # as in `Union.attributes`
            raise stale()
        return self.union.fills.shown(node, st)

    def _place(self, node: Node) -> tuple[WritableLayer, bytes]:
        """Return where attributes of *node* are to be changed, on upper."""
        if not node.upper:
            self.copyup.metadata(node)
        if node.format == stat.S_IFDIR:
            self.union.names_change()
        return self.union.upper_place(node)

    def _resize(self, node: Node, size: int, fd: int) -> None:
        """Set a file's size; of a lower one, no byte beyond it is copied."""
        self.copyup.whole(node, size)
        layer, path = self.union.upper_place(node)
        if fd >= 0:
            layer.truncate(fd, size)
            return
        opened = layer.open_to_write(path, os.O_WRONLY)
        try:
            layer.truncate(opened, size)
        finally:
            os.close(opened)

    def permit(self, node: Node, wish: Wish, *, touches: bool) -> None:
        """Raise EPERM where *node* is protected from *wish*: fs/attr.c, notify_change.

        It *touches* where the times are set to now, which an append-only file lets happen.
        """
        only_times = wish == Wish(atime_ns=wish.atime_ns, mtime_ns=wish.mtime_ns)
        protection.require(self.union, node, IMMUTABLE if touches and only_times else PROTECTING)

    def guards(self, node: Node, uid: int) -> bool:
        """Tell whether this is another's file with set-uid bits, not to be taken by `NOTHING`.

        fs/attr.c, notify_change, makes a change of the mode of it.
        """
        st = self.union.attributes(node)
        privileged = st.st_mode & (stat.S_ISUID | stat.S_ISGID) and not node.is_directory
        return bool(privileged) and uid not in {0, st.st_uid}

    def drop_privileges(self, node: Node, st: os.stat_result) -> os.stat_result:
        """Take set-uid and set-gid from a file that an unprivileged caller changed.

        fs/attr.c, setattr_should_drop_suidgid: set-gid counts with group execute only.
        """
        mode = stat.S_IMODE(st.st_mode)
        dropped = mode & ~stat.S_ISUID
        if mode & stat.S_IXGRP:
            dropped &= ~stat.S_ISGID
        if dropped == mode:
            return st
        return self.change(node, Wish(mode=dropped))

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
        if stored == markers.CAPABILITY and node in self.union.fills:
            return markers.KEPT_CAPABILITY
        return stored

    def names(self, node: Node) -> list[bytes]:
        """Return the names of a node's extended attributes."""
        layer, path = self.union.place(node)
        stored = layer.attributes(path)
        if markers.KEPT_CAPABILITY in stored and node in self.union.fills:
            stored.append(markers.CAPABILITY)
        return [os.fsencode(name) for name in markers.shown_names(stored)]

    def names_for(self, node: Node, uid: int) -> list[bytes]:
        """Return the names that the user *uid* may see: xattr(7), "Trusted extended attributes"."""
        names = self.names(node)
        return names if uid == 0 else [name for name in names if not name.startswith(b"trusted.")]

    def set(self, node: Node, name: bytes, value: bytes, flags: int = 0) -> None:
        """Set an extended attribute; *flags* as setxattr(2) takes them."""
        self.union.writable()
        protection.require(self.union, node)
        layer, path = self._place(node)
        layer.set_attribute(path, self._stored(node, name), value, flags)

    def remove(self, node: Node, name: bytes) -> None:
        """Remove an extended attribute; where there is none, ENODATA and no copy-up.

        An ACL that is not there is removed without an error: fs/posix_acl.c, vfs_remove_acl.
        """
        self.union.writable()
        protection.require(self.union, node)
        try:
            self.get(node, name)
        except OSError as exc:
            if exc.errno == errno.ENODATA and name.startswith(_ACL):
                return
            raise
        layer, path = self._place(node)
        layer.remove_attribute(path, self._stored(node, name))
