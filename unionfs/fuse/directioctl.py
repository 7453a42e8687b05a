"""ioctl(2) on files and directories, answered directly; see `direct`.

The kernel asks for inode flags by ioctls that it makes itself, also where a program used
file_getattr(2) and file_setattr(2).  Before that it has checked who may change them
(fs/fuse/ioctl.c, fs/file_attr.c).  Other ioctls are not for such files: ENOTTY.
"""

import errno
from typing import TYPE_CHECKING

from unionfs.fuse.service import Service
from unionfs.fuse.session import messages
from unionfs.fuse.session.crew import Waiting
from unionfs.layers.iflags import EXTENDED, FLAGS, Form
from unionfs.view.node import Node

if TYPE_CHECKING:
    from collections.abc import Mapping

    from unionfs.fuse.chattr import Chattr
    from unionfs.fuse.session.dispatch import Handler

_READ = {form.read: form for form in (FLAGS, EXTENDED)}
_WRITE = {form.write: form for form in (FLAGS, EXTENDED)}


class DirectIoctl:
    """The direct handler of one mount for ioctls."""

    def __init__(self, service: Service) -> None:
        self._chattr: Chattr = service.chattr
        self._copies = service.files.copies
        self._nodes = service.union.nodes
        self._session = service.session
        self.table: Mapping[int, Handler] = {messages.IOCTL: self._ioctl}

    def _ioctl(
        self, unique: int, number: int, body: memoryview, uid: int, _gid: int
    ) -> bytes | Waiting:
        _, _, command, _, _, room = messages.IOCTL_IN.unpack_from(body)
        node = self._nodes[number]
        if command in _READ and room == _READ[command].size:
            return messages.controlled(unique, self._chattr.get(node, _READ[command]))
        form, wished = _WRITE.get(command), bytes(body[messages.IOCTL_IN.size :])
        if form is None or len(wished) != form.size:
            # Not raised, which takes longer: with each line of a file, systemd asks whether the
            # file is a terminal (TCGETS), which makes two fifths of all requests of a boot.
            return messages.error(unique, errno.ENOTTY)
        shown = self._chattr.get(node, form)
        if not self._chattr.takes_content(node, form, wished):
            return self._set(unique, node, form, (shown, wished), uid)

        async def job() -> bytes:
            await self._copies.bring(node)
            return self._set(unique, node, form, (shown, wished), uid)

        return Waiting(job)

    def _set(
        self, unique: int, node: Node, form: Form, change: tuple[bytes, bytes], uid: int
    ) -> bytes:
        self._chattr.set(node, form, *change, uid)
        self._session.invalidate_attributes(node.ino)  # its change time; the kernel keeps the old
        return messages.controlled(unique)
