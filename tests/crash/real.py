"""A real daemon on a real mount that kills itself at one of its system calls.

The daemon is forked from this process (`contender.start`), and the calls of
the core are replaced in it as in `gate`.  What they shall do stands in memory
that both processes share, so that the parent counts the calls of one
operation, and says at which of them the daemon gets its SIGKILL.
"""

import fcntl
import mmap
import os
import signal
import struct
from collections.abc import Callable

from unionfs import syscalls

from .gate import CHANGING, makes

_STATE = struct.Struct("qq")  # calls seen; the call at which to die: +n before it, -n after it


class Trigger:
    """Counts the calls of a daemon, and kills it at one."""

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, _STATE.size)

    def set(self, at: int) -> None:
        """Count anew, and die before (*at* > 0) or after (*at* < 0) a call; 0: live on."""
        self._shared[:] = _STATE.pack(0, at)

    @property
    def calls(self) -> int:
        return _STATE.unpack(self._shared)[0]

    def install(self) -> None:
        """Replace the calls in this process, the daemon, until it ends."""
        for place, name in [(os, n) for n in ("open", *CHANGING)] + [
            (syscalls, "renameat2"),
            (fcntl, "ioctl"),
        ]:
            setattr(place, name, self._deadly(name, getattr(place, name)))

    def _deadly(self, name: str, function: Callable) -> Callable:
        def call(*args, **kwargs):
            if name == "open" and not makes(args[1]):
                return function(*args, **kwargs)
            seen, at = _STATE.unpack(self._shared)
            self._shared[:] = _STATE.pack(seen + 1, at)
            if at == seen + 1:
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                return function(*args, **kwargs)
            finally:
                if -at == seen + 1:
                    os.kill(os.getpid(), signal.SIGKILL)

        return call
