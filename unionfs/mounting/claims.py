"""Exclusive use of a writable layer: flock(2) on upper and work, from opening to unmounting.

umount(8) returns while the daemon is still ending: its connection to the kernel is cut,
nobody can ask it for anything, but it holds the lock for a moment.  The next mount of the
same upper waits for the lock (`claim`).  If the union still serves, the mount is refused
at once.  The lock's owner is found in proc_locks(5).  The kernel tells whether the owner
serves, by a copy of its descriptor of /dev/fuse (pidfd_getfd(2)): the mount may be in
another namespace, and a daemon that is stopped answers nobody.

The lock is released before upper's file system is synced (`release`): from then on the old
daemon changes nothing, and the kernel has what it has written as much as its successor's.
"""

import contextlib
import ctypes
import fcntl
import logging
import os
import select
import time
from collections.abc import Iterator

from unionfs.host import mountinfo
from unionfs.layers.layer import WritableLayer
from unionfs.mounting.options import Refused
from unionfs.mounting.places import Place

log = logging.getLogger(__name__)

# Seconds to wait for a daemon that is cut off, or has died and left the lock to its children.
# Its last reads may have to wait for a slow disk.
_PATIENCE = 60.0
# Seconds to wait for an owner without a connection: it is about to mount, or has all but ended.
_MOMENT = 5.0
# Seconds after which a message says what is waited for, and seconds between two tries.
_SILENCE = 1.0
_PAUSE = 0.02

_SYS_PIDFD_GETFD = 438  # asm-generic/unistd.h, Linux 5.6

_libc = ctypes.CDLL(None, use_errno=True)


def claim(fd: int, place: Place) -> None:
    """Lock a writable layer against other unions, as long as *fd* is open; wait as said above."""
    start, told = time.monotonic(), False
    while not _locked(fd):
        owner = _owner(place)
        waited = time.monotonic() - start
        if waited >= _patience_with(owner):
            if _locked(fd):  # by now: the owner was looked for a moment later
                return
            raise Refused(
                f"{place.label} is in use by another union{_process(owner)}:"
                " unmount that first, or choose another directory"
            )
        if waited > _SILENCE and not told:
            log.warning("%s: waiting for the end of its last union%s", place.label, _process(owner))
            told = True
        time.sleep(_PAUSE)


def release(*layers: WritableLayer | None) -> None:
    """Let other daemons claim these layers, though they are still open here."""
    for layer in filter(None, layers):
        fcntl.flock(layer.fd, fcntl.LOCK_UN)


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _process(owner: int | None) -> str:
    return "" if owner is None else f" (process {owner})"


def _owner(place: Place) -> int | None:
    """Return the process that took the lock, as far as /proc/locks tells: proc_locks(5)."""
    wanted = f"{_device(place)}:{place.chain[0][1]}"
    with contextlib.suppress(OSError), open("/proc/locks", encoding="ascii") as lines:
        for fields in map(str.split, lines):
            if fields[1] == "FLOCK" and fields[5] == wanted:
                return int(fields[4])
    return None


def _device(place: Place) -> str:
    """Return the file system's number as /proc/locks has it: hexadecimal, MAJOR:MINOR.

    A subvolume of btrfs has another st_dev.  The mount table has the number that locks have.
    """
    device = place.chain[0][0]
    major, minor = os.major(device), os.minor(device)
    with open(f"/proc/self/fdinfo/{place.fd}", encoding="ascii") as lines:
        mount = dict(line.split(":", 1) for line in lines).get("mnt_id", "").strip()
    for found in mountinfo.mounts():
        if str(found.number) == mount:
            major, minor = map(int, found.device.split(":"))
    return f"{major:02x}:{minor:02x}"


def _patience_with(owner: int | None) -> float:
    """Return how many seconds to wait for *owner* in all."""
    if owner is None:  # in another pid namespace
        return 0
    if not os.path.exists(f"/proc/{owner}"):
        return _PATIENCE
    try:
        connections = [connected for pid in _family(owner) for connected in _connections_of(pid)]
    except OSError:  # not permitted to look, or an old kernel
        return 0
    if not connections:
        return _MOMENT
    return 0 if any(connections) else _PATIENCE


def _family(pid: int) -> list[int]:
    """Return a process and its children: a child of `run` serves the union."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{pid}/children", "rb") as file:
        return [pid, *map(int, file.read().split())]
    return [pid]


def _connections_of(pid: int) -> Iterator[bool]:
    """Tell of each FUSE connection of a process whether the mount is still there."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        for fd in _devices_of(pid):
            yield _is_connected(process, fd)
    finally:
        os.close(process)


def _devices_of(pid: int) -> Iterator[int]:
    directory = f"/proc/{pid}/fd"
    with contextlib.suppress(FileNotFoundError):  # it has ended
        for name in os.listdir(directory):
            with contextlib.suppress(FileNotFoundError):
                if os.readlink(f"{directory}/{name}") == "/dev/fuse":
                    yield int(name)


def _is_connected(process: int, fd: int) -> bool:
    """Tell whether another process's descriptor of /dev/fuse has a mount: fuse_dev_poll."""
    copy = _libc.syscall(
        ctypes.c_long(_SYS_PIDFD_GETFD), ctypes.c_int(process), ctypes.c_int(fd), ctypes.c_uint(0)
    )
    if copy < 0:
        raise OSError(ctypes.get_errno(), "pidfd_getfd")
    try:
        poll = select.poll()
        poll.register(copy, 0)
        return not poll.poll(0)
    finally:
        os.close(copy)
