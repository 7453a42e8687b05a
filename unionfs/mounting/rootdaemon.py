"""The daemon of a machine's root file system, and the process that watches it: `-o boot=on`.

The boot scripts (boot/) mount with it.  Two processes: the parent watches
(`watcher`), its child serves.  Neither may need anything from the union: their
root directory is the true root, below it; all modules are imported and all
descriptors open before it serves; log lines go to the kernel's log, where
syslog's socket is on the union.  Keeping the connection across the daemon's
death would be the parent's affair, too.
"""

import contextlib
import encodings.idna  # noqa: F401 - as with all that is not used here: nothing is imported later
import gc
import linecache
import os
import signal
import tempfile  # noqa: F401
from collections.abc import Callable, Iterator

from unionfs.host import mountinfo, syscalls
from unionfs.mounting import daemon, logs, survival, watcher
from unionfs.mounting.options import Options

# sysvinit's sendsigs spares the processes whose numbers stand in files here.
_SPARED = "/run/sendsigs.omit.d"


def serve(options: Options, mountpoint: str, ready: Callable[[], None]) -> int:
    """Serve in a child, watched; *ready* is called in this process when it serves.

    Returns the exit status when there was no mount, or it has gone by umount(2).
    """
    survival.spare_from_oom_killer()  # the child inherits it
    gc.freeze()  # a collection would write to every object, and so end the sharing of its page
    serving, serving_end = os.pipe()
    child = os.fork()
    if not child:
        os.close(serving)
        os._exit(_serve(options, mountpoint, serving_end))
    os.close(serving_end)
    with open(serving, "rb") as pipe:
        device = pipe.read().decode()
    if not device:
        return watcher.status_of(child)
    survival.rename("@unionfs-watch")
    watch = watcher.Watcher(child, device, options.dead)
    ready()
    _settle("unionfs-watch")
    survival.ignore(signal.SIGTERM, signal.SIGINT)  # in the child they ask to unmount, in vain
    return watch.wait()


def _serve(options: Options, mountpoint: str, serving: int) -> int:
    """Be the daemon; the mount's device number is written to *serving* when it serves."""

    def started() -> None:
        _settle("unionfs")
        survival.StayAwake()
        ours = mountinfo.top_at(mountpoint)
        os.write(serving, (ours.device if ours else "?").encode())
        os.close(serving)

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


def _settle(name: str) -> None:
    """Let go of the command that started this, and stay, whatever comes."""
    logs.to_kernel_log()
    logs.leave_terminal()
    survival.ignore(signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
    linecache.clearcache()
    survival.lock_memory()
    with contextlib.suppress(OSError):
        os.makedirs(_SPARED, exist_ok=True)
        with open(f"{_SPARED}/{name}", "w", encoding="ascii") as file:
            file.write(f"{os.getpid()}\n")
