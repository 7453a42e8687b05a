"""The verbs that answer the requests of one mount, whichever way these come.

Requests come from the kernel (`direct`), or through libfuse and pyfuse3 (`operations`).
"""

import contextlib
import errno
import logging
from collections.abc import Callable
from typing import Any, Literal

from unionfs.changes.assembly import verbs_of
from unionfs.changes.attributes import Attributes
from unionfs.changes.changes import Changes
from unionfs.fuse import rootattributes
from unionfs.fuse.chattr import Chattr
from unionfs.fuse.content_copies import ContentCopies
from unionfs.fuse.descriptors import Descriptors
from unionfs.fuse.durability import Durability
from unionfs.fuse.files import Files
from unionfs.fuse.maintenance import Maintenance
from unionfs.fuse.name_changes import NameChanges
from unionfs.fuse.own_attributes import OwnAttributes
from unionfs.fuse.session import Granted, Session
from unionfs.fuse.trouble import Trouble, reply_number
from unionfs.host.credentials import Requester
from unionfs.view.listings import Listings
from unionfs.view.node import Node
from unionfs.view.union import Union

log = logging.getLogger(__name__)

STATUS = rootattributes.STATUS.encode()


class Service:
    """The verbs of one mount, and what its open files and its administrator are told."""

    def __init__(
        self,
        union: Union,
        session: Session,
        *,
        passthrough: Literal["off", "upper", "all"],
        status: dict[str, Any],
    ) -> None:
        self.union = union
        self.session = session
        self.status = rootattributes.Status(status)
        self.trouble = Trouble()
        self._copyup, self.changes = verbs_of(union)
        self.attributes = Attributes(union, self._copyup)
        self.chattr = Chattr(union, self._copyup)
        self.durability = Durability(union)
        self.files = Files(union, self._copyup, session, passthrough)
        self.descriptors = Descriptors(union)
        self._own_attributes = OwnAttributes(
            union, self.changes, self.files.copies, Maintenance(union, self.descriptors, self.files)
        )
        self.listings = Listings(union)
        self.name_changes = _name_changes(union, self.changes, self.files.copies)

    def explain(self, error: Exception, request: str, subject: Callable[[], Node]) -> int:
        """Return the errno of a failed request, and log what an administrator should know of.

        Any exception but `OSError` is a bug, and gives EIO; pyfuse3 would end the mount.
        """
        if not isinstance(error, OSError):
            log.error("%s failed", request, exc_info=error)
            return errno.EIO
        number = reply_number(error)
        if self.trouble.concerns(number):
            node = self.union.root
            with contextlib.suppress(KeyError, OSError):  # a stale number has no path to log
                node = subject()
            self.trouble.tell(number, request, node.path)
        return number

    def serve_with(self, granted: Granted) -> None:
        """Take note of what the kernel granted, before the first request comes."""
        self.status.document["kernel"] = granted.as_json()
        self.files.begin(granted)
        if self.union.upper and granted.direct:
            self.union.upper.defer_removals()
        if self.union.far and self.session.ask(self.union.far):
            for layer in self.union.far:
                layer.ask_from_now_on(self.union.upper.work.fd if self.union.upper else -1)

    def forget_node(self, ino: int, count: int) -> None:
        """Take back *count* lookups of one node; must not raise, as no reply carries errors."""
        try:
            node = self.union.nodes.get(ino)
            # First, as the pin of a deleted file is closed with its node, and has to be the
            # file's last descriptor: `closing`.
            if node is None or node.lookups <= count:
                self.files.forget(ino)
            self.union.nodes.forget(ino, count)
        except Exception:
            log.exception("forget of %d failed", ino)

    def attribute(self, node: Node, name: bytes) -> bytes:
        """Return an extended attribute; the root has one that only its daemon knows."""
        if name == STATUS and node is self.union.root:
            self.union.access.follow_mount(self.session.device)
            return self.status.attribute()
        return self.attributes.get(node, name)

    async def set_attribute(
        self, node: Node, name: bytes, value: bytes, flags: int, requester: Requester
    ) -> None:
        """Set an extended attribute, also where a file has to be copied up with its content."""
        if name in OwnAttributes.names:
            await self._own_attributes.set(node, name, value)
            return
        await self.files.copies.bring_wholly(node)
        self.files.sets_attribute()
        self.attributes.set(node, name, value, flags, requester)


def _name_changes(union: Union, changes: Changes, copies: ContentCopies) -> NameChanges:
    if not union.two_sided:
        return NameChanges(union, changes, copies)
    from unionfs.fuse import crossing_copies  # noqa: PLC0415 - few unions have two

    return crossing_copies.of(union, changes, copies)
