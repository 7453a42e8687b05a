"""Who is on trial: the union, or kernel overlayfs as the control.

A contender mounts an upper over a lower and yields while it is mounted.  The
union's daemon is forked from this process instead of started afresh, so that
its modules are loaded already: a mount takes tens of milliseconds, and a run
mounts hundreds of times.
"""

import contextlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from typing import NamedTuple

from .disks import run, unmount

_PATIENCE = 120  # seconds until a mount must serve, or a daemon must have ended


class Place(NamedTuple):
    """The directories of one union."""

    lower: str  # several are joined by colons, the top first
    upper: str
    work: str
    mountpoint: str


Contender = Callable[[Place, str], contextlib.AbstractContextManager[int]]


@contextlib.contextmanager
def overlay(place: Place, fsync: str = "auto") -> Iterator[int]:
    """Mount kernel overlayfs, with the features on that the union has."""
    options = (
        f"lowerdir={place.lower},upperdir={place.upper},workdir={place.work},"
        "metacopy=on,redirect_dir=on,index=on" + (",volatile" if fsync == "off" else "")
    )
    run("mount", "-t", "overlay", "-o", options, "overlay", place.mountpoint)
    try:
        yield 0
    finally:
        unmount(place.mountpoint)


def arguments(place: Place, fsync: str, *options: str) -> list[str]:
    """Return the command line that mounts *place* and stays in front."""
    lowers = [word for lower in place.lower.split(":") for word in ("--lower", lower)]
    return [
        "mount", "-f", "-o", ",".join((f"fsync={fsync}", *options)), *lowers,
        "--upper", place.upper, "--work", place.work, place.mountpoint,
    ]  # fmt: skip


def start(
    place: Place, fsync: str, *options: str, prepare: Callable[[], None] = lambda: None
) -> int:
    """Fork a daemon that mounts *place*, and return its process id once it serves.

    *prepare* runs in the daemon before the command does.
    """
    from unionfs import cli  # noqa: PLC0415 - overlay is on trial without it

    device = os.stat(place.mountpoint).st_dev
    pid = os.fork()
    if pid == 0:
        sys.argv = ["unionfs", *arguments(place, fsync, *options)]
        _become_daemon(lambda: (prepare(), cli.main())[1])
    end = time.monotonic() + _PATIENCE
    while os.stat(place.mountpoint).st_dev == device:
        if os.waitpid(pid, os.WNOHANG)[0] or time.monotonic() > end:
            raise OSError("the daemon ended or hangs before it served")
        time.sleep(0.002)
    return pid


def _become_daemon(main: Callable[[], int | None]) -> None:
    """Run *main* and end this process with its status: never return."""
    status = 70
    try:
        status = main() or 0
    except SystemExit as exc:
        status = exc.code if isinstance(exc.code, int) else 1
    except BaseException:  # noqa: BLE001 - it must not go on as the test run
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def wait(pid: int) -> int:
    """Return how the daemon *pid* ended, as `os.waitstatus_to_exitcode` says it."""
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    raise OSError(f"the daemon {pid} did not end within {_PATIENCE} s of its unmount")


@contextlib.contextmanager
def union(place: Place, fsync: str = "auto") -> Iterator[int]:
    """Mount the union; at the end its daemon must go with status 0."""
    yield from _served(place, start(place, fsync))


@contextlib.contextmanager
def blocks(place: Place, fsync: str = "auto") -> Iterator[int]:
    """Mount one that copies all but the smallest files by blocks."""
    yield from _served(place, start(place, fsync, "copyup=blocks", prepare=_copy_by_blocks))


def _copy_by_blocks() -> None:
    from tests import eager  # noqa: PLC0415 - as above

    eager.copy_by_blocks()


@contextlib.contextmanager
def fill(place: Place, fsync: str = "auto") -> Iterator[int]:
    """Mount one that also fills their rest at once when they are closed."""
    options = "copyup=blocks", "fill=on"
    yield from _served(place, start(place, fsync, *options, prepare=_fill_at_once))


def _fill_at_once() -> None:
    from tests import eager  # noqa: PLC0415 - as above

    eager.copy_by_blocks()
    eager.fill_at_once()


def _served(place: Place, pid: int) -> Iterator[int]:
    try:
        yield pid
    finally:
        unmount(place.mountpoint)
        status = wait(pid)
        if status != 0:
            raise OSError(f"the daemon ended with status {status}")


CONTENDERS: dict[str, Contender] = {
    "union": union,
    "overlay": overlay,
    "blocks": blocks,
    "fill": fill,
}
