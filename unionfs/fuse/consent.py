"""Changes that the kernel leaves to the file system to permit: those that take privileges away.

The kernel decides on all others itself (default_permissions).  But the protocol has no words for
"this write takes the file's set-uid bits away", so the kernel asks in the words of other requests.
"""

import errno
import os
import stat
from collections.abc import Callable

from unionfs.changes.attributes import CAPABILITY, NOTHING, Attributes, NewAttributes
from unionfs.fuse.session.grants import Granted
from unionfs.host.credentials import CAP_FSETID, CAP_SETFCAP, SET_IDS, Requester
from unionfs.view.node import Node
from unionfs.view.union import Union


class Consent:
    """The answers of one mount."""

    def __init__(
        self, union: Union, attributes: Attributes, is_written: Callable[[Node], bool]
    ) -> None:
        self._union = union
        self._attributes = attributes
        self._is_written = is_written  # does anybody have the file open for writing?
        # The file that was stripped of its capability last, and the thread that did it.
        self._stripped = 0, 0
        self.granted = Granted()

    def permit(
        self, node: Node, new: NewAttributes, requester: Requester, *, touches: bool = False
    ) -> bool:
        """Tell whether to set *new*; the kernel leaves it to us.

        A write or fallocate by a caller without privileges first arrives as `NOTHING`, like
        chown(-1, -1) and without a handle (fs/inode.c, file_remove_privs).  It takes set-uid bits
        away, and is permitted while the file is open for writing; else the answer is EPERM.  With
        `noopen` nobody knows which files are open: nothing is taken away before the write itself
        (`ready_to_write`).
        """
        if new == NOTHING:
            stripped, self._stripped = self._stripped == (node.ino, requester.thread), (0, 0)
            return self._may_take(node, requester, stripped=stripped)
        if node.protection or not node.upper:
            self._attributes.permit(node, new, touches=touches)
        return True

    def _may_take(self, node: Node, requester: Requester, *, stripped: bool) -> bool:
        """Decide on `NOTHING`, which also comes before a write by a caller who keeps all bits.

        It comes then because the file had a capability, of which it was *stripped* just now.
        """
        st = self._union.attributes(node)
        if not st.st_mode & SET_IDS or not stat.S_ISREG(st.st_mode):
            return True
        who = requester.credentials()
        keeps = who.has(CAP_FSETID)
        if keeps and stripped and (self.granted.noopen or self._is_written(node)):
            return False
        if not who.is_forbidden_to_chown(st):
            return True
        if self.granted.noopen:
            return False
        if keeps or not self._is_written(node):
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        return True

    def remove_attribute(self, node: Node, name: bytes, requester: Requester) -> None:
        """Remove an extended attribute.

        The kernel also removes a capability before it asks for a change that takes the capability
        away anyway, or is refused (`NOTHING`).  Where the caller himself could not remove it,
        nothing is done.
        """
        if name == CAPABILITY:
            self._stripped = node.ino, requester.thread
            if requester.uid and not self._may_set_capability(node, requester):
                return
        self._attributes.remove(node, name)

    def _may_set_capability(self, node: Node, requester: Requester) -> bool:
        st = self._union.attributes(node)
        return requester.credentials().has_over(CAP_SETFCAP, st)
