"""Requests answered directly, without pyfuse3: all that the kernel makes.

This module puts the verbs of the union between the bytes of a request and those of
its reply; `session.dispatch` says why.  `operations` has the same verbs for pyfuse3; they
serve where libfuse holds the device (direct=off, handshake=off).  A request that has to
wait, for content to be copied up, is answered by a task (`Waiting`).  Requests for the
content of files are in `directfiles`, for directories in `directlistings`, for changes of
names in `directnames`.
"""

import errno
import os
import stat
from typing import TYPE_CHECKING

from unionfs.changes.attributes import CAPABILITY, NOTHING, NewAttributes
from unionfs.changes.changes import Caller
from unionfs.fuse.backing import SMALL
from unionfs.fuse.directfiles import DirectFiles
from unionfs.fuse.directioctl import DirectIoctl
from unionfs.fuse.directlistings import DirectListings
from unionfs.fuse.directnames import DirectNames
from unionfs.fuse.foresight import Foresight
from unionfs.fuse.own_attributes import OwnAttributes
from unionfs.fuse.service import Service
from unionfs.fuse.session import messages
from unionfs.fuse.session.crew import Waiting, at_once
from unionfs.fuse.session.dispatch import NO_REPLY, Handler
from unionfs.host import closing
from unionfs.host.credentials import ROOT
from unionfs.view.node import Node

# Blocks, as st_blocks counts them, from which on the end of a deleted file is not put off: 64 KiB.
_MUCH_ROOM = 128

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


def _name(body: memoryview, start: int = 0) -> bytes:
    """Return the name that ends *body*, without its zero byte."""
    return bytes(body[start:-1])


def _names(body: memoryview, start: int = 0) -> list[bytes]:
    """Return the two names that end *body*."""
    return bytes(body[start:-1]).split(b"\0")


def _forgotten(body: memoryview) -> "Iterator[tuple[int, int]]":
    """Return the nodes that a BATCH_FORGET names, each with how many look-ups it takes back."""
    (count,) = messages.BATCH_FORGET_IN.unpack_from(body)
    start = messages.BATCH_FORGET_IN.size
    return messages.FORGET_ONE.iter_unpack(body[start : start + count * messages.FORGET_ONE.size])


class Direct:
    """The direct handlers of one mount."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._union = service.union
        self._nodes = service.union.nodes
        self._files = service.files
        self._backings = service.files.backings
        self._changes = service.changes
        self._attributes = service.attributes
        self._foresight = Foresight(service.union, service.listings, self._forget_one)
        self._tidy: Callable[[], bool] = lambda: False
        if self._union.upper:
            self._tidy = self._union.upper.tidy
        self._content = DirectFiles(service)
        listings = DirectListings(service, self._foresight, self._shown, self._forget_one)
        self.table: Mapping[int, Handler] = {
            **self._own_handlers(),
            **self._content.table,
            **listings.table,
            **DirectNames(service, self._entry).table,
            **DirectIoctl(service).table,
        }

    def _own_handlers(self) -> "Mapping[int, Handler]":
        return {
            messages.LOOKUP: self._lookup,
            messages.FORGET: self._forget,
            messages.BATCH_FORGET: self._forget_many,
            messages.GETATTR: self._getattr,
            messages.SETATTR: self._setattr,
            messages.READLINK: self._readlink,
            messages.SYMLINK: self._symlink,
            messages.MKNOD: self._mknod,
            messages.MKDIR: self._mkdir,
            messages.RMDIR: self._rmdir,
            messages.GETXATTR: self._getxattr,
            messages.SETXATTR: self._setxattr,
            messages.REMOVEXATTR: self._removexattr,
            messages.STATFS: self._statfs,
            messages.LISTXATTR: self._listxattr,
        }

    def foresee(self) -> bool:
        """Make something ready, or tidy up, in a few microseconds; False: there is nothing."""
        return self._foresight.step() or self._tidy()

    def gives_room(self, opcode: int, node: int, body: memoryview) -> bool:
        """Tell whether a request that nobody waits for is the end of a large deleted file."""
        if opcode == messages.BATCH_FORGET:
            return any(self._holds_room(number) for number, _ in _forgotten(body))
        return self._holds_room(node)

    def _holds_room(self, number: int) -> bool:
        node = self._nodes.get(number)
        if node is None or not node.orphan or node.pin < 0:
            return False
        return closing.blocks(node.pin) >= _MUCH_ROOM

    def close(self) -> None:
        """Finish what was put off."""
        while self._tidy():
            pass

    def explain(self, error: Exception, opcode: int, node: int) -> int:
        """Return the errno of a failed request, and log what an administrator should know of."""
        request = self.table[opcode].__name__[1:]
        return self._service.explain(error, request, lambda: self._nodes[node])

    def _shown(self, node: Node, st: os.stat_result) -> tuple[int, int, int]:
        """Return st_nlink, st_blocks, and the seconds for which the kernel may keep attributes.

        Take note of a size of which an open wants to know.
        """
        if st.st_size >= SMALL:
            self._files.passthrough.is_large(node)
        links, blocks = self._union.shown(node, st)
        if node.ino in self._backings.bypassed and self._backings.may_change(node):
            return links, blocks, 0
        return links, blocks, messages.FOREVER

    def _entry(self, unique: int, node: Node, st: os.stat_result) -> bytes:
        """Return the reply that the kernel counts as a look-up."""
        try:
            reply = messages.entry(unique, node.ino, st, *self._shown(node, st))
        except BaseException:
            self._nodes.drop_if_unknown(node)
            raise
        node.lookups += 1
        return reply

    # Names

    def _lookup(self, unique: int, parent: int, body: memoryview, _uid: int, _gid: int) -> bytes:
        found = self._union.lookup.node(self._nodes[parent], bytes(body[:-1]))
        if found is None:
            return messages.absent(unique)
        return self._entry(unique, *found)

    def _forget(self, _unique: int, node: int, body: memoryview, _uid: int, _gid: int) -> bytes:
        (count,) = messages.FORGET_IN.unpack_from(body)
        self._forget_one(node, count)
        return NO_REPLY

    def _forget_many(
        self, _unique: int, _node: int, body: memoryview, _uid: int, _gid: int
    ) -> bytes:
        for node, lookups in _forgotten(body):
            self._forget_one(node, lookups)
        return NO_REPLY

    def _forget_one(self, number: int, lookups: int) -> None:
        node = self._nodes.get(number)
        if node is None or node.lookups <= lookups:
            self._content.descriptors.forget(number)
        self._service.forget_node(number, lookups)

    def _mknod(self, unique: int, parent: int, body: memoryview, uid: int, gid: int) -> bytes:
        mode, device, umask = messages.MKNOD_IN.unpack_from(body)
        name, caller = _name(body, messages.MKNOD_IN.size), Caller(uid, gid, umask)
        node = self._nodes[parent]
        if stat.S_ISREG(mode) and self._files.granted.noopen:  # a file that will be written to
            return self._entry(unique, *self._content.create(node, name, mode, caller))
        return self._entry(unique, *self._changes.mknod(node, name, mode, device, caller))

    def _mkdir(self, unique: int, parent: int, body: memoryview, uid: int, gid: int) -> bytes:
        mode, umask = messages.MKDIR_IN.unpack_from(body)
        name = _name(body, messages.MKDIR_IN.size)
        made = self._changes.mkdir(self._nodes[parent], name, mode, Caller(uid, gid, umask))
        return self._entry(unique, *made)

    def _symlink(self, unique: int, parent: int, body: memoryview, uid: int, gid: int) -> bytes:
        name, target = _names(body)
        made = self._changes.symlink(self._nodes[parent], name, target, Caller(uid, gid, 0))
        return self._entry(unique, *made)

    def _rmdir(self, unique: int, parent: int, body: memoryview, _uid: int, _gid: int) -> bytes:
        self._changes.rmdir(self._nodes[parent], _name(body))
        return messages.empty(unique)

    def _readlink(self, unique: int, node: int, _body: memoryview, _uid: int, _gid: int) -> bytes:
        return messages.data(unique, self._union.readlink(self._nodes[node]))

    # Attributes

    def _attr(self, unique: int, node: Node, st: os.stat_result) -> bytes:
        return messages.attributes(unique, node.ino, st, *self._shown(node, st))

    def _getattr(self, unique: int, ino: int, _body: memoryview, _uid: int, _gid: int) -> bytes:
        node = self._nodes[ino]
        st = self._foresight.attributes(node)
        return messages.attributes(unique, ino, st, *self._shown(node, st))

    def _setattr(
        self, unique: int, ino: int, body: memoryview, uid: int, gid: int
    ) -> bytes | Waiting:
        valid, fh, size, atime, mtime, atime_ns, mtime_ns, mode, owner, group = (
            messages.SETATTR_IN.unpack_from(body)
        )
        new = NewAttributes(
            mode if valid & messages.FATTR_MODE else None,
            owner if valid & messages.FATTR_UID else -1,
            group if valid & messages.FATTR_GID else -1,
            size if valid & messages.FATTR_SIZE else None,
            atime * 10**9 + atime_ns if valid & messages.FATTR_ATIME else None,
            mtime * 10**9 + mtime_ns if valid & messages.FATTR_MTIME else None,
        )
        node = self._nodes[ino]
        requester = self._service.session.requester(unique, uid, gid)
        plain = node.upper and not node.protection and not (node.below and self._union.far)
        if plain and not valid & messages.FATTR_SIZE and new != NOTHING:
            # the request made most often: nothing to decide
            self._files.changed(node)
            return self._attr(unique, node, self._attributes.change(node, new, -1, requester))
        touches = valid & messages.FATTR_TIMES_NOW == messages.FATTR_TIMES_NOW
        if not self._files.consent.permit(node, new, requester, touches=touches):
            return self._attr(unique, node, self._union.attributes(node))
        handle = fh if valid & messages.FATTR_FH and fh else -1  # no handle is 0
        if self._keeps_all(valid):
            requester = ROOT
        changes = self._files.attribute_changes
        if not changes.waits(node, new):
            return self._attr(unique, node, changes.change(node, new, handle, requester))

        async def job() -> bytes:
            sized = await changes.prepare(node, new, requester)
            st = changes.change(node, new, handle, requester, sized=sized)
            return self._attr(unique, node, st)

        return at_once(job()) if changes.prepares_at_once(node, new) else Waiting(job)

    def _keeps_all(self, valid: int) -> bool:
        """Tell whether a file is cut without losing privileges: fs/fuse/dir.c, fuse_do_setattr."""
        cut = valid & (messages.FATTR_SIZE | messages.FATTR_KILL_SUIDGID)
        return self._files.told and cut == messages.FATTR_SIZE

    def _getxattr(self, unique: int, node: int, body: memoryview, _uid: int, _gid: int) -> bytes:
        (room,) = messages.GETXATTR_IN.unpack_from(body)
        name = _name(body, messages.GETXATTR_IN.size)
        if name == CAPABILITY and self._files.has_no_attributes(node):
            return messages.error(unique, errno.ENODATA)  # the kernel asks before the first write
        return _sized(unique, self._service.attribute(self._nodes[node], name), room)

    def _listxattr(self, unique: int, node: int, body: memoryview, uid: int, _gid: int) -> bytes:
        (room,) = messages.GETXATTR_IN.unpack_from(body)
        names = self._attributes.names_for(self._nodes[node], uid)
        return _sized(unique, b"".join(name + b"\0" for name in names), room)

    def _setxattr(
        self, unique: int, number: int, body: memoryview, uid: int, gid: int
    ) -> bytes | Waiting:
        size, flags = messages.SETXATTR_IN.unpack_from(body)
        start = len(body) - size
        name, value = _name(body[:start], messages.SETXATTR_IN.size), bytes(body[start:])
        requester, node = self._service.session.requester(unique, uid, gid), self._nodes[number]
        self._files.changed(node)
        if self._union.leaves_content(node) and name not in OwnAttributes.names:
            self._files.sets_attribute()
            self._attributes.set(node, name, value, flags, requester)
            return messages.empty(unique)

        async def job() -> bytes:
            await self._service.set_attribute(node, name, value, flags, requester)
            return messages.empty(unique)

        return Waiting(job)

    def _removexattr(self, unique: int, number: int, body: memoryview, uid: int, gid: int) -> bytes:
        requester = self._service.session.requester(unique, uid, gid)
        self._files.consent.remove_attribute(self._nodes[number], _name(body), requester)
        return messages.empty(unique)

    def _statfs(self, unique: int, node: int, _body: memoryview, _uid: int, _gid: int) -> bytes:
        return messages.room(unique, self._union.statvfs(self._nodes[node]))


def _sized(unique: int, value: bytes, room: int) -> bytes:
    """Answer with an attribute's value, or with its size where no *room* is given: getxattr(2)."""
    if not room:
        return messages.count(unique, len(value))
    if len(value) > room:
        raise OSError(errno.ERANGE, os.strerror(errno.ERANGE))
    return messages.data(unique, value)
