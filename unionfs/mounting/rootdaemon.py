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

    When it serves, the watcher is told at *ready* what it has to know: the mount's device number,
    and what to do when the daemon dies.
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
    with _upper_held(options):
        return daemon.open_and_serve(options, mountpoint, started)


@contextlib.contextmanager
def _upper_held(options: Options) -> Iterator[None]:
    """Keep the mount that upper is named in busy, so that nobody can unmount it: not for RAM.

    The layer itself is in a copy of that mount: unmounted, its disk would stay
    writable to the end, and be left with a journal to recover.  As it is, a
    shutdown has to make it read-only.
    """
    with contextlib.ExitStack() as held:
        fd = os.open(options.upper or "/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        if syscalls.is_tmpfs(fd):
            os.close(fd)
        else:
            held.callback(os.close, fd)
        yield
