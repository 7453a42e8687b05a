"""Requests that are held up by a lease on a file of a layer.

The owner of a file may take a lease on it (fcntl_locking(2), F_SETLEASE).  An open breaks
the lease, and waits until the holder has let go, or for 45 s
(/proc/sys/fs/lease-break-time).  Here an open does not wait: it breaks the lease and raises
BlockingIOError.  So the request is made again until it succeeds, and only its caller waits.
"""

import contextlib
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

import trio

from unionfs.fuse.session.crew import Later, Soon, Waiting

_PAUSE_SECONDS = 0.02

_T = TypeVar("_T")
_Made = bytes | memoryview | Later | Soon | Waiting


class HeldError(OSError):
    """A lease holds a file, and the caller that opens the file does not wait: EAGAIN."""


async def insisted(job: Callable[[], Awaitable[_T]]) -> _T:
    """Do *job* again and again, until no lease holds it up."""
    while True:
        try:
            return await job()
        except BlockingIOError:
            await trio.sleep(_PAUSE_SECONDS)


@contextlib.contextmanager
def unheld() -> Iterator[None]:
    """Turn a lease into the error EAGAIN, after which nothing is repeated: open(2), O_NONBLOCK."""
    try:
        yield
    except BlockingIOError as exc:
        raise HeldError(exc.errno, exc.strerror) from exc


def repeated(handle: Callable[[], _Made]) -> Callable[[], Awaitable[_Made]]:
    """Return the job of calling a handler once more."""

    async def job() -> _Made:
        return handle()

    return job


def after_pause(soon: Soon) -> Callable[[], Awaitable[Soon]]:
    """Return the job of going on with *soon* a moment later."""

    async def job() -> Soon:
        await trio.sleep(_PAUSE_SECONDS)
        return soon

    return job
