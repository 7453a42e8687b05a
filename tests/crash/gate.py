"""The gate through which every system call of the core passes while it is armed.

The core makes its system calls as functions of `os` (and `syscalls.renameat2`,
`fcntl.ioctl`), so replacing those for the time of one operation counts, stops
or fails each of them without a change to the product.

A simulated crash raises `PowerOff`, which is no `Exception`, and from then on
every further call raises it too: clean-up code runs, but changes nothing, as
if the process were gone.
"""

import contextlib
import fcntl
import os
import stat
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from unionfs.host import syscalls
from unionfs.layers.iflags import FLAGS

CHANGING = (
    "mkdir", "mknod", "symlink", "link", "unlink", "remove", "rmdir", "rename", "replace",
    "chmod", "fchmod", "chown", "fchown", "lchown", "utime", "truncate", "ftruncate", "setxattr",
    "removexattr", "write", "pwrite", "pwritev", "writev", "copy_file_range", "sendfile",
    "posix_fallocate", "fsync", "fdatasync",
)  # fmt: skip
_READING = (
    "stat", "lstat", "readlink", "scandir", "listdir", "listxattr", "getxattr", "read", "pread",
    "preadv", "statvfs", "fstatvfs", "dup",
)  # fmt: skip
# The functions that remove what is of no use any more, and let it be where they cannot.
_TIDYING = ("discard", "leave", "remove_spent")
_UNNAMED = os.O_TMPFILE & ~os.O_DIRECTORY

Act = Callable[[Callable[[], Any]], Any]


def changes(name: str, arguments: tuple[Any, ...]) -> bool:
    """Tell whether a call changes a layer: not every open(2) does, and no reply to the kernel."""
    if name == "open":
        return bool(arguments[1] & (os.O_CREAT | os.O_TRUNC | _UNNAMED))
    if name == "write":
        return stat.S_ISREG(os.fstat(arguments[0]).st_mode)
    return name != "ioctl" or arguments[1] in {syscalls.FICLONE, FLAGS.write}


class PowerOff(BaseException):
    """The daemon is gone."""


class Call(NamedTuple):
    """One call that passed the gate."""

    name: str
    arguments: tuple[Any, ...]


class Gate:
    """Counts the calls of one operation, and does something at one of them."""

    def __init__(self, *, reading: bool = False) -> None:
        self.reading = reading  # count the calls that only read, too
        self.calls: list[Call] = []
        self.at = 0  # the call, counted from 1, at which `act` takes over; 0: none
        self.more = 0.0  # of the calls after that one at which it does so, too
        self.act: Act = lambda call: call()
        self.dead = False
        self.tidying = False  # was it in the removal of a temporary that `act` took over?

    @contextlib.contextmanager
    def armed(self) -> Iterator["Gate"]:
        """Let calls pass through this gate."""
        places = [(os, name) for name in ("open", *CHANGING)]
        places += [(syscalls, "renameat2"), (syscalls, "fallocate"), (fcntl, "ioctl")]
        if self.reading:
            places += [(os, name) for name in _READING]
        real = [(place, name, getattr(place, name)) for place, name in places]
        try:
            for place, name, function in real:
                setattr(place, name, self._guard(name, function))
            yield self
        finally:
            for place, name, function in real:
                setattr(place, name, function)

    def _guard(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def passing(*args, **kwargs):
            if not self.reading and not changes(name, args):
                return function(*args, **kwargs)
            if self.dead:
                raise PowerOff
            self.calls.append(Call(name, args))
            if self._is_now():
                self.tidying |= any(map(_called_by, _TIDYING))
                return self.act(lambda: function(*args, **kwargs))
            return function(*args, **kwargs)

        return passing

    def _is_now(self) -> bool:
        """Tell whether to act at the call that was counted last."""
        return self.at > 0 and 0 <= len(self.calls) - self.at <= self.more


def _called_by(function: str) -> bool:
    """Tell whether a function of this name is under way."""
    frame = sys._getframe(2)  # noqa: SLF001 - inspect.stack() would read source files
    while frame is not None and frame.f_code.co_name != function:
        frame = frame.f_back
    return frame is not None


def dying_before(at: int) -> Gate:
    """Return a gate at which the daemon dies before its call number *at*."""
    gate = Gate()

    def die(_call: Callable[[], Any]) -> None:
        gate.dead = True
        raise PowerOff

    gate.at, gate.act = at, die
    return gate


def dying_after(at: int) -> Gate:
    """Return a gate at which the daemon dies after its call number *at*."""
    gate = Gate()

    def die(call: Callable[[], Any]) -> None:
        try:
            call()
        finally:
            gate.dead = True
        raise PowerOff

    gate.at, gate.act = at, die
    return gate


def failing(at: int, number: int, *, more: float = 0) -> Gate:
    """Return a gate at which call number *at*, of all, fails with errno *number*.

    The next *more* calls do so, too.
    """
    gate = Gate(reading=True)
    gate.more = more

    def fail(_call: Callable[[], Any]) -> None:
        raise OSError(number, os.strerror(number))

    gate.at, gate.act = at, fail
    return gate
