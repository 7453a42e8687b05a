"""Requests that ask a far layer: each waits for its answer alone, and is made again with it.

A handler that raises `Ask` (`layers/far`) has changed nothing.  So a task has a thread find
the answer (`lines`), and calls the handler from its beginning, as often as it asks for more.
The answers are pinned until the request ends.

A waiting client can be killed: then the reply is EINTR, and the thread goes on by itself.  The
kernel tells only of a request's first signal (FUSE_INTERRUPT), and of none to a thread that
waits for a page which another request is to fill.  So the clients are checked now and then
(`host/clients`).
"""

import errno
import os
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import trio

from unionfs.fuse.session import messages
from unionfs.fuse.session.crew import Later, Soon, Waiting
from unionfs.fuse.session.lines import Line
from unionfs.host.clients import is_ending
from unionfs.layers.far import PINNED, Answer, Ask, FarLayer, Pinned

if TYPE_CHECKING:
    from unionfs.fuse.session.dispatch import Dispatcher, Handler

# Seconds between two checks for clients that have gone.
_LOOK_SECONDS = 0.25

_Reply = bytes | memoryview | Later | Soon
_Made = _Reply | Waiting
_Asked = Callable[[], _Made]  # calls a handler once more


class _Waiter:
    """A request that waits for an answer."""

    __slots__ = ("scope", "thread")

    def __init__(self, thread: int) -> None:
        self.scope = trio.CancelScope()
        self.thread = thread


class Asking:
    """The requests of one mount that ask far layers."""

    def __init__(
        self, dispatcher: "Dispatcher", layers: Iterable[FarLayer], wake: Callable[[], None]
    ) -> None:
        self._dispatcher = dispatcher
        self._lines = {layer: Line(layer, wake) for layer in layers}
        self._waiters: dict[int, _Waiter] = {}  # by the request's number
        self._looking = False  # a task checks for clients that have gone

    def patient(self, table: "Mapping[int, Handler]") -> "dict[int, Handler]":
        """Return handlers that wait for far layers, from handlers that raise `Ask`."""
        patient = {opcode: self._patient(handler) for opcode, handler in table.items()}
        return {**patient, messages.INTERRUPT: self._interrupt}

    def _patient(self, handler: "Handler") -> "Handler":
        def handle(unique: int, node: int, body: memoryview, uid: int, gid: int) -> _Made:
            ask, made = None, None
            try:
                made = handler(unique, node, body, uid, gid)
            except Ask as exc:
                ask = exc
            if made is not None and not isinstance(made, Waiting):
                return made
            thread = self._dispatcher.hold_up(unique)
            own = memoryview(bytes(body))
            return Waiting(
                lambda: self._see_through(
                    unique, thread, ask or made, lambda: handler(unique, node, own, uid, gid)
                )
            )

        return handle

    async def _see_through(
        self, unique: int, thread: int, made: Ask | Waiting | None, again: _Asked
    ) -> _Reply:
        """Make the reply; begin anew after each answer."""
        pinned: Pinned = {}
        PINNED.set(pinned)  # of this task
        try:
            while True:
                if isinstance(made, Ask):
                    pinned[made.layer, made.key] = await self._answer(unique, thread, made)
                    made = None
                self._dispatcher.hold_up(unique, thread)
                try:
                    return await _finished(again() if made is None else made)
                except Ask as ask:
                    made = ask
        finally:
            PINNED.set(None)
            for answer in pinned.values():
                answer.drop()

    async def _answer(self, unique: int, thread: int, ask: Ask) -> Answer:
        """Return an answer; EINTR where the client that waits for it has been killed."""
        waiter = self._waiters[unique] = _Waiter(thread)
        self._look_for_the_dead()
        self._dispatcher.waiting -= 1  # as this may take long, the loop need not hurry
        try:
            with waiter.scope:
                return await self._lines[ask.layer].answer(ask)
        finally:
            self._dispatcher.waiting += 1
            del self._waiters[unique]
        raise OSError(errno.EINTR, os.strerror(errno.EINTR))

    def _interrupt(self, _unique: int, _node: int, body: memoryview, _uid: int, _gid: int) -> bytes:
        """Let go of a request whose client ends, as far as it waits for an answer."""
        (unique,) = messages.INTERRUPT_IN.unpack_from(body)
        waiter = self._waiters.get(unique)
        if waiter is not None and (not waiter.thread or is_ending(waiter.thread)):
            waiter.scope.cancel()
        return b""

    def _look_for_the_dead(self) -> None:
        if not self._looking:
            self._looking = True
            trio.lowlevel.spawn_system_task(self._keep_looking)

    async def _keep_looking(self) -> None:
        while self._waiters:
            await trio.sleep(_LOOK_SECONDS)
            for waiter in list(self._waiters.values()):
                if is_ending(waiter.thread):
                    waiter.scope.cancel()
        self._looking = False

    def close(self) -> None:
        """Let the threads end when they can."""
        for line in self._lines.values():
            line.close()


async def _finished(made: _Made) -> _Reply:
    while isinstance(made, Waiting):
        made = await made.job()
    return made
