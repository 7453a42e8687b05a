"""A private root: only the command that runs over the union sees it.

The union is mounted in a mount namespace of its own, so no other process meets
it, and it is gone with the last process in there.  The kernel's file systems (/proc,
/sys, /dev and /run) are bound in as they are.  Over the host's own root, other file
systems that are mounted below it (a separate /home, for example) are bound in
read-only: the promise is that nothing below changes.  /tmp and /var/tmp are the
exception: they belong to the union, since programs must write there.
"""

import logging
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple, NoReturn

from unionfs.host import mountcalls, mountinfo
from unionfs.mounting.options import Refused

log = logging.getLogger(__name__)

KERNEL_PLACES = ("/proc", "/sys", "/dev", "/run")
_OWN_PLACES = ("/tmp", "/var/tmp")  # noqa: S108 - names of mount points, nothing is made there

# Where the union is mounted, seen by no other process; any directory does.
_MOUNTPOINTS = ("/mnt", "/media", "/srv", "/opt", "/tmp", "/usr")  # noqa: S108 - as above

# Seconds that processes may take to end after SIGTERM.
_GRACE = 1.0


_NOT_EXECUTABLE = 126  # exit statuses, as sh(1) has them
_NOT_FOUND = 127


class Bound(NamedTuple):
    """A mount of the host to be shown in the union's root."""

    target: str
    tree: int  # descriptor of a detached copy


def mountpoint() -> str:
    """Return a directory to mount the union on, in a namespace of its own."""
    for path in _MOUNTPOINTS:
        if os.path.isdir(path):
            return os.path.realpath(path)
    raise Refused(f"none of the directories {', '.join(_MOUNTPOINTS)} exists: make one")


def copies_of_host_mounts(lowers: tuple[str, ...]) -> list[Bound]:
    """Copy the mounts to be seen beside the union, before the union hides them."""
    others = _other_mounts() if "/" in lowers else []
    return [*copies_of_kernel_places(), *_all_copied(others, read_only=True)]


def copies_of_kernel_places() -> list[Bound]:
    """Copy the mounts that the kernel and the running system provide."""
    return list(_all_copied(filter(os.path.isdir, KERNEL_PLACES), read_only=False))


def _all_copied(places: Iterable[str], *, read_only: bool) -> Iterator[Bound]:
    for place in places:
        tree = copied(place, read_only=read_only)
        if tree is not None:
            yield Bound(place, tree)


def _other_mounts() -> list[str]:
    """Return the mount points of other file systems, without those below another one."""
    tops: list[str] = []
    for target in sorted({mount.target for mount in mountinfo.mounts()} - {"/"}):
        if not any(_is_below(target, top) for top in (*KERNEL_PLACES, *_OWN_PLACES, *tops)):
            tops.append(target)
    return tops


def _is_below(path: str, other: str) -> bool:
    return path == other or path.startswith(other + "/")


def copied(place: str, *, read_only: bool) -> int | None:
    """Return a detached copy of the mounts at *place*; None, logged, where impossible."""
    attributes = mountcalls.MOUNT_ATTR_RDONLY if read_only else 0
    try:
        fd = os.open(place, os.O_PATH | os.O_CLOEXEC)
        try:
            tree = mountcalls.clone_tree(fd, recursive=True)
        finally:
            os.close(fd)
        mountcalls.set_attributes(tree, add=attributes, recursive=True)
    except OSError as exc:
        log.warning("'%s' is not shown in the union: %s", place, exc.strerror)
        return None
    if read_only:
        log.info("'%s' is another file system: shown read-only", place)
    return tree


def enter(root: str, bound: list[Bound], directory: str) -> None:
    """Make *root* this process's root, with *bound* in place, and go to *directory* in it."""
    os.chroot(root)
    os.chdir("/")
    for target, tree in bound:
        _attach(tree, target)
    try:
        os.chdir(directory)
    except OSError as exc:
        log.info("working directory '%s': %s; starting in /", directory, exc.strerror)


def become(command: list[str]) -> NoReturn:
    """Run *command* in place of this process; 126 or 127, as sh(1) has them, where it cannot be."""
    status = _NOT_EXECUTABLE
    try:
        for ignored_by_python in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(ignored_by_python, signal.SIG_DFL)
        os.execvp(command[0], command)  # noqa: S606 - a shell is not wanted
    except OSError as exc:
        if isinstance(exc, (FileNotFoundError, NotADirectoryError)):
            status = _NOT_FOUND
        print(f"unionfs: cannot run '{command[0]}': {exc.strerror}", file=sys.stderr)
    finally:
        sys.stderr.flush()
        os._exit(status)


def _attach(tree: int, target: str) -> None:
    try:
        mountcalls.attach_tree(tree, target)
    except OSError as exc:
        log.warning("'%s' is not shown in the union: %s", target, exc.strerror)
    finally:
        os.close(tree)


# The processes that live in the namespace


def end_others(*spared: int) -> None:
    """End all other processes in this process's mount namespace but those *spared*."""
    for number, patience in ((signal.SIGTERM, _GRACE), (signal.SIGKILL, _GRACE)):
        deadline = time.monotonic() + patience
        for pid in _others(spared):
            _send(pid, number)
            _send(pid, signal.SIGCONT)  # a stopped process would not see SIGTERM
        while any(_others(spared)):
            if time.monotonic() > deadline:
                break
            time.sleep(0.01)
        else:
            return


def _others(spared: tuple[int, ...]) -> Iterator[int]:
    own = _namespace("self")
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) in (*spared, os.getpid()):
            continue
        if _namespace(name) == own and not _is_zombie(name):
            yield int(name)


def _namespace(pid: str) -> str | None:
    try:
        return os.readlink(f"/proc/{pid}/ns/mnt")
    except OSError:  # the process has ended, or is a kernel thread
        return None


def _is_zombie(pid: str) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b") ")[2][:1] == b"Z"
    except OSError:
        return True


def _send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        log.debug("process %d has ended", pid)
