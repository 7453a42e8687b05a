"""Requests answered without libfuse, in a third of the time.

Between a request and its handler, libfuse and pyfuse3 make a coroutine, a
context, and objects of attributes that are set field by field: 10 us and more,
which is most of what a look-up costs.  So the requests are read from the device
here, and each is answered by its `Handler`.  A request without a handler is answered
ENOSYS: the kernel does without, and mostly asks no more (fs/fuse, `no_flush` and its like).

A handler is told the request's number and node, its body, which is valid
during the call only, and the caller.  It returns the whole reply
(`messages`), which is sent before anything else happens, `Soon` where the disk
needs a moment, `Later` for a thread to make the reply, `Waiting` for a task, or
`NO_REPLY`.  A handler that raises BlockingIOError, before it has changed anything, is
called again until it does not (`leases`).

Requests that nobody waits for (the kernel closes and forgets files in its own time) are
put off as long as there are others, and done while the client is busy with its reply.  The
end of a deleted file is not put off, as the next request may need the room.
"""

import collections
import contextlib
import errno
import logging
import os
import select
import struct
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from time import perf_counter
from typing import Final, Protocol

import trio

from unionfs.fuse.session import messages
from unionfs.fuse.session.asking import Asking
from unionfs.fuse.session.crew import Crew, Later, Soon, Waiting
from unionfs.fuse.session.device import Device
from unionfs.fuse.session.fullness import is_full, tried_again
from unionfs.fuse.session.leases import after_pause, insisted, repeated
from unionfs.fuse.session.polling import Polling
from unionfs.fuse.session.protocol import IN_HEADER
from unionfs.layers.far import FarLayer

log = logging.getLogger(__name__)

# Its arguments: unique, node, body, uid, gid.
Reply = bytes | memoryview | Later
Handler = Callable[[int, int, memoryview, int, int], "Reply | Soon | Waiting"]
NO_REPLY: Final = b""

# Requests that nobody waits for, and how many may be put off: the kernel counts releases among its
# background requests (`InitPatch.max_background`), and closing gives room back.
_PUT_OFF = frozenset({messages.RELEASE, messages.FORGET, messages.BATCH_FORGET})
_MOST_PUT_OFF = 16

# Requests that are not made again for want of room: a descriptor is closed all the same (close(2)),
# and another file may have its number by then; fsync(2) tells a disk's error once, to one caller.
_DONE_ONCE = _PUT_OFF | {messages.FSYNC, messages.FSYNCDIR}

# More than the kernel asks for: the head of a WRITE and its data, FUSE_MIN_READ_BUFFER at least.
_HEAD_BYTES = 8192

# read(2): nothing waits; the request was aborted meanwhile.
_NOTHING_READ = frozenset({errno.EAGAIN, errno.ENOENT})
_HEAD = struct.Struct("=4xIQQII")  # opcode unique nodeid uid gid: the beginning of IN_HEADER
_BODY = IN_HEADER.size
_THREAD = struct.Struct("=I")  # of IN_HEADER: pid
_THREAD_AT = 32


def _ignore(_unique: int, _node: int, _body: memoryview, _uid: int, _gid: int) -> bytes:
    """Let an interrupted request come to its end, as fuse.rst allows: "Interrupting"."""
    return NO_REPLY


def _refuse(unique: int, _node: int, _body: memoryview, _uid: int, _gid: int) -> bytes:
    """Answer ENOSYS: there is no such request here."""
    return messages.error(unique, errno.ENOSYS)


def _may_pass(error: Exception, opcode: int) -> bool:
    """Tell whether a request that failed is made again: for a lease, or for want of room."""
    return isinstance(error, BlockingIOError) or (is_full(error) and opcode not in _DONE_ONCE)


class Handlers(Protocol):
    """The requests that a filesystem answers without libfuse."""

    table: Mapping[int, Handler]  # by opcode

    def explain(self, error: Exception, opcode: int, node: int) -> int:
        """Log an error where that is called for, and return its number."""

    def gives_room(self, opcode: int, node: int, body: memoryview) -> bool:
        """Tell whether a request that nobody waits for gives back room that the next may need."""

    def foresee(self) -> bool:
        """Make a likely answer ready, in a few microseconds; False: there is nothing to do."""


_Made = Reply | Soon | Waiting
_Job = Callable[[], Awaitable[_Made]]
_Request = tuple[int, int, int, memoryview, int, int]
_Awaited = tuple[Soon, int, int, int]  # unique, opcode and node of the request


class Dispatcher:
    """Takes the requests of one mount from the kernel."""

    def __init__(
        self, device: Device, handlers: Handlers, max_write: int, polling: Polling
    ) -> None:
        self._device = device
        self._polling = polling
        self._handlers: Mapping[int, Handler] = {messages.INTERRUPT: _ignore, **handlers.table}
        self._asking: Asking | None = None
        self.wake_fd = -1  # readable when threads have answers of far layers
        self._explain = handlers.explain
        self._foresee = handlers.foresee
        self._gives_room = handlers.gives_room
        self._crew = Crew(device.send)
        self._soon: collections.deque[_Awaited] = collections.deque()
        self._token = trio.lowlevel.current_trio_token()
        self.waiting = 0  # tasks that are making a reply
        self.begun = False  # are there tasks that trio has not come to yet?
        self._held_up: dict[int, int] = {}  # unique of a request made again -> its thread
        self._can_wait = _PUT_OFF & self._handlers.keys()
        # requests that nobody waits for: opcode, unique, node, body, uid, gid
        self._put_off: collections.deque[_Request] = collections.deque()
        self._buffer = memoryview(bytearray(_HEAD_BYTES + max_write))
        os.set_blocking(device.device, False)
        poll = select.poll()
        poll.register(device.device, select.POLLIN)
        self._poll = poll.poll

    def thread(self, unique: int) -> int:
        """Return the thread that made the request being handled; 0 if it is not seen from here."""
        number: int = _THREAD.unpack_from(self._buffer, _THREAD_AT)[0]
        return self._held_up.get(unique, number) if self._held_up else number

    def hold_up(self, unique: int, thread: int | None = None) -> int:
        """Keep in mind which thread made the request being handled, until a task has replied."""
        thread = self._held_up[unique] = self.thread(unique) if thread is None else thread
        return thread

    def ask(self, layers: Iterable[FarLayer]) -> None:
        """Let requests wait for far layers, from now on."""
        self.wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._asking = Asking(self, layers, self._wake)
        self._handlers = self._asking.patient(self._handlers)

    def _wake(self) -> None:
        """Ask for a pass through trio soon; threads call this as well."""
        self.begun = True
        os.eventfd_write(self.wake_fd, 1)

    def serve(self, until: float) -> bool:
        """Answer the request that waits, and more, up to the time *until* of `perf_counter`.

        Return True where no more will come, which libfuse is to find out itself.
        """
        device, room = self._device.device, [self._buffer]
        while True:
            try:
                size = os.readv(device, room)
            except OSError as exc:
                if exc.errno not in _NOTHING_READ:  # unmounted
                    return True
            else:
                self._take(size)
            if not self._is_asked(until) or perf_counter() >= until:
                self._leave_to_threads()
                return False

    def _take(self, size: int) -> None:
        """Answer the request of *size* bytes, now or later."""
        buffer = self._buffer
        opcode, unique, node, uid, gid = _HEAD.unpack_from(buffer)
        body = buffer[_BODY:size]
        if opcode not in self._can_wait:
            self._answer(opcode, unique, node, body, uid, gid)
        elif self._gives_room(opcode, node, body):
            self.catch_up()  # requests put off may have the same file open
            self._answer(opcode, unique, node, body, uid, gid)
        else:
            self._put_off.append((opcode, unique, node, memoryview(bytes(body)), uid, gid))

    def _is_asked(self, until: float) -> bool:
        """Do what can be done until the next request, and tell whether it has come soon."""
        poll, put_off = self._poll, self._put_off
        # Polling costs a tenth of the exception that reading nothing is.
        while len(put_off) > _MOST_PUT_OFF or not poll(0):
            if put_off:
                self._answer(*put_off.popleft())
            elif self._soon and perf_counter() < until:
                self._attempt()
            elif self.begun:
                return False
            elif not self._is_made_ready():
                return self._polling.poll_on(poll)
        return True

    def _is_made_ready(self) -> bool:
        """Make something ready; a bug in that is logged, and ends it, but not the mount."""
        try:
            return self._foresee()
        except Exception:
            log.exception("nothing is made ready any more")
            self._foresee = lambda: False
            return False

    def _attempt(self) -> None:
        """Check whether the data has come for which a reply waits."""
        awaited = soon, unique, opcode, node = self._soon.popleft()
        try:
            reply = soon.attempt()
        except BlockingIOError:
            self._postpone(Waiting(after_pause(soon)), unique, opcode, node)
            return
        except Exception as exc:  # noqa: BLE001 - told, and answered
            self._answer_error(unique, opcode, node, exc)
            return
        if reply is None:
            self._soon.append(awaited)
        elif reply:
            self._device.send(reply)

    def catch_up(self) -> None:
        """Do what was put off; a handler may ask for that, as its own request came later."""
        while self._put_off:
            self._answer(*self._put_off.popleft())

    def _leave_to_threads(self) -> None:
        """Leave data that is still awaited to threads: the loop is about to do other things."""
        while self._soon:
            soon, unique, opcode, node = self._soon.popleft()
            try:
                self._postpone(soon.later(), unique, opcode, node)
            except BlockingIOError:
                self._postpone(Waiting(after_pause(soon)), unique, opcode, node)
            except Exception as exc:  # noqa: BLE001 - told, and answered
                self._answer_error(unique, opcode, node, exc)

    def _answer(  # noqa: PLR0913, PLR0917 - the parts of a request, as handlers take them
        self, opcode: int, unique: int, node: int, body: memoryview, uid: int, gid: int
    ) -> None:
        """Answer a request."""
        handler = self._handlers.get(opcode, _refuse)
        try:
            reply = handler(unique, node, body, uid, gid)
            if isinstance(reply, bytes | memoryview):
                if reply:
                    self._device.send(reply)
            else:
                self._postpone(reply, unique, opcode, node)
        except Exception as exc:  # noqa: BLE001 - told, and answered
            if _may_pass(exc, opcode):
                self.hold_up(unique)
                again = partial(handler, unique, node, memoryview(bytes(body)), uid, gid)
                self._postpone(Waiting(repeated(again)), unique, opcode, node)
                return
            self._device.send(messages.error(unique, self._explain(exc, opcode, node)))

    def _postpone(self, reply: Waiting | Later | Soon, unique: int, opcode: int, node: int) -> None:
        if isinstance(reply, Soon):
            self._soon.append((reply, unique, opcode, node))
        elif isinstance(reply, Later):
            self._crew.take(reply, partial(self._failed_later, unique, opcode, node))
        else:
            self.waiting += 1
            self.begun = True
            trio.lowlevel.spawn_system_task(self._wait, unique, opcode, node, reply.job)

    async def _wait(self, unique: int, opcode: int, node: int, job: _Job) -> None:
        try:
            try:
                reply = await job()
            except OSError as exc:
                if not _may_pass(exc, opcode):
                    raise
                once = opcode in _DONE_ONCE
                again = job if once else partial(tried_again, job, self.catch_up)
                reply = await insisted(again)
            if isinstance(reply, bytes | memoryview):
                if reply:
                    self._device.send(reply)
            else:
                self._postpone(reply, unique, opcode, node)
        except Exception as exc:  # noqa: BLE001 - told, and answered
            self._answer_error(unique, opcode, node, exc)
        finally:
            self.waiting -= 1
            self._held_up.pop(unique, None)
            self.use_pause()

    def use_pause(self) -> None:
        """Do the work that falls between requests, after a task had its turn instead of a wait."""
        while not self._poll(0) and self._is_made_ready():
            pass

    def _failed_later(self, unique: int, opcode: int, node: int, error: Exception) -> None:
        """Answer with an error that a thread met, from the thread of the handlers."""
        with contextlib.suppress(trio.RunFinishedError):  # nobody waits any more
            self._token.run_sync_soon(self._answer_error, unique, opcode, node, error)

    def _answer_error(self, unique: int, opcode: int, node: int, error: Exception) -> None:
        self._device.send(messages.error(unique, self._explain(error, opcode, node)))

    def close(self) -> None:
        """Do what was put off, and end the threads."""
        self.catch_up()
        self._leave_to_threads()
        self._crew.dismiss()
        if self._asking is not None:
            self._asking.close()
