"""`unionfs umount`: unmount a union, and return when its daemon is gone."""

import argparse
import contextlib
import errno
import os
import select
import sys
import time

from unionfs.host import mountcalls, mountinfo
from unionfs.mounting import live
from unionfs.mounting.options import Refused

_FAILED = 1  # exit status
_MOMENT = 0.2  # seconds between two looks for threads that are left
_SECONDS = 5  # after which a message says what is waited for
_TRIES, _PAUSE = (
    25,
    0.02,
)  # for a status, a df or an indexer to pass: how often, and seconds between


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("mountpoint", metavar="MOUNTPOINT", nargs="+", help="where it is mounted")
    parser.add_argument(
        "-l",
        "--lazy",
        action="store_true",
        help="take it out of the tree at once, though in use; the daemon ends after its last user",
    )
    parser.epilog = "umount(8) does as well, but returns while the daemon may still write to disk."


def run(arguments: argparse.Namespace) -> int:
    """Unmount all unions named; the exit status is that of the worst failure."""
    return max(_unmount(name, lazy=arguments.lazy) for name in arguments.mountpoint)


def _unmount(name: str, *, lazy: bool) -> int:
    mounted = live.find(name)
    with contextlib.ExitStack() as held:
        daemon = _descriptor_of(mounted.pid)
        if daemon is not None:
            held.callback(os.close, daemon)
        try:
            _umount(mounted.mountpoint, lazy=lazy)
        except OSError as exc:
            return _complain(name, exc)
        if daemon is not None and not lazy:
            _wait(daemon, name, mounted.pid)
    return 0


def _umount(mountpoint: str, *, lazy: bool) -> None:
    """Unmount; who uses it for a moment is waited for, as umount2(2) says EBUSY at once.

    What lies under it stays, also where somebody else has unmounted it meanwhile.
    """
    ours = mountinfo.top_at(mountpoint)
    for _ in range(_TRIES):
        try:
            return mountcalls.umount(mountpoint, mountcalls.MNT_DETACH if lazy else 0)
        except OSError as exc:
            if exc.errno != errno.EBUSY:
                raise
            busy = exc
        time.sleep(_PAUSE)
        top = mountinfo.top_at(mountpoint)
        if ours is not None and (top is None or top[:2] != ours[:2]):  # number and device
            return None
    raise busy


def _wait(daemon: int, name: str, pid: int | None) -> None:
    """Return when the daemon has ended."""
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline:
        if _has_ended(daemon, pid):
            return
    print(
        f"unionfs: '{name}' is unmounted here; its daemon (process {pid}) goes on until it is"
        " unmounted in all mount namespaces and all is on disk: waiting",
        file=sys.stderr,
    )
    while not _has_ended(daemon, pid):
        pass


def _has_ended(daemon: int, pid: int | None) -> bool:
    """Tell, within a moment, whether a daemon is gone: pidfd_open(2).

    A zombie with threads counts as gone, as it has done all its work.  The threads wait for the
    server of a far layer, and cannot be ended before (proc_pid_stat(5)).
    """
    if select.select([daemon], [], [], _MOMENT)[0]:
        return True
    with contextlib.suppress(OSError), open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()[0] == b"Z"
    return False


def _descriptor_of(pid: int | None) -> int | None:
    if pid is None:
        return None
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:  # it has ended already
        return None


def _complain(name: str, exc: OSError) -> int:
    if exc.errno == errno.EPERM:
        raise Refused(f"not permitted to unmount '{name}': only root can (try sudo)")
    hint = ""
    if exc.errno == errno.EBUSY:
        hint = f" (fuser -vm '{name}' shows by whom; -l unmounts it anyway)"
    print(f"unionfs: '{name}': {os.strerror(exc.errno or 0)}{hint}", file=sys.stderr)
    return _FAILED
