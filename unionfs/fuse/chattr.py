"""What lsattr(1) shows and chattr(1) changes, of one union.

A file in a lower layer has the flags that its host gives it, and copy-up takes along those
that any file system knows (`iflags`).  So a change is made to the flags that upper's file
then has, not to those shown before: upper may be a file system of another kind.
"""

import errno
import os

from unionfs.changes.copyup import CopyUp
from unionfs.layers import iflags, markers
from unionfs.layers.iflags import Form
from unionfs.view.node import Node
from unionfs.view.union import Union


class Chattr:
    """The flags of the objects of one union."""

    def __init__(self, union: Union, copyup: CopyUp) -> None:
        self.union = union
        self._copyup = copyup

    def get(self, node: Node, form: Form) -> bytes:
        """Return the flags that show; ENOTTY where the host has none.

        A lower layer that knows no flags shows none set if upper can take flags.
        """
        layer, path = self.union.place(node)
        read = iflags.read if node.upper or not self.union.upper else iflags.find
        data = read(layer, path, form)
        flags = form.flags(data) | form.bits(node.protection if node.upper else 0)
        return form.with_flags(data, flags)

    def takes_content(self, node: Node, form: Form, wished: bytes) -> bool:
        """Tell whether a file needs its content in upper for flags that no later copy takes along.

        Some flags also say how content is stored: compressed, not copied on write.
        """
        if not self.union.has_lower_content(node):
            return False
        shown = self.get(node, form)
        light = form.copied | form.protecting
        changed = form.flags(shown) ^ form.flags(wished)
        is_light = changed & ~light == 0 and shown[4:] == wished[4:]
        return not (is_light and self.union.leaves_content(node))

    def set(self, node: Node, form: Form, shown: bytes, wished: bytes, uid: int) -> None:
        """Change the flags to *wished*, for the user *uid*, whom the kernel has permitted that.

        A flag that does not differ from what was *shown* to the user stays: a copied file has
        flags of its own on another file system, as ext4's for extents.
        """
        self.union.require_upper()
        changed = form.flags(shown) ^ form.flags(wished)
        if form is iflags.FLAGS and changed & iflags.JOURNAL_DATA and uid:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))  # ext4 asks the daemon
        self._copyup.metadata(node)
        layer, path = self.union.upper.place(node)
        before = iflags.read(layer, path, form)
        now = form.flags(before)
        flags = (now & ~changed | form.flags(wished) & changed) & ~form.protecting
        after = form.with_flags(before if shown[4:] == wished[4:] else wished, flags)
        if after != before:
            layer.set_flags(path, form.write, after)
        try:
            self._protect(node, form.protection(form.flags(wished)))
        except BaseException:
            layer.set_flags(path, form.write, before)
            raise

    def _protect(self, node: Node, protection: int) -> None:
        if protection != node.protection:
            markers.set_protection(*self.union.upper.place(node), protection)
            node.protection = protection
