"""Threads for replies that have to wait for a disk.

A thread makes the reply and sends it itself, so that nobody is woken up twice;
the handler's thread goes on meanwhile.  That costs some 20 us, a tenth of the way
through trio's threads and back.
"""

import logging
import threading
from collections.abc import Awaitable, Callable
from queue import SimpleQueue
from typing import NamedTuple, TypeVar

log = logging.getLogger(__name__)

# Reads that wait for a disk at the same time; more queue up.
_MOST = 16


_T = TypeVar("_T")


class Later(NamedTuple):
    """A reply that a thread is to make: *job* sees descriptors alone, and raises OSError."""

    job: Callable[[], bytes | memoryview]


class Soon(NamedTuple):
    """A reply for which data is on its way from a disk.

    *attempt* is called in the loop, again and again for a moment, until it returns the reply; then
    a thread makes it: *later*.
    """

    attempt: Callable[[], bytes | memoryview | None]
    later: Callable[[], Later]


class Waiting(NamedTuple):
    """A reply that is made when something else has come to an end, by a task of trio's."""

    job: Callable[[], Awaitable["bytes | memoryview | Later | Soon | Waiting"]]


def at_once(job: Awaitable[_T]) -> _T:
    """Return the result of *job*, which does not wait: it needs no task."""
    try:
        next(job.__await__())
    except StopIteration as exc:
        made: _T = exc.value
        return made
    raise RuntimeError("a job waits that was declared not to")


class _Errand(NamedTuple):
    job: Callable[[], bytes | memoryview]
    failed: Callable[[Exception], None]  # called in the thread


class Crew:
    """Threads that are started as they are needed, and then stay."""

    def __init__(self, send: Callable[[bytes | memoryview], None]) -> None:
        self._send = send
        self._errands: SimpleQueue[_Errand | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._open = 0  # errands that were taken on and are not done yet

    def take(self, later: Later, failed: Callable[[Exception], None]) -> None:
        """Have the reply made and sent; *failed* is called in the thread with an exception."""
        with self._lock:
            self._open += 1
            short = self._open > len(self._threads) and len(self._threads) < _MOST
        errand = _Errand(later.job, failed)
        if short:
            self._grow()
        if self._threads:
            self._errands.put(errand)
        else:
            self._do(errand)  # all have to wait, but the request is answered

    def _grow(self) -> None:
        thread = threading.Thread(target=self._work, daemon=True)
        try:
            thread.start()
        except RuntimeError as exc:  # the limit of processes is reached: pthread_create(3), EAGAIN
            log.warning("%d threads read, and no more can start: %s", len(self._threads), exc)
        else:
            self._threads.append(thread)

    def _work(self) -> None:
        while (errand := self._errands.get()) is not None:
            self._do(errand)

    def _do(self, errand: _Errand) -> None:
        try:
            self._send(errand.job())
        except Exception as exc:  # noqa: BLE001 - told by `failed`
            errand.failed(exc)
        with self._lock:
            self._open -= 1

    def dismiss(self) -> None:
        """Let all threads finish their work, and end them."""
        for _ in self._threads:
            self._errands.put(None)
        for thread in self._threads:
            thread.join()
        self._threads.clear()
