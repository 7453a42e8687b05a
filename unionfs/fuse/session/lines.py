"""Threads that find the answers of far layers.

Requests with the same question wait for the same answer.  Each layer has threads of its own, so
that a layer which does not answer holds up no other; where all its threads are taken, the next
question waits in line.  A thread in the middle of a system call is left behind: neither a request
whose client has been killed nor the daemon waits for the thread's end.

Each thread acts as root, whoever the thread of the handlers acts for, and has a working
directory of its own, as reading attributes enters the layer.
"""

import errno
import logging
import os
import threading
from collections.abc import Callable
from queue import SimpleQueue

import trio

from unionfs.host import syscalls
from unionfs.layers.far import Answer, Ask, FarLayer, Key
from unionfs.layers.layer import Layer

log = logging.getLogger(__name__)

# Calls of one layer at the same time.  A server that takes 200 ms gets 160 calls a second.
_MOST = 32


class _Question:
    """A question whose answer one or several requests wait for."""

    __slots__ = ("answer", "ask", "askers", "begun", "done")

    def __init__(self, ask: Ask) -> None:
        self.ask = ask
        self.askers = 0
        self.begun = False
        self.done = trio.Event()
        self.answer = Answer(None)


class Line:
    """The threads of one far layer."""

    def __init__(self, layer: FarLayer, wake: Callable[[], None]) -> None:
        """Take the function that makes the loop look for answers; threads call it."""
        self._layer = layer
        self._wake = wake
        self._token = trio.lowlevel.current_trio_token()
        self._waiting: SimpleQueue[_Question | None] = SimpleQueue()
        self._asked: dict[Key, _Question] = {}
        self._threads = 0
        self._open = 0  # questions that were put and are not answered yet

    async def answer(self, ask: Ask) -> Answer:
        """Return the answer when it has come."""
        question, is_new = self._asked.get(ask.key), False
        if question is None:
            question, is_new = _Question(ask), True
            self._asked[ask.key] = question
        question.askers += 1
        if is_new:
            self._put(question)
        try:
            await question.done.wait()
        finally:
            question.askers -= 1
            if not question.askers and not question.begun:
                self._forget(question)
        return question.answer

    def _put(self, question: _Question) -> None:
        self._open += 1
        if self._open > self._threads and self._threads < _MOST:
            self._grow()
        if self._threads:
            self._waiting.put(question)
        else:
            self._finish(question, Answer(None, OSError(errno.ENOMEM, "no thread can start")))

    def _grow(self) -> None:
        thread = threading.Thread(target=self._work, daemon=True)
        try:
            thread.start()
        except RuntimeError as exc:  # the limit of processes is reached: pthread_create(3), EAGAIN
            log.warning("%s: only %d threads ask: %s", self._layer.name, self._threads, exc)
        else:
            self._threads += 1

    def _forget(self, question: _Question) -> None:
        if self._asked.get(question.ask.key) is question:
            del self._asked[question.ask.key]

    def _finish(self, question: _Question, answer: Answer) -> None:
        """Take an answer, in the thread of the handlers."""
        self._open -= 1
        self._forget(question)
        question.answer = answer
        question.done.set()
        self._layer.keep(question.ask, answer)
        self._wake()  # the asking tasks have their turn in a later pass
        if not question.askers:
            answer.drop()

    # In a thread

    def _work(self) -> None:
        near = self._layer.for_thread()
        try:
            failure = _prepared()
            while (question := self._waiting.get()) is not None:
                self._tell(question, _found(question, near, failure))
        finally:
            near.landmarks.clear()

    def _tell(self, question: _Question, answer: Answer) -> None:
        try:
            self._token.run_sync_soon(self._finish, question, answer)
        except trio.RunFinishedError:  # nobody waits any more
            answer.drop()
        else:
            self._wake()

    def close(self) -> None:
        """Let the threads end when they can."""
        for _ in range(self._threads):
            self._waiting.put(None)


def can_ask() -> bool:
    """Tell whether such threads can be had: seccomp may forbid unshare(2)."""
    failures: list[OSError | None] = []
    thread = threading.Thread(target=lambda: failures.append(_prepared()))
    try:
        thread.start()
    except RuntimeError as exc:
        failures.append(OSError(errno.EAGAIN, str(exc)))
    else:
        thread.join()
    (failure,) = failures
    if failure is not None:
        log.warning("a lower that does not answer keeps all waiting: %s", failure.strerror)
    return failure is None


def _prepared() -> OSError | None:
    try:
        syscalls.leave_common_directory()
        syscalls.set_filesystem_ids(0, 0)
    except OSError as exc:
        return exc
    os.umask(0)
    return None


def _found(question: _Question, near: Layer, failure: OSError | None) -> Answer:
    if failure is not None:
        return Answer(None, failure)
    if not question.askers:  # all have gone, and no other request can join the question
        return Answer(None, OSError(errno.EINTR, os.strerror(errno.EINTR)))
    question.begun = True
    return question.ask.answered(near)
