"""The mounts of a namespace, mostly this process's, as the kernel lists them.

/proc/self/mountinfo, proc_pid_mountinfo(5); blanks and the like are octal there.  Nothing here
touches a mount: a daemon that asks stat(2) about its own would wait for itself.
"""

import os
import re
from collections.abc import Iterator
from typing import NamedTuple

from unionfs.host import mountcalls


class MountInfo(NamedTuple):
    """One mount; strings are as os.fsdecode has them, later ones lie on top of earlier ones."""

    number: int
    device: str  # MAJOR:MINOR, as st_dev
    target: str
    kind: str  # file system type, with the subtype: fuse.unionfs
    source: str
    options: dict[str, str]  # of the file system, "" where an option has no value
    flags: frozenset[str] = frozenset()  # of this mount alone: ro, noatime, ...
    root: str = "/"  # which directory of the file system it shows


def mounts(pid: int | None = None) -> Iterator[MountInfo]:
    """Yield all mounts that this process, or *pid*, sees, in the order in which they were made."""
    with open(f"/proc/{pid or 'self'}/mountinfo", "rb") as lines:
        for line in lines:
            yield parse(os.fsdecode(line))


def parse(line: str) -> MountInfo:
    """Return the mount that one line of the file describes."""
    left, _, right = line.rstrip("\n").partition(" - ")
    number, _, device, root, target, flags, *_ = left.split(" ")
    kind, source, options = right.split(" ", 2)
    pairs = (option.partition("=") for option in options.split(","))
    return MountInfo(
        int(number),
        device,
        _unescape(target),
        kind,
        _unescape(source),
        {key: _unescape(value) for key, _, value in pairs},
        frozenset(flags.split(",")),
        _unescape(root),
    )


def top_at(target: str) -> MountInfo | None:
    """Return the mount that lies on top at *target*, or None where nothing is mounted.

    It is the last one in the list; mount numbers say nothing, as they are used again.
    """
    found = None
    for mount in mounts():
        if mount.target == target:
            found = mount
    return found


def detach(device: str) -> None:
    """Unmount the file system with this device number wherever it is on top, in use or not.

    Its mount may have been moved, or be hidden by another.  The file system must still be there:
    its number is used again for others.
    """
    for mount in reversed([mount for mount in mounts() if mount.device == device]):
        top = top_at(mount.target)
        if top is not None and top.device == device:
            mountcalls.umount(mount.target, mountcalls.MNT_DETACH)


def _unescape(text: str) -> str:
    """Undo the kernel's octal escapes; the bytes may be part of a longer sequence."""
    raw = re.sub(
        rb"\\([0-7]{3})",
        lambda match: bytes([int(match[1], 8)]),
        os.fsencode(text),
    )
    return os.fsdecode(raw)
