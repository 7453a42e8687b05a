"""Which mount is ours: found in /proc/self/mountinfo, never by touching it.

A stat(2) of the mount point would be a request to ourselves.  The mount may be
moved (mount --move) or hidden by another one on top of it, so it is known by
its device number, proc_pid_mountinfo(5).  That number, like a mount's id, is
used again for others as soon as the filesystem has gone; so it means something
only as long as the connection to the kernel lives.
"""

import os
from collections.abc import Iterator
from typing import NamedTuple

from unionfs.host import mountcalls


class Mount(NamedTuple):
    """One line of mountinfo."""

    device: tuple[int, int]
    point: bytes


def _mounts() -> Iterator[Mount]:
    with open("/proc/self/mountinfo", "rb") as lines:
        for line in lines:
            _number, _parent, device, _root, point, *_rest = line.split(b" ", 5)
            major, _, minor = device.partition(b":")
            yield Mount((int(major), int(minor)), _unescaped(point))


def _unescaped(field: bytes) -> bytes:
    """Undo the octal escapes of blank, tab, newline and backslash."""
    for char in b" \t\n\\":
        field = field.replace(b"\\%03o" % char, bytes([char]))
    return field


def on_top_of(path: str) -> Mount | None:
    """Return the mount that is on top at *path*, an absolute path without symbolic links."""
    point = os.fsencode(path)
    found = None
    for mount in _mounts():
        if mount.point == point:
            found = mount
    return found


def detach(device: tuple[int, int]) -> None:
    """Unmount the filesystem with this device number wherever it is on top, in use or not."""
    points = [mount.point for mount in _mounts() if mount.device == device]
    for point in map(os.fsdecode, reversed(points)):
        top = on_top_of(point)
        if top is not None and top.device == device:
            mountcalls.umount(point, mountcalls.MNT_DETACH)
