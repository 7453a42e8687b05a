"""The lower directory of a live union, made writable for a time: for `commit` and `maintain`.

A union never writes to a lower.  These two commands do, because their user asks for
it, and in a way of their own: in a mount namespace that nobody else sees, the lower
is mounted once more, writable.  If its file system is read-only, as that of a protected
root is, the file system is made writable for the time.  The read-only mounts of others
(`/ro`) stay as they are, so only the two commands can write.  Afterwards the file
system is read-only again, whatever happened.
"""

import contextlib
import errno
import os
import subprocess
import sys
import time
from collections.abc import Iterator

from unionfs.commands import privateroot
from unionfs.fuse.rootattributes import BEGIN, END, MAINTAINED
from unionfs.host import mountcalls, mountinfo
from unionfs.mounting import live, places
from unionfs.mounting.options import Refused
from unionfs.mounting.places import Place

# Where a machine that booted on a union shows its true root.
_BOOTED = "/ro"

# Seconds for which a remount may find somebody still writing.
_PATIENCE = 5.0


def find(mounted: live.LiveMount) -> Place:
    """Return the only lower of a union, by a path at which this process sees it."""
    if mounted.status is None:
        raise Refused(f"the daemon of '{mounted.mountpoint}' is dead: unmount it")
    lowers = mounted.status["layers"]["lowers"]
    if len(lowers) != 1:
        raise Refused(
            f"'{mounted.mountpoint}' has {len(lowers)} lower layers: changes can be carried into"
            " a single one only"
        )
    try:
        wanted = os.stat(f"/proc/{mounted.pid}/fd/{lowers[0]['fd']}")
    except OSError as exc:  # its server is gone
        raise Refused(f"lower '{lowers[0]['name']}' cannot be read: {exc.strerror}") from None
    for name in (lowers[0]["name"], _BOOTED):
        if os.path.isdir(name) and os.path.samestat(os.stat(name), wanted):
            return places.find("lower", name)
    raise Refused(
        f"lower '{lowers[0]['name']}' is not visible at that place: mount it there, or at {_BOOTED}"
    )


@contextlib.contextmanager
def writable(lower: Place, union: str) -> Iterator[str]:
    """Keep *lower* mounted writable, and yield where; this process gets a mount namespace for that.

    Mounts below the lower are left out.  Raises Refused where the lower cannot be
    written to, and OSError where it cannot be made read-only again.  The daemon of the
    mount *union* is told.
    """
    mountcalls.unshare_mounts()
    at = privateroot.mountpoint()
    try:
        _mount_once_more(lower, at)
    except OSError as exc:
        raise Refused(f"{lower.label} cannot be mounted once more: {exc.strerror}") from None
    read_only = bool(os.statvfs(at).f_flag & os.ST_RDONLY)
    _begin(union)
    if read_only:
        _remount(at, "rw", lower)
    try:
        yield at
    finally:
        _tell(union, END)
        if read_only:
            _make_read_only(at, lower)


def _begin(union: str) -> None:
    try:
        os.setxattr(union, MAINTAINED, BEGIN)
    except OSError as exc:
        if exc.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise Refused(
                f"'{union}' has no room in its upper for the rest of the files that are there in"
                " part, and must be whole before the lower changes: remove some, or reboot"
            ) from None
        _say_untold(union, exc)


def _tell(union: str, turn: bytes) -> None:
    """Tell a daemon that its lower is going to be changed, or has been."""
    try:
        os.setxattr(union, MAINTAINED, turn)
    except OSError as exc:  # the daemon may have died; the lower must be read-only all the same
        _say_untold(union, exc)


def _say_untold(union: str, error: OSError) -> None:
    print(f"unionfs: '{union}' was not told: {error.strerror}", file=sys.stderr)


def _mount_once_more(lower: Place, at: str) -> None:
    fd = os.open(lower.name, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)  # in this namespace
    try:
        if not os.path.sameopenfile(fd, lower.fd):
            raise OSError(errno.ESTALE, "it was moved")
        tree = mountcalls.clone_tree(fd)
    finally:
        os.close(fd)
    try:
        mountcalls.set_attributes(tree, remove=mountcalls.MOUNT_ATTR_RDONLY)
        mountcalls.attach_tree(tree, at)
    finally:
        os.close(tree)


def is_read_only(lower: Place) -> bool:
    """Tell whether the file system of *lower*, not only a mount of it, is read-only."""
    device = f"{os.major(lower.chain[0][0])}:{os.minor(lower.chain[0][0])}"
    return any("ro" in mount.options for mount in mountinfo.mounts() if mount.device == device)


def protect(lower: Place, union: str) -> None:
    """Make the file system of *lower* read-only, as the process that should do so was killed."""
    _tell(union, END)
    _make_read_only(lower.name, lower)


def _make_read_only(at: str, lower: Place) -> None:
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            _remount(at, "ro", lower)
        except Refused as exc:
            if time.monotonic() > deadline:
                raise OSError(f"{lower.label} is STILL WRITABLE: {exc}") from None
            time.sleep(0.1)
        else:
            return


def _remount(at: str, how: str, lower: Place) -> None:
    """Remount the file system; mount(8) knows the options that it has and must keep."""
    done = subprocess.run(
        ["mount", "-n", "-o", f"remount,{how}", at],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise Refused(f"{lower.label} cannot be remounted {how}: {done.stderr.strip()}")
