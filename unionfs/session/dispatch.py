"""Requests answered without libfuse: most of them, in a third of the time.

Between a request and its handler, libfuse and pyfuse3 make a coroutine, a
context, and objects of attributes that are set field by field: 10 us and more,
which is most of what a look-up costs.  So the requests are read from the device
here.  Those for which there is a `Handler` are answered at once; the others,
and those that a handler declines because they have to wait for a thread, are
handed to libfuse as if it had read them itself (`Device.route`).

A handler is told the request's number and node, its body, which is valid
during the call only, and who makes it.  It returns the whole reply
(`messages`), `NO_REPLY`, or None to decline, before it has changed anything.
"""

import enum
import errno
import os
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Final, Protocol

from unionfs.session import messages
from unionfs.session.device import Device
from unionfs.session.protocol import IN_HEADER

# Its arguments: unique, node, body, uid, gid.
Handler = Callable[[int, int, memoryview, int, int], "bytes | bytearray | memoryview | None"]
NO_REPLY: Final = b""

# More than the kernel asks for: the head of a WRITE and its data, FUSE_MIN_READ_BUFFER at least.
_HEAD_BYTES = 8192
# read(2): nothing waits; interrupted; the request was aborted meanwhile.
_NOTHING, _AGAIN = errno.EAGAIN, frozenset({errno.EINTR, errno.ENOENT})
_HEADER = IN_HEADER.size


class Handlers(Protocol):
    """What a filesystem answers without libfuse."""

    table: Mapping[int, Handler]  # by opcode

    def explain(self, error: Exception, opcode: int, node: int) -> int:
        """Tell of an error where that is called for, and return its number."""


class Turn(enum.Enum):
    """How it went."""

    IDLE = enum.auto()  # no request waits
    DUE = enum.auto()  # the time is over, and requests may wait
    ROUTED = enum.auto()  # libfuse has one to read


class Dispatcher:
    """Takes the requests of one mount from the kernel."""

    def __init__(self, device: Device, handlers: Handlers, max_write: int) -> None:
        self._device = device
        self._handlers = dict(handlers.table)
        self._explain = handlers.explain
        self._buffer = memoryview(bytearray(_HEAD_BYTES + max_write))
        os.set_blocking(device.device, False)

    def serve(self, until: float) -> Turn:
        """Answer what waits, up to the time *until* of `perf_counter`."""
        fd, buffer, handlers = self._device.device, self._buffer, self._handlers
        room = [buffer]
        while perf_counter() < until:
            try:
                size = os.readv(fd, room)
            except OSError as exc:
                if exc.errno == _NOTHING:
                    return Turn.IDLE
                if exc.errno in _AGAIN:
                    continue
                return Turn.ROUTED  # unmounted: libfuse reads it from the device itself, and ends
            _, opcode, unique, node, uid, gid, _, _, _ = IN_HEADER.unpack_from(buffer)
            handler = handlers.get(opcode)
            reply = None
            if handler is not None:
                try:
                    reply = handler(unique, node, buffer[_HEADER:size], uid, gid)
                except Exception as exc:  # noqa: BLE001 - told, and answered
                    reply = messages.error(unique, self._explain(exc, opcode, node))
            if reply is None:
                if self._device.route(buffer[:size]):
                    return Turn.ROUTED
                reply = messages.error(unique, errno.EIO)
            if reply:
                self._device.send(reply)
        return Turn.DUE
