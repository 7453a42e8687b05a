"""Room that is about to come back, where a file system is full.

A deleted file ends when the kernel has said that it is closed and forgotten.  The kernel does so
in its own time: the next request may be read before (fs/fuse/dev.c, forget_batch).  On a
plain directory the room is there at once.  So a request that fails for want of room is tried
again, a few times in the next moments.
"""

import errno
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

_PAUSES = (2e-3, 8e-3, 32e-3)  # seconds, before each further attempt

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_T = TypeVar("_T")
_Job = Callable[[], Awaitable[_T]]


def is_full(error: Exception) -> bool:
    """Tell whether an error says that there is no room."""
    return isinstance(error, OSError) and error.errno in _FULL


def _nothing() -> None:
    """Do nothing between attempts."""


async def tried_again(job: _Job[_T], ready: Callable[[], object] = _nothing) -> _T:
    """Do *job*, which has failed for want of room, again, each time after *ready*."""
    *pauses, last = _PAUSES
    for pause in pauses:
        await trio.sleep(pause)
        ready()
        try:
            return await job()
        except OSError as exc:
            if not is_full(exc):
                raise
    await trio.sleep(last)
    ready()
    return await job()


async def tried(job: _Job[_T], ready: Callable[[], object] = _nothing) -> _T:
    """Do *job*, again if there is no room."""
    try:
        return await job()
    except OSError as exc:
        if not is_full(exc):
            raise
    return await tried_again(job, ready)


def with_room(act: Callable[[], _T]) -> _T:
    """Do *act*, again if there is no room; for threads."""
    for pause in _PAUSES:
        try:
            return act()
        except OSError as exc:
            if not is_full(exc):
                raise
        time.sleep(pause)
    return act()
