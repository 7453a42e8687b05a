"""A real daemon on a real mount that kills itself at one of its system calls, or lets it fail.

`Mortal` is such a mount, `Trigger` says when it dies.  The daemon is forked
from this process (`contender.start`), and the calls of the core are replaced in
it as in `gate`.  What they shall do stands in memory that both processes share,
so that the parent counts the calls of one operation, and says at which of them
the daemon gets its SIGKILL.
"""

import contextlib
import errno
import fcntl
import mmap
import os
import signal
import struct
from collections.abc import Callable

from unionfs.host import syscalls

from . import contender
from .contender import Place
from .disks import detach
from .gate import CHANGING, changes

# Calls seen; the call at which to die: +n before it, -n after it; the errno with which it fails
# instead, or 0.
_STATE = struct.Struct("qqq")


class Trigger:
    """Counts the calls of a daemon, and kills it at one, or lets that fail."""

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, _STATE.size)

    def set(self, at: int, number: int = 0) -> None:
        """Count anew, and die before (*at* > 0) or after (*at* < 0) a call; 0: live on.

        With the errno *number* the call fails, and the daemon lives on.
        """
        self._shared[:] = _STATE.pack(0, at, number)

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
            if not changes(name, args):
                return function(*args, **kwargs)
            seen, at, number = _STATE.unpack(self._shared)
            self._shared[:] = _STATE.pack(seen + 1, at, number)
            if at == seen + 1:
                if number:
                    raise OSError(number, os.strerror(number))
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                return function(*args, **kwargs)
            finally:
                if -at == seen + 1:
                    os.kill(os.getpid(), signal.SIGKILL)

        return call


class Mortal:
    """A union that is mounted, killed, and mounted anew."""

    def __init__(self, place: Place, *options: str) -> None:
        self.place = place
        self.options = options  # as -o takes them
        self.trigger = Trigger()
        self._pid = 0  # 0: no daemon runs
        os.makedirs(place.mountpoint, exist_ok=True)

    def mount(self) -> None:
        self.trigger.set(0)
        prepare = self.trigger.install
        self._pid = contender.start(self.place, "auto", *self.options, prepare=prepare)

    def unmount(self) -> None:
        """Unmount; the daemon must end well."""
        detach(self.place.mountpoint)
        status = self._wait()
        if status != 0:
            raise OSError(f"the daemon ended with status {status}")

    def calls(self, do: Callable[[], object]) -> int:
        """Do it on the mount; return how many calls the daemon made for it."""
        self.trigger.set(0)
        do()
        return self.trigger.calls

    def die(self, at: int, do: Callable[[], object]) -> None:
        """Do it while the daemon dies at call *at*, and let go of the dead mount."""
        self.trigger.set(at)
        with contextlib.suppress(OSError):
            do()
        status = self._wait()
        if status != -signal.SIGKILL:
            raise OSError(f"the daemon was not killed at call {at}: {status}")
        try:
            os.listdir(self.place.mountpoint)
        except OSError as exc:
            if exc.errno != errno.ENOTCONN:
                raise
        else:
            raise OSError("a dead mount still serves")
        detach(self.place.mountpoint)

    def _wait(self) -> int:
        pid, self._pid = self._pid, 0
        return contender.wait(pid)

    def end(self) -> None:
        """End whatever a failed test left."""
        while os.path.ismount(self.place.mountpoint):
            detach(self.place.mountpoint)
        if self._pid:
            with contextlib.suppress(ChildProcessError, ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
                os.waitpid(self._pid, 0)

    def staged(self) -> list[str]:
        """Return what lies in the staging area."""
        staged = os.listdir(f"{self.place.work}/work")
        return [name for name in staged if name != "incompat"]  # it stays until all is whole
