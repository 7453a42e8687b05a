"""Requests for the content of files, answered directly; see `direct`.

The kernel names a file by the handle that its open was answered with.  Where
nothing was opened (`Files.open_unopened`, `noopen`) the handle is `UNOPENED`, and the
node says which file it is.  A thread that reads from a cold disk sends the reply
itself.  Requests that write are in `directwrites`.
"""

import errno
import os
import stat
from time import perf_counter
from typing import TYPE_CHECKING

from unionfs.changes.changes import Caller
from unionfs.fuse.directpartials import DirectPartials
from unionfs.fuse.directwrites import DirectWrites, by_thread
from unionfs.fuse.files import UNOPENED, Opened, host_flags
from unionfs.fuse.service import Service
from unionfs.fuse.session import messages
from unionfs.fuse.session.crew import Later, Soon, Waiting, at_once
from unionfs.fuse.session.dispatch import NO_REPLY, Handler
from unionfs.fuse.session.protocol import FOPEN_KEEP_CACHE, FOPEN_PASSTHROUGH
from unionfs.host.credentials import ROOT, Requester
from unionfs.view.node import Node

if TYPE_CHECKING:
    from collections.abc import Mapping

# Bytes of the buffer for replies to reads, at first; it grows with the largest.
_READ_BYTES = 64 << 10


def _open_flags(opened: Opened) -> int:
    keep = FOPEN_KEEP_CACHE if opened.keep_cache else 0
    return keep | FOPEN_PASSTHROUGH if opened.backing else keep


def _opened(unique: int, opened: Opened) -> bytes:
    return messages.opened(unique, opened.fd, _open_flags(opened), opened.backing)


class DirectFiles:
    """The direct handlers of one mount for the content of files."""

    def __init__(self, service: Service) -> None:
        self.descriptors = service.descriptors
        self._session = service.session
        self._union = service.union
        self._nodes = service.union.nodes
        self._files = service.files
        self._changes = service.changes
        self._durability = service.durability
        self._partial = DirectPartials(service)
        self._reply = memoryview(bytearray(_READ_BYTES))
        self.table: Mapping[int, Handler] = {
            messages.OPEN: self._open,
            messages.CREATE: self._create,
            messages.TMPFILE: self._tmpfile,
            messages.READ: self._read,
            messages.FSYNC: self._fsync,
            messages.RELEASE: self._release,
            messages.LSEEK: self._lseek,
            **DirectWrites(service, self._partial).table,
        }

    # Opening

    def _open(self, unique: int, ino: int, body: memoryview, uid: int, gid: int) -> bytes | Waiting:
        if self._files.granted.noopen:
            return messages.error(unique, errno.ENOSYS)  # so the kernel asks no more
        flags, how = messages.OPEN_IN.unpack_from(body)
        node = self._nodes[ino]
        reads = flags & (os.O_ACCMODE | os.O_TRUNC) == os.O_RDONLY
        opened = self._files.open_unopened(node) if reads else None
        if opened is not None:
            return _opened(unique, opened)
        keeps = self._files.told and not how & messages.OPEN_KILL_SUIDGID
        requester = ROOT if keeps else self._session.requester(unique, uid, gid)
        if not reads:
            self._files.permit_open(node, flags)
            if self._files.waits_to_open(node, flags):  # who makes a copy is root: `acting`
                return self._open_later(unique, node, flags, requester)
            self._union.acting.write_as(uid, gid)
        return _opened(unique, self._files.open_at_once(node, flags, requester))

    def _open_later(
        self, unique: int, node: Node, flags: int, requester: Requester
    ) -> bytes | Waiting:
        async def job() -> bytes:
            return _opened(unique, await self._files.open_when_ready(node, flags, requester))

        size = 0 if flags & os.O_TRUNC else None
        return at_once(job()) if self._files.copies.brings_at_once(node, size) else Waiting(job)

    def _create(self, unique: int, parent: int, body: memoryview, uid: int, gid: int) -> bytes:
        if self._files.granted.noopen:
            return messages.error(unique, errno.ENOSYS)  # a MKNOD follows, now and ever after
        flags, mode, umask = messages.CREATE_IN.unpack_from(body)
        node, st, fd = self._changes.create(
            self._nodes[parent],
            bytes(body[messages.CREATE_IN.size : -1]),
            host_flags(flags),
            mode,
            Caller(uid, gid, umask),
        )
        node.lookups += 1
        opened = self._files.created(node, fd, mode, flags)
        return messages.created(unique, node.ino, st, fd, _open_flags(opened), opened.backing)

    def _tmpfile(self, unique: int, parent: int, body: memoryview, uid: int, gid: int) -> bytes:
        flags, mode, umask = messages.CREATE_IN.unpack_from(body)
        node, st, fd = self._changes.create_unnamed(
            self._nodes[parent], host_flags(flags), mode, Caller(uid, gid, umask)
        )
        node.lookups += 1
        if self._files.granted.noopen:
            self.descriptors.add(node.ino, fd)
            return messages.created(unique, node.ino, st, UNOPENED, 0, 0)
        opened = self._files.created(node, fd, mode, flags)
        return messages.created(unique, node.ino, st, fd, _open_flags(opened), opened.backing)

    def create(
        self, parent: Node, name: bytes, mode: int, caller: Caller
    ) -> tuple[Node, os.stat_result]:
        """Create a regular file that will be written to without being opened."""
        flags = host_flags(os.O_RDWR)
        node, st, fd = self._changes.create(parent, name, flags, stat.S_IMODE(mode), caller)
        self.descriptors.add(node.ino, fd)
        self._files.made(node)
        return node, st

    def _release(self, unique: int, number: int, body: memoryview, _uid: int, _gid: int) -> bytes:
        (handle,) = messages.HANDLE.unpack_from(body)
        if handle == UNOPENED:
            self._files.release_unopened(self._nodes[number])
        else:
            self._files.release(handle)
        return messages.empty(unique)

    # Reading

    def _source(self, number: int) -> int:
        return self.descriptors.to_read(self._nodes[number])

    def _read(
        self, unique: int, number: int, body: memoryview, _uid: int, _gid: int
    ) -> memoryview | bytes | Soon | Later:
        handle, offset, size = messages.READ_IN.unpack_from(body)
        if self._nodes.has_partials and self._nodes[number].partial:
            return self._partial.read(unique, self._nodes[number], offset, size)
        if not handle and self._union.far:
            far = self._union.far_content(self._nodes[number])
            if far is not None:
                return messages.data(unique, far[0].read(far[1], size, offset))
        reading, fd = self._files.reading, handle or self._source(number)
        reply = self._read_at_once(unique, fd, size, offset)
        if reply is not None:
            return reply

        def attempt() -> memoryview | bytes | None:
            return self._read_at_once(unique, handle or self._source(number), size, offset)

        began = perf_counter()

        def later() -> Later:
            reading.took(perf_counter() - began)
            fd = handle or self._source(number)
            return by_thread(lambda own: messages.data(unique, os.pread(own, size, offset)), fd)

        return Soon(attempt, later) if reading.fetch(fd, size, offset) else later()

    def _read_at_once(
        self, unique: int, fd: int, size: int, offset: int
    ) -> memoryview | bytes | None:
        """Return the reply to a read, or None where it would wait for a disk."""
        cached = self._files.reading.cached(fd, size, offset)
        if cached and self._session.send_pieces(unique, ((fd, offset, cached),)):
            return NO_REPLY
        head, reply = messages.HEADER_BYTES, self._reply
        if len(reply) < head + size:
            reply = self._reply = memoryview(bytearray(head + size))
        count = self._files.reading.at_once(fd, reply[head : head + size], offset)
        if count is None:
            return None
        messages.put_header(reply, unique, head + count)
        return reply[: head + count]

    def _lseek(self, unique: int, number: int, body: memoryview, _uid: int, _gid: int) -> bytes:
        handle, offset, whence = messages.LSEEK_IN.unpack_from(body)
        if self._nodes.has_partials and self._nodes[number].partial:
            return self._partial.seek(unique, self._nodes[number], offset, whence)
        if not handle and self._union.far:
            far = self._union.far_content(self._nodes[number])
            if far is not None:
                return messages.sought(unique, far[0].seek(far[1], offset, whence))
        fd = handle or self._source(number)
        # SEEK_DATA and SEEK_HOLE alone; nobody uses the position of the descriptor.
        return messages.sought(unique, os.lseek(fd, offset, whence))

    # Syncing

    def _fsync(self, unique: int, number: int, body: memoryview, _uid: int, _gid: int) -> Waiting:
        handle, how = messages.FSYNC_IN.unpack_from(body)
        node, datasync = self._nodes[number], bool(how & messages.FSYNC_FDATASYNC)

        async def job() -> bytes:
            fd = handle or self._to_sync(node)
            await self._durability.sync_file(node, fd, datasync=datasync)
            return messages.empty(unique)

        return Waiting(job)

    def _to_sync(self, node: Node) -> int:
        """Return a descriptor of a file's content, if that is in upper; else -1."""
        if self._union.has_lower_content(node) or not node.upper:
            return -1
        return self.descriptors.to_read(node)
