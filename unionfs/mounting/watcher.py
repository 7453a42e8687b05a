"""The process that sees the daemon of `/` die, says so, and brings the machine back.

Without its daemon every access to `/` gives ENOTCONN: nothing can be started
any more, not even reboot(8).  So this process has all it needs in memory and
open: the console, the kernel's log and /proc/sysrq-trigger.

The daemon has died if PID 1 still sees its mount when the daemon ends.  If a boot
script gave up and unmounted it, all is well.

This process is forked before the daemon's modules are imported, so that it locks
little memory.  If the connection is ever to be kept across the daemon's death, that
belongs here.
"""

import contextlib
import ctypes
import os
import signal
import threading
import time
from typing import Literal, cast

from unionfs.mounting import survival

Dead = Literal["reboot", "panic", "halt", "nothing"]

_FAILED = 1  # exit status

# reboot(2)
_RESTART = 0x01234567
_HALT = 0xCDEF0123

# include/linux/proc_ns.h, PROC_PID_INIT_INO: the machine's own PID namespace
_FIRST_PID_NAMESPACE = 0xEFFFFFFC

# Seconds that a disk may take for the data that is not written yet.
_SYNC_SECONDS = 10.0
# Seconds that the kernel may take to make its file systems read-only, in the background.
_READ_ONLY_SECONDS = 1.0

_libc = ctypes.CDLL(None, use_errno=True)


def status_of(child: int) -> int:
    """Wait for *child*, and return its exit status, as a shell has it."""
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def watch(child: int, serving: int, ready: int) -> int:
    """Watch the daemon *child*, and return its exit status if its mount is gone.

    The daemon tells through *serving* when it serves, and that is passed on to *ready*.
    """
    survival.use_small_pages()
    survival.spare_from_oom_killer()
    with open(serving, "rb") as pipe:
        device, _, dead = pipe.read().decode().partition(" ")  # no `dead`: it serves no root
    if not device:  # the daemon ended before it served
        return status_of(child)
    survival.rename("@unionfs-watch")
    watcher = Watcher(child, device, cast("Dead", dead or "nothing"))
    os.write(ready, b"1")
    os.close(ready)
    survival.settle("unionfs-watch")
    survival.ignore(signal.SIGTERM, signal.SIGINT)  # to the child they mean: unmount; in vain
    return watcher.wait()


class Watcher:
    """Waits for the end of the daemon *child*, which has mounted *device* (MAJOR:MINOR)."""

    def __init__(self, child: int, device: str, dead: Dead) -> None:
        self._child = child
        self._device = device
        self._dead = dead
        self._mounts = _opened("/proc/1/mountinfo", os.O_RDONLY)
        self._voices = [
            _opened(path, os.O_WRONLY | os.O_APPEND) for path in ("/dev/console", "/dev/kmsg")
        ]
        self._sysrq = _opened("/proc/sysrq-trigger", os.O_WRONLY)
        self._panic = _opened("/proc/sys/kernel/panic", os.O_RDWR)
        self._is_machine = os.stat("/proc/self/ns/pid").st_ino == _FIRST_PID_NAMESPACE

    def wait(self) -> int:
        """Wait; return the daemon's exit status where the machine can live without it."""
        status = status_of(self._child)
        if not self._is_mounted():
            return status
        how = f"killed by {_signal(status - 128)}" if status > 128 else f"exit status {status}"  # noqa: PLR2004
        self._say(f"the daemon of / died ({how}): {_CONSEQUENCE[self._dead]}")
        if self._dead != "nothing":
            self._survive_panic()
            self._save()
            self._end()
        return status

    def _is_mounted(self) -> bool:
        with contextlib.suppress(OSError):
            os.lseek(self._mounts, 0, os.SEEK_SET)
            with open(self._mounts, "rb", closefd=False) as lines:
                return any(line.split()[2] == self._device.encode() for line in lines)
        return True

    def _say(self, text: str) -> None:
        lines = (f"\r\nunionfs: {text}\r\n", f"<26>unionfs: {text}")  # 26: LOG_DAEMON, LOG_CRIT
        for fd, line in zip(self._voices, lines, strict=True):
            with contextlib.suppress(OSError):
                os.write(fd, line.encode())

    def _survive_panic(self) -> None:
        """Let the machine restart if PID 1 ends meanwhile, for want of a page of its program.

        kernel.panic, sysctl/kernel.rst: seconds until then; 0, never, is the default.
        """
        if not self._is_machine or self._dead != "reboot":
            return
        with contextlib.suppress(OSError):
            if os.read(self._panic, 8).strip() == b"0":
                os.write(self._panic, b"1")

    def _save(self) -> None:
        """Sync what is not written yet, as far as possible."""
        thread = threading.Thread(target=os.sync, daemon=True)
        thread.start()
        thread.join(_SYNC_SECONDS)
        if self._ask_kernel(b"u"):
            time.sleep(_READ_ONLY_SECONDS)

    def _end(self) -> None:
        if self._dead == "panic":
            self._ask_kernel(b"c")
        command = _HALT if self._dead == "halt" else _RESTART
        _libc.reboot(ctypes.c_int(command - (1 << 32) if command >> 31 else command))

    def _ask_kernel(self, key: bytes) -> bool:
        """Press a sysrq key, unless in a PID namespace; say whether that was done."""
        if not self._is_machine:
            return False
        with contextlib.suppress(OSError):
            return os.write(self._sysrq, key) == 1
        return False


_CONSEQUENCE: dict[Dead, str] = {
    "reboot": "the machine restarts",
    "panic": "the kernel panics, as unionfs.dead=panic has it",
    "halt": "the machine halts, as unionfs.dead=halt has it",
    "nothing": "nothing is done, as unionfs.dead=nothing has it",
}


def _opened(path: str, flags: int) -> int:
    """Open *path*; -1 where that fails: steps that need it are then left out."""
    try:
        return os.open(path, flags | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError:
        return -1


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
