"""A daemon that is started before the command knows what it is to mount.

Importing pyfuse3 and trio takes some 0.2 s, and reading the command line with
argparse 0.1 s: one process does the first, another the second.  The daemon is a
child that inherits stderr until it serves, so its messages are the command's, and so
is its exit status.  Its orders come through a pipe; without orders it does not mount.
One byte through another pipe says "it serves": then the command ends with status 0
and the daemon lets go of the terminal.

Until the fork, this module imports nothing but what Python has loaded anyway.
"""

import gc
import marshal
import os
import signal
import sys
from collections.abc import Sequence

from unionfs.host import inherited

_FAILED = 1  # exit status

# Words with which the daemon does not go to the background.
_NO_DAEMON = frozenset({"-f", "--foreground", "-h", "--help"})


def is_likely(words: Sequence[str]) -> bool:
    """Tell, by a glance at the command line, whether a daemon will be needed.

    `commands` reads the line properly later; a daemon started in vain is dismissed.
    """
    if os.geteuid() != 0 or not _NO_DAEMON.isdisjoint(words):
        return False
    if words[:1] != ["mount"] and not _is_by_mount_fuse(words):
        return False
    return len(words) > 1 and not any("remount" in word.split(",") for word in words)


def _is_by_mount_fuse(words: Sequence[str]) -> bool:
    """Tell SOURCE MOUNTPOINT -o OPTIONS from our commands; there is no SOURCE with -t fuse.

    mount.fuse(8) says it in this order, and there are always options.
    """
    return words[2:3] == ["-o"] or (words[1:2] == ["-o"] and words[0].startswith("/"))


class Daemon:
    """The future daemon, seen from the command."""

    __slots__ = ("_orders", "_pid", "_ready")

    def __init__(self, pid: int, orders: int, ready: int) -> None:
        self._pid = pid
        self._orders = orders  # the pipe from which it reads what to mount
        self._ready = ready  # the pipe into which it writes a byte when it serves

    def mount(self, mountpoint: str, options: dict[str, object], verbosity: int) -> int:
        """Let it mount; return the exit status: 0 when it serves, else its own."""
        os.write(self._orders, marshal.dumps((mountpoint, options, verbosity)))
        os.close(self._orders)
        self._orders = -1
        try:
            if os.read(self._ready, 1):
                self._pid = 0  # it lives on
                return 0
        except KeyboardInterrupt:
            os.kill(self._pid, signal.SIGTERM)
        return self._status()

    def _status(self) -> int:
        _, status = os.waitpid(self._pid, 0)
        self._pid = 0
        code = os.waitstatus_to_exitcode(status)
        if code < 0:
            print(f"unionfs: the daemon died of {signal.Signals(-code).name}", file=sys.stderr)
        return code if code > 0 else _FAILED

    def dismiss(self) -> None:
        """End the daemon, unless it has its orders."""
        if self._pid and self._orders >= 0:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            self._pid = 0


def is_watched(words: Sequence[str]) -> bool:
    """Tell whether the command line asks for the daemon of `/`, which another process watches."""
    return any("boot=on" in word.removeprefix("-o").split(",") for word in words)


def start(*, watched: bool) -> Daemon:
    """Fork the daemon; it does not return from here but leaves by SystemExit."""
    inherited.await_children()
    orders, orders_end = os.pipe()
    ready, ready_end = os.pipe()
    child = os.fork()
    if not child:
        os.close(orders_end)
        os.close(ready)
        os.setsid()
        inherited.leave_caller()
        sys.exit((_watch if watched else _serve_when_told)(orders, ready_end))
    os.close(orders)
    os.close(ready_end)
    return Daemon(child, orders_end, ready)


def _watch(orders: int, ready: int) -> int:
    """Fork once more: the child is the daemon, and this process imports but little."""
    serving, serving_end = os.pipe()
    child = os.fork()
    if not child:
        os.close(serving)
        os.close(ready)
        from unionfs.mounting import survival  # noqa: PLC0415 - while the parent imports its part

        survival.use_small_pages()  # before the memory is taken
        return _serve_when_told(orders, serving_end)
    os.close(serving_end)
    os.close(orders)
    from unionfs.mounting import watcher  # noqa: PLC0415 - while the child imports its part

    return watcher.watch(child, serving, ready)


def _serve_when_told(orders: int, ready: int) -> int:
    gc.disable()  # importing makes little garbage and many objects: some 6 % of its time
    from unionfs.mounting import ordered  # noqa: PLC0415 - this is what takes its time

    gc.enable()
    with open(orders, "rb") as pipe:
        order = pipe.read()
    if not order:
        return _FAILED  # the command has gone
    mountpoint, options, verbosity = marshal.loads(order)  # noqa: S302 - our own words
    return ordered.serve(mountpoint, options, verbosity, ready)
