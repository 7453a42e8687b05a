"""Means to keep alive, and at work, a process on which the whole machine waits.

The daemon of a root file system must not be killed, swapped out or stopped for
long: all other processes then wait for it, even those that would wake it.

**Stopped by all.**  At a shutdown PID 1 sends SIGSTOP to everybody
(systemd-shutdown, sysvinit's killall5), and looks at files on `/` before it sends
SIGCONT: it would wait for ever.  SIGSTOP cannot be blocked, but a timer of the
process's own goes on in the kernel: `StayAwake` has timers that send SIGCONT,
and puts them off all the time, so that they fire only when it is stopped.  They are
not periodic: since Linux 6.13 a periodic timer whose signal is ignored fires
once, and then rests (kernel/time/posix-timers.c, `ignored_posix_timers`).
As they normally never fire, they interrupt no system call that would not restart.

**Killed by all.**  systemd spares processes of root whose argv[0] begins with
`@` (https://systemd.io/ROOT_STORAGE_DAEMONS).  `rename` writes that over the
words the process was started with: there the kernel reads /proc/PID/cmdline.
"""

import contextlib
import ctypes
import os
import signal
import threading
import time

from unionfs.host import inherited

# sysvinit's sendsigs spares the processes whose numbers stand in files here.
_SPARED = "/run/sendsigs.omit.d"

# prctl(2)
_PR_SET_NAME = 15
_PR_SET_THP_DISABLE = 41
# mlockall(2)
_MCL_CURRENT = 1
_MCL_FUTURE = 2
_MCL_ONFAULT = 4
# clock_gettime(2), sigevent(3type)
_CLOCK_MONOTONIC = 1
_SIGEV_SIGNAL = 0

# proc_pid_stat(5): fields counted from the one after the name, which may hold blanks.
_ARG_START, _ARG_END = 48 - 3, 49 - 3

# Seconds between two times that the timers are put off.
_PACE = 0.1
# Seconds after which they fire, each once: the later ones are for a process that is
# stopped again before it could put off the first.
_DELAYS = (0.3, 1.0, 3.0, 10.0, 30.0)

# PyDLL keeps the interpreter lock: these calls are shorter than letting go of it.
_libc = ctypes.PyDLL(None, use_errno=True)


class _SignalEvent(ctypes.Structure):
    """struct sigevent; what follows is padding to its 64 bytes, and some more."""

    _fields_ = (
        ("value", ctypes.c_void_p),
        ("signal", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("rest", ctypes.c_char * 64),
    )


class _TimerTimes(ctypes.Structure):
    """struct itimerspec: the interval, then the first expiry; seconds and nanoseconds."""

    _fields_ = (
        ("interval", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("first", ctypes.c_long),
        ("first_ns", ctypes.c_long),
    )


class StayAwake:
    """Sends this process SIGCONT soon after it was stopped.  To be made after the last fork."""

    def __init__(self) -> None:
        self._timers = [(_timer(signal.SIGCONT), _once(delay)) for delay in _DELAYS]
        self._put_off()
        threading.Thread(target=self._go_on, name="awake", daemon=True).start()

    def _put_off(self) -> None:
        for timer, times in self._timers:
            _libc.timer_settime(timer, 0, ctypes.byref(times), None)

    def _go_on(self) -> None:
        while True:
            time.sleep(_PACE)
            self._put_off()


def _timer(number: int) -> ctypes.c_void_p:
    timer = ctypes.c_void_p()
    event = _SignalEvent(None, number, _SIGEV_SIGNAL)
    if _libc.timer_create(_CLOCK_MONOTONIC, ctypes.byref(event), ctypes.byref(timer)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"timer_create: {os.strerror(code)}")
    return timer


def _once(seconds: float) -> _TimerTimes:
    return _TimerTimes(0, 0, int(seconds), int(seconds % 1 * 1e9))


def rename(title: str) -> None:
    """Call this process *title* in /proc/PID/cmdline, cut to the room that is there, and comm."""
    with open("/proc/self/stat", encoding="ascii", errors="replace") as file:
        fields = file.read().rpartition(")")[2].split()
    start, end = int(fields[_ARG_START]), int(fields[_ARG_END])
    name = os.fsencode(title)[: end - start - 1]
    ctypes.memmove(start, name.ljust(end - start, b"\0"), end - start)
    _libc.prctl(_PR_SET_NAME, os.fsencode(title.lstrip("@")), 0, 0, 0)


def spare_from_oom_killer() -> None:
    """Let others be killed when memory runs out: oom_score_adj, proc_pid_oom_score_adj(5)."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "wb", 0) as file:
        file.write(b"-1000")


def use_small_pages() -> None:
    """Use no huge pages from now on: touching one byte would lock a whole one.

    prctl(2), PR_SET_THP_DISABLE; children and threads inherit it from this process.
    """
    _libc.prctl(_PR_SET_THP_DISABLE, 1, 0, 0, 0)


def lock_memory() -> None:
    """Keep what this process has touched, and will touch, in memory: mlockall(2).

    Pages that it never touches take no room (MCL_ONFAULT, Linux 4.4).
    """
    _libc.mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT)


def settle(name: str) -> None:
    """Let go of the command that started this process, and survive all that follows."""
    inherited.leave_terminal()
    ignore(signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
    lock_memory()
    with contextlib.suppress(OSError):
        os.makedirs(_SPARED, exist_ok=True)
        with open(f"{_SPARED}/{name}", "w", encoding="ascii") as file:
            file.write(f"{os.getpid()}\n")


def ignore(*numbers: signal.Signals) -> None:
    """Ignore signals that would end this process."""
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)
