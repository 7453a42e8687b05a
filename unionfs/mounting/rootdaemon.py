"""The daemon of a machine's root file system: `-o boot=on`.

The boot scripts (boot/) mount with it.  Its parent watches it (`watcher`).
Neither may need anything from the union: their root directory is the true
root, below it; all modules are imported and all descriptors open before it
serves; log lines go to the kernel's log, where syslog's socket is on the union.
"""

import contextlib
import encodings.idna  # noqa: F401 - as with all that is not used here: nothing is imported later
import linecache
import os
import tempfile  # noqa: F401
from collections.abc import Iterator

from unionfs.host import mountinfo, syscalls
from unionfs.mounting import daemon, logs, survival
from unionfs.mounting.options import Options


def serve(options: Options, mountpoint: str, ready: int) -> int:
    """Serve, and return the exit status when the mount has gone.

    When it serves, it tells the watcher through *ready* the mount's device number, and what to do
    when the daemon dies.
    """

    def started() -> None:
        logs.to_kernel_log()
        linecache.clearcache()
        survival.settle("unionfs")
        survival.StayAwake()
        ours = mountinfo.top_at(mountpoint)
        os.write(ready, f"{ours.device if ours else '?'} {options.dead}".encode())
        os.close(ready)

    survival.spare_from_oom_killer()
    survival.rename("@unionfs")
    with _held(options.upper), _held(options.state):
        return daemon.open_and_serve(options, mountpoint, started)


@contextlib.contextmanager
def _held(layer: str | None) -> Iterator[None]:
    """Keep the mount that a writable layer is named in busy, so that nobody can unmount it.

    The layer itself is open in a copy of that mount.  If the mount were gone, the disk would stay
    writable to the end, and be left with a journal to recover.  As it is, a shutdown has to make
    the disk read-only.  RAM need not be held, and a missing layer cannot be.
    """
    with contextlib.ExitStack() as held:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            fd = os.open(layer or "/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            if syscalls.is_tmpfs(fd):
                os.close(fd)
            else:
                held.callback(os.close, fd)
        yield
