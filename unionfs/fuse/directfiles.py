"""Requests for the content of files, answered directly; see `direct`.

The kernel names a file by the handle that its open was answered with.  Where
nothing was opened (`Files.open_unopened`, `noopen`) it is `UNOPENED`, and the
node says which file it is.  What a thread has to read from a cold disk, it
answers itself.
"""

import errno
import os
import stat
from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

from unionfs.changes import protection
from unionfs.changes.changes import Caller
from unionfs.changes.partial_copies import frees
from unionfs.fuse.directpartials import DirectPartials
from unionfs.fuse.files import UNOPENED, Opened, host_flags
from unionfs.fuse.operations import Operations
from unionfs.fuse.session import messages
from unionfs.fuse.session.crew import Later, Soon, Waiting, at_once
from unionfs.fuse.session.dispatch import NO_REPLY, Handler, Reply
from unionfs.fuse.session.fullness import with_room
from unionfs.fuse.session.protocol import FOPEN_KEEP_CACHE, FOPEN_PASSTHROUGH
from unionfs.host.credentials import ROOT, Requester
from unionfs.layers.iflags import IMMUTABLE, PROTECTING
from unionfs.layers.layer import WritableLayer
from unionfs.view.node import Node

if TYPE_CHECKING:
    from collections.abc import Mapping

# Of the reply to a read, at first; it grows with the largest.
_READ_BYTES = 64 << 10

_KEEP_SIZE = 1  # FALLOC_FL_KEEP_SIZE, include/uapi/linux/falloc.h

# Bytes that one copy_file_range(2) copies at most; the reply has 32 bits for their number.
_MOST_COPIED = 1 << 30
_MOST_AT_ONCE = 16 << 20  # where everybody waits for it: some 5 ms


def _open_flags(opened: Opened) -> int:
    keep = FOPEN_KEEP_CACHE if opened.keep_cache else 0
    return keep | FOPEN_PASSTHROUGH if opened.backing else keep


def _opened(unique: int, opened: Opened) -> bytes:
    return messages.opened(unique, opened.fd, _open_flags(opened), opened.backing)


class DirectFiles:
    """The direct handlers of one mount that concern the content of files."""

    def __init__(self, operations: Operations) -> None:
        self.descriptors = operations.descriptors
        self._session = operations.session
        self._union = operations.union
        self._nodes = operations.union.nodes
        self._files = operations.files
        self._changes = operations.changes
        self._durability = operations.durability
        self._partial = DirectPartials(operations)
        self._reply = memoryview(bytearray(_READ_BYTES))
        self.table: Mapping[int, Handler] = {
            messages.OPEN: self._open,
            messages.CREATE: self._create,
            messages.TMPFILE: self._tmpfile,
            messages.READ: self._read,
            messages.WRITE: self._write,
            messages.FSYNC: self._fsync,
            messages.RELEASE: self._release,
            messages.FALLOCATE: self._fallocate,
            messages.LSEEK: self._lseek,
            messages.COPY_FILE_RANGE: self._copy_file_range,
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
            self._union.acting.write_as(uid, gid)
            if self._files.waits_to_open(node, flags):
                return self._open_later(unique, node, flags, requester)
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
            return _later(lambda own: messages.data(unique, os.pread(own, size, offset)), fd)

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
        # SEEK_DATA and SEEK_HOLE alone; nobody else cares for the position of the descriptor.
        return messages.sought(unique, os.lseek(fd, offset, whence))

    # Writing

    def _write(
        self, unique: int, number: int, body: memoryview, uid: int, gid: int
    ) -> Reply | Waiting:
        handle, offset, size, how, flags = messages.WRITE_IN.unpack_from(body)
        start = messages.WRITE_IN.size
        data = body[start : start + size]
        self._union.acting.write_as(uid, gid)
        if handle:
            if not self._nodes.has_partials or not self._nodes[number].partial:
                return messages.count(unique, self._files.write(handle, offset, data))

            def plain(data: memoryview) -> bytes:
                return messages.count(unique, self._files.write(handle, offset, data))

            return self._partial.write(unique, self._nodes[number], data, offset, plain)
        node, kills = self._nodes[number], how & messages.WRITE_KILL_SUIDGID
        requester = self._session.requester(unique, uid, gid) if kills else None
        self._files.permit_open(node, os.O_WRONLY | flags)
        if self._union.has_lower_content(node) and not self._files.partials.suits(node):
            data = memoryview(bytes(data))  # the request's is valid during this call only

        def write(data: memoryview = data) -> bytes:
            fd = self.descriptors.to_write(node)
            layer = self._files.ready_to_write(node, fd, requester)
            return messages.count(unique, layer.write(fd, data, offset, flags))

        def write_any() -> bytes | Waiting:
            if not node.partial:
                return write()
            self._files.ready_to_write(node, self._partial.target(node), requester)
            return self._partial.write(unique, node, data, offset, write)

        return self._on_upper(node, write_any)

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

    def _fallocate(
        self, unique: int, number: int, body: memoryview, uid: int, gid: int
    ) -> Reply | Waiting:
        handle, offset, length, mode = messages.FALLOCATE_IN.unpack_from(body)

        def allocate(target: _Target) -> Reply | Waiting:
            layer = self._files.ready_to_write(*target)

            def job(fd: int) -> bytes:
                with_room(lambda: layer.allocate(fd, mode, offset, length))
                return messages.empty(unique)

            def plain() -> Reply:
                return self._written_by(job, target.fd)

            if not target.node.partial:
                return plain()
            if frees(mode):
                return self._partial.free(unique, target.node, mode, offset, length, plain)
            self._files.partials.record(target.node)
            return plain()

        barred = PROTECTING if mode & ~_KEEP_SIZE else IMMUTABLE
        requester = self._session.requester(unique, uid, gid)
        return self._on_target(handle, number, requester, allocate, barred)

    def _copy_file_range(
        self, unique: int, number: int, body: memoryview, uid: int, gid: int
    ) -> Reply | Waiting:
        source_handle, start, target_number, handle, offset, length, _ = (
            messages.COPY_FILE_RANGE_IN.unpack_from(body)
        )
        if self._nodes.has_partials and self._are_partial(number, target_number):
            return messages.error(unique, errno.EXDEV)
        far = not source_handle and self._union.far
        if far and self._union.far_content(self._nodes[number]) is not None:
            return messages.error(unique, errno.EXDEV)  # the kernel reads and writes then

        def copy(target: _Target) -> Reply | Waiting:
            if target.node.partial:
                return messages.error(unique, errno.EXDEV)
            layer = self._files.ready_to_write(*target)
            source = source_handle or self._source(number)

            few = self._files.copies_soon(source, start, length)
            if few is not None:
                return messages.count(
                    unique, _copy_few(layer, source, start, target.fd, offset, few)
                )

            def job(source: int, fd: int) -> bytes:
                most = min(length, _MOST_AT_ONCE if self._union.two_sided else _MOST_COPIED)
                copied = with_room(lambda: layer.copy_range(source, start, fd, offset, most))
                return messages.count(unique, copied)

            return self._written_by(job, source, target.fd)

        requester = self._session.requester(unique, uid, gid)
        return self._on_target(handle, target_number, requester, copy, IMMUTABLE)

    def _written_by(self, job: Callable[..., bytes], *fds: int) -> Reply:
        """Have a thread write, unless the file may move meanwhile (`crossings`)."""
        return job(*fds) if self._union.two_sided else _later(job, *fds)

    def _on_target(
        self,
        handle: int,
        number: int,
        requester: Requester,
        reply: Callable[["_Target"], Reply | Waiting],
        barred: int,
    ) -> Reply | Waiting:
        """Make a reply that writes to a file, which `noopen` has not copied up yet.

        EPERM where the file has come to have one of the flags *barred* since it was opened.
        """
        self._union.acting.write_as(requester.uid, requester.gid)
        if handle:
            file = self._files.opened(handle)
            protection.require(self._union, file.node, barred)
            return reply(_Target(file.node, handle, None))
        protection.require(self._union, self._nodes[number], barred)
        node = self._nodes[number]
        return self._on_upper(
            node, lambda: reply(_Target(node, self.descriptors.to_write(node), requester))
        )

    def _are_partial(self, *numbers: int) -> bool:
        return any(self._nodes[number].partial for number in numbers)

    def _on_upper(self, node: Node, reply: Callable[[], Reply | Waiting]) -> Reply | Waiting:
        """Make the reply when the content of *node* is on upper, or may come there by blocks."""
        if not self._union.has_lower_content(node) or self._files.partials.suits(node):
            self._files.begin_partial(node)
            return reply()

        async def job() -> Reply | Waiting:
            await self._files.copies.bring(node)
            return reply()

        return at_once(job()) if self._files.copies.brings_at_once(node) else Waiting(job)


def _copy_few(  # noqa: PLR0913, PLR0917 - copy_file_range(2)'s
    layer: WritableLayer, source: int, start: int, fd: int, offset: int, length: int
) -> int:
    """Copy at once, also between file systems: the kernel would send a READ and a WRITE."""
    if not length:
        return 0
    try:
        return layer.copy_range(source, start, fd, offset, length)
    except OSError as exc:
        if exc.errno != errno.EXDEV:
            raise
        return layer.copy_bytes(source, start, fd, offset, length)


class _Target(NamedTuple):
    """A file to be written to."""

    node: Node
    fd: int
    requester: Requester | None  # None where it was asked before (`Files.permit`)


def _later(job: Callable[..., bytes], *fds: int) -> Later:
    """Have a thread do *job* with descriptors of its own: others may be closed, or moved to upper.

    They are closed afterwards.
    """
    own = [os.dup(fd) for fd in fds]

    def run() -> bytes:
        try:
            return job(*own)
        finally:
            for fd in own:
                os.close(fd)

    return Later(run)
