"""A root of one's own: what a command sees that runs over a union, and no one else.

The union is mounted in a mount namespace of its own, so no other process meets
it, and it is gone with the last process in there.  What the kernel provides
(/proc, /sys, /dev and /run) is bound in as it is.  Over the host's own root,
other file systems that are mounted below it (a separate /home, say) are bound
in read-only: the promise is that nothing below changes.  /tmp and /var/tmp
are the exception, they are the union's, since programs must write there.
"""

import logging
import os
import signal
import time
from collections.abc import Iterator
from typing import NamedTuple

from unionfs import mountcalls, mountinfo
from unionfs.options import Refused

log = logging.getLogger(__name__)

KERNEL_PLACES = ("/proc", "/sys", "/dev", "/run")
_OWN_PLACES = ("/tmp", "/var/tmp")  # noqa: S108 - names of mount points, nothing is made there

# Where the union is mounted, seen by no other process; any directory does.
_MOUNTPOINTS = ("/mnt", "/media", "/srv", "/opt", "/tmp", "/usr")  # noqa: S108 - as above

# Seconds that processes have to end after SIGTERM.
_GRACE = 1.0


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
    """Copy what shall be seen beside the union; before it hides any of that."""
    wanted = [(place, False) for place in KERNEL_PLACES if os.path.isdir(place)]
    if "/" in lowers:
        wanted += [(place, True) for place in _other_mounts()]
    bound = []
    for place, read_only in wanted:
        tree = _copied(place, read_only=read_only)
        if tree is not None:
            bound.append(Bound(place, tree))
    return bound


def _other_mounts() -> list[str]:
    """Return where other file systems are mounted, without those below another one."""
    tops: list[str] = []
    for target in sorted({mount.target for mount in mountinfo.mounts()} - {"/"}):
        if not any(_is_below(target, top) for top in (*KERNEL_PLACES, *_OWN_PLACES, *tops)):
            tops.append(target)
    return tops


def _is_below(path: str, other: str) -> bool:
    return path == other or path.startswith(other + "/")


def _copied(place: str, *, read_only: bool) -> int | None:
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
    except OSError:  # it has ended, or is a kernel thread
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
