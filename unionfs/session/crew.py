"""Threads for replies that have to wait for a disk.

A thread makes the reply and sends it itself, so that nobody is woken up twice;
the handler's thread goes on meanwhile.  That costs some 20 us, a tenth of what
a way through trio's threads and back does.
"""

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import NamedTuple

# Reads that wait for a disk at the same time; more queue up.
_MOST = 16


class Later(NamedTuple):
    """A reply that a thread shall make: *job* sees descriptors alone, and raises OSError."""

    job: Callable[[], bytes | memoryview]


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
        self._open = 0  # errands that were taken on and are not done

    def take(self, later: Later, failed: Callable[[Exception], None]) -> None:
        """Have the reply made and sent; *failed* is called in the thread with what was raised."""
        with self._lock:
            self._open += 1
            short = self._open > len(self._threads) and len(self._threads) < _MOST
        if short:
            thread = threading.Thread(target=self._work, daemon=True)
            self._threads.append(thread)
            thread.start()
        self._errands.put(_Errand(later.job, failed))

    def _work(self) -> None:
        while True:
            errand = self._errands.get()
            if errand is None:
                return
            try:
                self._send(errand.job())
            except Exception as exc:  # noqa: BLE001 - told by `failed`
                errand.failed(exc)
            with self._lock:
                self._open -= 1

    def dismiss(self) -> None:
        """Let all finish what they do, and end them."""
        for _ in self._threads:
            self._errands.put(None)
        for thread in self._threads:
            thread.join()
        self._threads.clear()
