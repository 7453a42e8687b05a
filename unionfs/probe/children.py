"""Processes that answer: isolation, other users, and readers that race a writer.

A child runs one function and sends what it returns, as JSON, through a pipe.
It has its own current directory, user and mount namespace; it may hang or be
killed without taking the probe with it.
"""

import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, NoReturn, Self

from unionfs.probe.model import DiffersError, NotTriedError

NOBODY = 65534


class NoAnswerError(Exception):
    """The child was killed or did not answer in time; the message says which."""


class Child:
    """A forked process that runs *work*; the leader of a process group of its own."""

    def __init__(self, work: Callable[[], Any]) -> None:
        answer, sender = os.pipe()
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(answer)
            _answer(work, sender)
        os.close(sender)
        self.answer = answer

    def result(self, seconds: float) -> Any:
        """Return what *work* returned; raise NoAnswerError after *seconds*."""
        received = b""
        waiting = select.poll()  # select(2) takes no descriptor above 1023
        waiting.register(self.answer)
        while True:
            if not waiting.poll(seconds * 1000):
                raise NoAnswerError(f"no answer within {seconds:g} s")
            chunk = os.read(self.answer, 65536)
            if not chunk:
                break
            received += chunk
        if not received:
            raise NoAnswerError(self._cause_of_death())
        return json.loads(received)

    def _cause_of_death(self) -> str:
        _, status = os.waitpid(self.pid, 0)
        self.pid = 0
        code = os.waitstatus_to_exitcode(status)
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _exc: BaseException | None,
        _tb: TracebackType | None,
    ) -> None:
        os.close(self.answer)
        if self.pid:
            _kill_group(self.pid)


def _answer(work: Callable[[], Any], sender: int) -> NoReturn:
    status = 1
    try:
        os.setpgid(0, 0)
        with os.fdopen(sender, "w", encoding="utf-8") as pipe:
            json.dump(work(), pipe)
        status = 0
    finally:
        if status:
            sys.excepthook(*sys.exc_info())
        os._exit(status)


def _kill_group(pid: int) -> None:
    """End the child and what it started; one stuck in the kernel is left to itself."""
    for kill in (os.killpg, os.kill):
        try:
            kill(pid, signal.SIGKILL)
        except ProcessLookupError:  # it has not become a group leader yet, or has ended
            continue
    for _ in range(100):
        if os.waitpid(pid, os.WNOHANG)[0]:
            return
        time.sleep(0.01)


def as_nobody(call: Callable[[], object]) -> Callable[[], None]:
    """Return *call* made by the user nobody in a child, with the same OSError.

    Only root can do that; the caller sees NotTriedError otherwise, and also where
    the mount shuts other users out (FUSE without allow_other).
    """

    def made() -> None:
        if os.geteuid() != 0:
            raise NotTriedError("needs root, to act as another user")
        with Child(lambda: _error_of(call)) as child:
            number, entered = child.result(30)
        if not entered:
            raise NotTriedError("the mount shuts other users out")
        if number:
            raise OSError(number, os.strerror(number))

    return made


def _error_of(call: Callable[[], object]) -> tuple[int, bool]:
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    try:
        os.stat("source")
    except OSError:
        return 0, False
    try:
        call()
    except OSError as exc:
        return exc.errno or 0, True
    return 0, True


def answers(children: list[Child], seconds: float) -> list[Any]:
    """Return the answers of all *children*; one that died is what was seen."""
    try:
        return [child.result(seconds) for child in children]
    except NoAnswerError as exc:
        raise DiffersError(f"a reader: {exc}") from None
