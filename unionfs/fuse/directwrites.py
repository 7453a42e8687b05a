"""Requests that write to files, answered directly; see `directfiles`.

Where a file was opened without a descriptor (`noopen`), its first write brings its content
to upper.  What may wait for a disk is done by a thread.
"""

import errno
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from unionfs.changes import protection
from unionfs.changes.parts import frees
from unionfs.fuse.directpartials import DirectPartials
from unionfs.fuse.service import Service
from unionfs.fuse.session import messages
from unionfs.fuse.session.crew import Later, Waiting, at_once
from unionfs.fuse.session.dispatch import Handler, Reply
from unionfs.fuse.session.fullness import with_room
from unionfs.host.credentials import Requester
from unionfs.layers.iflags import IMMUTABLE, PROTECTING
from unionfs.layers.layer import WritableLayer
from unionfs.view.node import Node

if TYPE_CHECKING:
    from collections.abc import Mapping

_KEEP_SIZE = 1  # FALLOC_FL_KEEP_SIZE, include/uapi/linux/falloc.h

# Bytes that one copy_file_range(2) copies at most; the reply has 32 bits for their number.
_MOST_COPIED = 1 << 30
_MOST_AT_ONCE = 16 << 20  # where everybody waits for it: some 5 ms


class _Target(NamedTuple):
    """A file to be written to."""

    node: Node
    fd: int
    requester: Requester | None  # None where it was asked before (`Files.permit`)


class DirectWrites:
    """The direct handlers of one mount that change the content of files."""

    def __init__(self, service: Service, partial: DirectPartials) -> None:
        self._session = service.session
        self._union = service.union
        self._nodes = service.union.nodes
        self._files = service.files
        self._descriptors = service.descriptors
        self._partial = partial
        self.table: Mapping[int, Handler] = {
            messages.WRITE: self._write,
            messages.FALLOCATE: self._fallocate,
            messages.COPY_FILE_RANGE: self._copy_file_range,
        }

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

            node = self._nodes[number]
            opened = self._opened(handle, node)
            return self._partial.write(unique, node, opened, data, offset, plain)
        node, kills = self._nodes[number], how & messages.WRITE_KILL_SUIDGID
        requester = self._session.requester(unique, uid, gid) if kills else None
        self._files.permit_open(node, os.O_WRONLY | flags)
        if self._union.has_lower_content(node) and not self._files.partials.suits(node):
            data = memoryview(bytes(data))  # the request's is valid during this call only

        def write(data: memoryview = data) -> bytes:
            fd = self._descriptors.to_write(node)
            layer = self._files.ready_to_write(node, fd, requester)
            return messages.count(unique, layer.write(fd, data, offset, flags))

        def write_any() -> bytes | Waiting:
            if not node.partial:
                return write()
            fd = self._descriptors.to_write(node)
            self._files.ready_to_write(node, fd, requester)
            opened = self._opened(handle, node)
            return self._partial.write(unique, node, opened, data, offset, write)

        return self._on_upper(node, write_any)

    def _opened(self, handle: int, node: Node) -> Callable[[], int]:
        """Return what tells by which descriptor to write; without a handle none stays for long."""
        return lambda: handle or self._descriptors.to_write(node)

    def _fallocate(
        self, unique: int, number: int, body: memoryview, uid: int, gid: int
    ) -> Reply | Waiting:
        handle, offset, length, mode = messages.FALLOCATE_IN.unpack_from(body)

        def allocate(target: _Target) -> Reply | Waiting:
            layer = self._files.ready_to_write(*target)
            opened = self._opened(handle, target.node)

            def job(fd: int) -> bytes:
                with_room(lambda: layer.allocate(fd, mode, offset, length))
                return messages.empty(unique)

            def plain() -> Reply:
                return self._written_by(job, opened())

            if not target.node.partial:
                return plain()
            if frees(mode):
                return self._partial.free(unique, target.node, opened, mode, offset, length, plain)
            return self._partial.reserve(target.node, offset, length, plain)

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
            source = source_handle or self._descriptors.to_read(self._nodes[number])

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
        return job(*fds) if self._union.two_sided else by_thread(job, *fds)

    def _on_target(
        self,
        handle: int,
        number: int,
        requester: Requester,
        reply: Callable[[_Target], Reply | Waiting],
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
            node, lambda: reply(_Target(node, self._descriptors.to_write(node), requester))
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


def by_thread(job: Callable[..., bytes], *fds: int) -> Later:
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
