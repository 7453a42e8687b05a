"""What a process inherits from its caller, and what a daemon must not keep of it.

A union serves everybody, for as long as it lives; who mounted it must not matter.
Most of what fork(2) and execve(2) pass on is dealt with here; the session in
`background`, the working directory in `daemon`.  The scripts that `make install` makes
ignore PYTHON* variables.  Kept are cgroup, namespaces, processors, security labels,
capabilities and keyrings: each may be an administrator's restriction, or give access to
a layer.

In the foreground a daemon belongs to the caller that waits for it: `serve_everybody`
takes back only what would make it serve others wrongly.  A daemon that goes on alone
also leaves its caller: `leave_caller`.

Until a function is called, nothing is imported that Python has not loaded
anyway: this comes before all else (`cli`).
"""

import os
import signal
import sys
from collections.abc import Callable

# Limits of setrlimit(2) that would end or hinder a daemon.  NICE and RTPRIO only allow things.
_HINDRANCES = (
    "AS", "CPU", "DATA", "FSIZE", "MEMLOCK", "MSGQUEUE", "NPROC", "RSS", "RTTIME", "SIGPENDING",
    "STACK",
)  # fmt: skip

# Bytes of stack for a thread.  The C library takes the limit that it finds at the start, which may
# be too small for Python, or so large that a few threads fill the address space.
_THREAD_STACK = 1 << 20

# Python itself ignores these signals, so that it gets EPIPE and EFBIG.
_IGNORED_BY_PYTHON = frozenset({signal.SIGPIPE, signal.SIGXFSZ})

# ioprio_set(2) has no wrapper, and a number of its own on each machine.
_SYS_IOPRIO_SET = {"x86_64": 251, "aarch64": 30, "riscv64": 30, "ppc64le": 273, "s390x": 282}
_IOPRIO_WHO_PROCESS = 1

_NR_OPEN = "/proc/sys/fs/nr_open"
_OOM_SCORE_ADJ = "/proc/self/oom_score_adj"

Limits = dict[int, tuple[int, int]]  # RLIMIT_* -> soft, hard


def fill_descriptors() -> None:
    """Put /dev/null where descriptors 0 to 2 are closed, before a pipe of ours gets there.

    They close on exec: the command of `run` finds them closed, as its caller has them.
    """
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(fd)
        except OSError:
            _open_nothing()
            if fd:  # print(file=None) would write to stdout instead
                setattr(sys, name, open(fd, "w", closefd=False))  # noqa: SIM115


def leave_terminal() -> None:
    """Let go of the descriptors 0 to 2 that the command came with."""
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for fd in range(3):
        os.dup2(null, fd)
    os.close(null)


def _open_nothing() -> None:
    """Open what takes the lowest free descriptor, open(2), and nothing else."""
    try:
        os.open(os.devnull, os.O_RDWR)
    except OSError:  # no /dev here: reading and writing give EBADF, as when closed
        os.open("/", os.O_PATH)


def await_children() -> bool:
    """Let this process learn of its children's ends; say whether its caller ignored SIGCHLD.

    Where SIGCHLD is ignored, waitpid(2) finds no child and sigwaitinfo(2) waits for ever.
    """
    ignored = signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN
    if ignored:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    return ignored


class Belongings:
    """The settings that the command of `run` gets back; this process needs others meanwhile."""

    def __init__(self) -> None:
        self._ignores_children = await_children()
        self._limits = lift_limits()
        with open("/proc/self/environ", "rb") as file:  # as it was at the start
            self._has_ctype = b"\0LC_CTYPE=" in b"\0" + file.read()

    def give_back(self) -> None:
        """Restore everything for the execve(2) that comes next."""
        restore(self._limits)
        for number in _IGNORED_BY_PYTHON:  # who ignored them before is not known any more
            signal.signal(number, signal.SIG_DFL)
        if self._ignores_children:
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        if not self._has_ctype:
            os.environ.pop("LC_CTYPE", None)  # Python sets it in the C locale: PEP 538


# What a daemon does


def serve_everybody() -> None:
    """Take back what would make this process serve others wrongly, or not end when told to."""
    import _thread  # noqa: PLC0415 - see the module's docstring

    lift_limits()
    _thread.stack_size(_THREAD_STACK)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.umask(0)  # modes come with the requests
    _try(os.setgroups, [])  # a group of the caller's would keep set-gid bits that have to fall
    _try(os.setresgid, 0, 0, 0)
    _try(os.setresuid, 0, 0, 0)


def leave_caller() -> None:
    """Do as `serve_everybody`, and let go of all that is the caller's; ignore a hang-up."""
    serve_everybody()
    close_leaked()
    for number in signal.valid_signals() - _IGNORED_BY_PYTHON:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    _take_ordinary_turn()
    _try(_take_ordinary_risk)


def close_leaked() -> None:
    """Close descriptors above 2 that the caller left open: a pipe that others read, a lock.

    They came through execve(2), so they are not marked close-on-exec, and all of ours are.
    """
    for fd in map(int, os.listdir("/proc/self/fd")):
        if fd > 2:  # noqa: PLR2004 - stderr
            _try(_close_if_leaked, fd)


def _close_if_leaked(fd: int) -> None:
    if os.get_inheritable(fd):  # EBADF: the descriptor that has listed
        os.close(fd)


def lift_limits() -> Limits:
    """Lift the limits of this process as far as it may, and return what they were.

    The limit of core files becomes 0: a daemon's working directory is a layer, and must
    not get a core file.
    """
    import resource  # noqa: PLC0415 - see the module's docstring

    wanted = {getattr(resource, f"RLIMIT_{name}"): resource.RLIM_INFINITY for name in _HINDRANCES}
    before = {kind: resource.getrlimit(kind) for kind in wanted}
    before[resource.RLIMIT_CORE] = resource.getrlimit(resource.RLIMIT_CORE)
    before[resource.RLIMIT_NOFILE] = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted[resource.RLIMIT_NOFILE] = max(_most_descriptors(), before[resource.RLIMIT_NOFILE][1])
    for kind, most in wanted.items():
        hard = before[kind][1]
        if not _try(resource.setrlimit, kind, (most, most)):  # that takes CAP_SYS_RESOURCE
            _try(resource.setrlimit, kind, (hard, hard))
    _try(resource.setrlimit, resource.RLIMIT_CORE, (0, before[resource.RLIMIT_CORE][1]))
    return before


def restore(limits: Limits) -> None:
    """Set limits to what they were."""
    import resource  # noqa: PLC0415 - see the module's docstring

    for kind, pair in limits.items():
        _try(resource.setrlimit, kind, pair)


def _most_descriptors() -> int:
    """Return what RLIMIT_NOFILE may be at most, proc_sys_fs(5); 0 where that is not known."""
    try:
        with open(_NR_OPEN, encoding="ascii") as file:
            return int(file.read())
    except OSError:
        return 0


def _take_ordinary_turn() -> None:
    """Take an ordinary priority back, as callers may have a higher one; keep a raised one."""
    if os.getpriority(os.PRIO_PROCESS, 0) > 0:
        _try(os.setpriority, os.PRIO_PROCESS, 0, 0)
    if os.sched_getscheduler(0) in {os.SCHED_BATCH, os.SCHED_IDLE}:
        _try(os.sched_setscheduler, 0, os.SCHED_OTHER, os.sched_param(0))
    machine = os.uname().machine
    if machine in _SYS_IOPRIO_SET and sys.maxsize > 1 << 32:
        import ctypes  # noqa: PLC0415 - see the module's docstring

        ctypes.CDLL(None).syscall(_SYS_IOPRIO_SET[machine], _IOPRIO_WHO_PROCESS, 0, 0)


def _take_ordinary_risk() -> None:
    """Be no likelier to be killed for memory than others: proc_pid_oom_score_adj(5)."""
    with open(_OOM_SCORE_ADJ, "rb+", buffering=0) as file:
        if int(file.read()) > 0:
            file.write(b"0")


def _try(call: Callable[..., object], *arguments: object) -> bool:
    """Make a call that may be refused, in a container for example; the old state will do, too."""
    try:
        call(*arguments)
    except (OSError, ValueError):
        return False
    return True
