"""Requests for the content of partial copies, answered directly: see `directfiles`."""

from collections.abc import Callable

from unionfs.fuse.partial_content import Cold
from unionfs.fuse.reading import LARGE
from unionfs.fuse.service import Service
from unionfs.fuse.session import messages
from unionfs.fuse.session.crew import Later, Waiting
from unionfs.fuse.session.dispatch import NO_REPLY, Reply
from unionfs.layers.blockmap import Run
from unionfs.view.node import Node
from unionfs.view.partials import Partial


class DirectPartials:
    """The direct handlers of one mount for partial copies; each takes the node of one."""

    def __init__(self, service: Service) -> None:
        self._session = service.session
        self._union = service.union
        self._content = service.files.partial_content
        self._copies = service.files.partials
        self._brings = service.files.copies
        self._reply = memoryview(b"")  # of reads; it grows with the largest

    def read(self, unique: int, node: Node, offset: int, size: int) -> memoryview | bytes | Later:
        """Answer a READ."""
        partial = self._union.upper.partials.of(node)
        runs = [*partial.runs(offset, offset + size)]
        if not runs:
            return messages.data(unique, b"")
        reply = self._at_once(unique, partial, runs)
        if reply is not None:
            return reply
        read = self._content.reader(partial, runs)
        return Later(lambda: messages.data(unique, read()))

    def _at_once(self, unique: int, partial: Partial, runs: list[Run]) -> memoryview | bytes | None:
        size = runs[-1].end - runs[0].start
        if size >= LARGE:
            pieces = self._content.pieces(partial, runs)
            if pieces and self._session.send_pieces(unique, pieces):
                return NO_REPLY
        head, reply = messages.HEADER_BYTES, self._reply
        if len(reply) < head + size:
            reply = self._reply = memoryview(bytearray(head + size))
        count = self._content.read_at_once(partial, runs, reply[head : head + size])
        if count is None:
            return None
        messages.put_header(reply, unique, head + count)
        return reply[: head + count]

    def seek(self, unique: int, node: Node, offset: int, whence: int) -> bytes:
        """Answer an LSEEK."""
        return messages.sought(unique, self._content.seek(node, offset, whence))

    def write(  # noqa: PLR0913, PLR0917 - pwrite(2)'s, and two ways to do it
        self,
        unique: int,
        node: Node,
        opened: Callable[[], int],
        data: memoryview,
        offset: int,
        plain: Callable[[memoryview], bytes],
    ) -> bytes | Waiting:
        """Answer a WRITE to what is *opened*; *plain* does where it has become whole meanwhile."""
        try:
            return messages.count(unique, self._content.write_at_once(node, opened(), data, offset))
        except Cold:
            own = memoryview(bytes(data))  # the request's is valid during this call only
        return self._when_warm(
            node,
            offset,
            len(own),
            lambda: messages.count(unique, self._copies.write(node, opened(), own, offset)),
            lambda: plain(own),
        )

    def free(  # noqa: PLR0913, PLR0917 - fallocate(2)'s
        self,
        unique: int,
        node: Node,
        opened: Callable[[], int],
        mode: int,
        offset: int,
        length: int,
        plain: Callable[[], Reply],
    ) -> Reply | Waiting:
        """Answer a FALLOCATE that turns content into zeros; *plain* as above."""
        if self._copies.lasts:  # a hole says that a block was lost
            return self._when_whole(node, plain)

        def free() -> bytes:
            self._copies.free(node, opened(), mode, offset, length)
            return messages.empty(unique)

        try:
            self._content.free_at_once(node, opened(), mode, offset, length)
        except Cold:
            return self._when_warm(node, offset, length, free, plain)
        return messages.empty(unique)

    def reserve(
        self, node: Node, offset: int, length: int, act: Callable[[], Reply]
    ) -> Reply | Waiting:
        """Answer a FALLOCATE that changes no content, when all of its blocks are the copy's."""
        end = offset + length
        if self._copies.part(node, offset, end) is None:
            self._copies.record(node)
            return act()
        caller = self._union.acting.now

        async def job() -> Reply:
            await self._brings.bring_part(node, offset, end)
            if node.partial:
                self._copies.record(node)
            self._union.acting.write_as(*caller[:2])
            return act()

        return Waiting(job)

    def _when_whole(self, node: Node, act: Callable[[], Reply]) -> Waiting:
        async def job() -> Reply:
            await self._brings.bring(node)
            return act()

        return Waiting(job)

    def _when_warm(
        self,
        node: Node,
        offset: int,
        length: int,
        act: Callable[[], Reply],
        otherwise: Callable[[], Reply],
    ) -> Waiting:
        return Waiting(
            lambda: self._content.when_warm(node, offset, offset + length, act, otherwise)
        )
