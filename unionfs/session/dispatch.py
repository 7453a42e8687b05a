"""Requests answered without libfuse: most of them, in a third of the time.

Between a request and its handler, libfuse and pyfuse3 make a coroutine, a
context, and objects of attributes that are set field by field: 10 us and more,
which is most of what a look-up costs.  So the requests are read from the device
here.  Those for which there is a `Handler` are answered at once; the others,
and those that a handler declines because they have to wait for a thread, are
handed to libfuse as if it had read them itself (`Device.route`).

A handler is told the request's number and node, its body, which is valid
during the call only, and who makes it.  It returns the whole reply
(`messages`), which is sent before anything else happens, `Later` for a thread
to make it, `Waiting` for a task, `NO_REPLY`, or None to decline, before it has
changed anything.
"""

import contextlib
import errno
import os
import select
import struct
from collections.abc import Callable, Mapping
from functools import partial
from time import perf_counter
from typing import Final, Protocol

import trio

from unionfs.session import messages
from unionfs.session.crew import Crew, Later, Waiting
from unionfs.session.device import Device
from unionfs.session.protocol import IN_HEADER

# Its arguments: unique, node, body, uid, gid.
Reply = bytes | memoryview | Later
Handler = Callable[[int, int, memoryview, int, int], "Reply | Waiting | None"]
NO_REPLY: Final = b""

# More than the kernel asks for: the head of a WRITE and its data, FUSE_MIN_READ_BUFFER at least.
_HEAD_BYTES = 8192
# read(2): nothing waits; the request was aborted meanwhile.
_NOTHING_READ = frozenset({errno.EAGAIN, errno.ENOENT})
_HEAD = struct.Struct("=4xIQQII")  # opcode unique nodeid uid gid: the beginning of IN_HEADER
_BODY = IN_HEADER.size


def _ignore(_unique: int, _node: int, _body: memoryview, _uid: int, _gid: int) -> bytes:
    """Let an interrupted request come to its end, as the kernel allows: fuse.rst, "Interrupting".

    libfuse would look for the request among its own, and when it is not there, answer with EAGAIN
    beside the reply to the next one that it gets, where `Device` expects one reply alone.
    """
    return NO_REPLY


class Handlers(Protocol):
    """What a filesystem answers without libfuse."""

    table: Mapping[int, Handler]  # by opcode

    def explain(self, error: Exception, opcode: int, node: int) -> int:
        """Tell of an error where that is called for, and return its number."""


class Dispatcher:
    """Takes the requests of one mount from the kernel."""

    def __init__(self, device: Device, handlers: Handlers, max_write: int) -> None:
        self._device = device
        self._handlers = {messages.INTERRUPT: _ignore, **handlers.table}
        self._explain = handlers.explain
        self._crew = Crew(device.send)
        self._token = trio.lowlevel.current_trio_token()
        self.waiting = 0  # tasks that are making a reply
        self._buffer = memoryview(bytearray(_HEAD_BYTES + max_write))
        os.set_blocking(device.device, False)
        poll = select.poll()
        poll.register(device.device, select.POLLIN)
        self._poll = poll.poll

    def serve(self, until: float) -> bool:
        """Answer the request that waits, and more, up to the time *until* of `perf_counter`.

        Return True where libfuse has one to read now.
        """
        device, buffer, handlers = self._device, self._buffer, self._handlers
        room = [buffer]
        while True:
            try:
                size = os.readv(device.device, room)
            except OSError as exc:
                # Unmounted: libfuse reads that from the device by itself, and ends.
                return exc.errno not in _NOTHING_READ
            opcode, unique, node, uid, gid = _HEAD.unpack_from(buffer)
            handler = handlers.get(opcode)
            reply = None
            if handler is not None:
                try:
                    reply = handler(unique, node, buffer[_BODY:size], uid, gid)
                except Exception as exc:  # noqa: BLE001 - told, and answered
                    reply = messages.error(unique, self._explain(exc, opcode, node))
            if reply is None:
                if device.route(buffer[:size]):
                    return True
                reply = messages.error(unique, errno.EIO)
            if isinstance(reply, (Waiting, Later)):
                self._postpone(reply, unique, opcode, node)
            elif reply:
                device.send(reply)
            # Polling costs a tenth of the exception that reading nothing is.
            if not self._poll(0) or perf_counter() >= until:
                return False

    def _postpone(self, reply: Waiting | Later, unique: int, opcode: int, node: int) -> None:
        if isinstance(reply, Later):
            self._crew.take(reply, partial(self._failed_later, unique, opcode, node))
        else:
            self.waiting += 1
            trio.lowlevel.spawn_system_task(self._wait, unique, opcode, node, reply)

    async def _wait(self, unique: int, opcode: int, node: int, waiting: Waiting) -> None:
        try:
            reply = await waiting.job()
            if isinstance(reply, Later):
                self._postpone(reply, unique, opcode, node)
            else:
                self._device.send(reply)
        except Exception as exc:  # noqa: BLE001 - told, and answered
            self._answer_error(unique, opcode, node, exc)
        finally:
            self.waiting -= 1

    def _failed_later(self, unique: int, opcode: int, node: int, error: Exception) -> None:
        """Answer with an error that a thread met, from the thread of the handlers."""
        with contextlib.suppress(trio.RunFinishedError):  # nobody waits any more
            self._token.run_sync_soon(self._answer_error, unique, opcode, node, error)

    def _answer_error(self, unique: int, opcode: int, node: int, error: Exception) -> None:
        self._device.send(messages.error(unique, self._explain(error, opcode, node)))

    def close(self) -> None:
        """End the threads."""
        self._crew.dismiss()
