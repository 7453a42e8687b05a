"""Requests that are held up by a lease on a file of a layer.

Who owns a file may take a lease on it (fcntl_locking(2), F_SETLEASE): it is broken
by an open, which waits until the holder has let go, or for 45 s
(/proc/sys/fs/lease-break-time).  Here an open does not wait: it breaks the lease and raises
BlockingIOError.  So the request is made again until it succeeds, and only who
made it waits.
"""

import errno
import os
from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from unionfs.fuse.session.crew import Later, Soon, Waiting

_PAUSE_SECONDS = 0.02

_T = TypeVar("_T")
_Made = bytes | memoryview | Later | Soon | Waiting


async def insisted(job: Callable[[], Awaitable[_T]]) -> _T:
    """Do *job*, again and again, until no lease holds it up."""
    while True:
        try:
            return await job()
        except BlockingIOError:
            await trio.sleep(_PAUSE_SECONDS)


def repeated(handle: Callable[[], _Made | None]) -> Callable[[], Awaitable[_Made]]:
    """Return the job of calling a handler once more."""

    async def job() -> _Made:
        made = handle()
        if made is None:  # meanwhile it takes what only libfuse can wait for
            raise OSError(errno.EINTR, os.strerror(errno.EINTR))
        return made

    return job


def after_pause(soon: Soon) -> Callable[[], Awaitable[Soon]]:
    """Return the job of going on with *soon* a moment later."""

    async def job() -> Soon:
        await trio.sleep(_PAUSE_SECONDS)
        return soon

    return job
