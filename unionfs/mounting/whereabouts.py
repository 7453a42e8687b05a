"""Where a layer of a live union is now, even if it was moved, or is seen from another place.

The daemon only knows the name that a layer had when it was opened.  The daemon's
descriptor leads to the directory through a copy of the mount that is in no mount
table.  So the directory is looked for by its device and inode: under the old name, as
the root of some mount, and by its file handle (open_by_handle_at(2)) in the mounts of
its file system, where the kernel tells its path.
"""

import contextlib
import ctypes
import os
from collections.abc import Iterator
from typing import NamedTuple

from unionfs.host import mountinfo

_AT_FDCWD = -100
_AT_SYMLINK_FOLLOW = 0x400
_MAX_HANDLE_SZ = 128  # bytes, linux/exportfs.h
_DELETED = " (deleted)"  # proc_pid_fd(5)

_libc = ctypes.CDLL(None, use_errno=True)


class Whereabouts(NamedTuple):
    """What is known of a directory's place."""

    path: str | None  # where this process finds it; None: nowhere
    deleted: bool


class _Handle(ctypes.Structure):
    """struct file_handle of open_by_handle_at(2)."""

    _fields_ = (
        ("bytes", ctypes.c_uint),
        ("type", ctypes.c_int),
        ("handle", ctypes.c_ubyte * _MAX_HANDLE_SZ),
    )


def find(link: str, name: str, root: str = "") -> Whereabouts:
    """Look for the directory that the magic link *link* leads to, once opened by *name*.

    *root* is another root directory below which the name is looked for, too.
    """
    if os.readlink(link).endswith(_DELETED):
        return Whereabouts(None, deleted=True)
    st = os.stat(link)
    if root and _is_at(root + name, st):
        return Whereabouts(name, deleted=False)
    places = (path for path in _places(link, name, st) if _is_at(path, st))
    return Whereabouts(next(places, None), deleted=False)


def _places(link: str, name: str, st: os.stat_result) -> Iterator[str]:
    if os.path.isabs(name):
        yield name
    device = f"{os.major(st.st_dev)}:{os.minor(st.st_dev)}"
    # A subvolume of btrfs has a device number that is in no mount table.
    near = [mount.target for mount in mountinfo.mounts() if mount.device == device]
    near += [mount.target for mount in mountinfo.mounts() if mount.kind == "btrfs"]
    yield from near
    handle = _handle_of(link)
    if handle is not None:
        for target in near:
            with contextlib.suppress(OSError):
                yield _path_of(handle, target)


def _is_at(path: str, st: os.stat_result) -> bool:
    with contextlib.suppress(OSError):
        return os.path.samestat(os.stat(path, follow_symlinks=False), st)
    return False


def _handle_of(link: str) -> _Handle | None:
    """Return the file handle; None where the file system has none."""
    handle = _Handle(bytes=_MAX_HANDLE_SZ)
    mount = ctypes.c_int()
    result = _libc.name_to_handle_at(
        _AT_FDCWD,
        os.fsencode(link),
        ctypes.byref(handle),
        ctypes.byref(mount),
        _AT_SYMLINK_FOLLOW,
    )
    return None if result < 0 else handle


def _path_of(handle: _Handle, target: str) -> str:
    """Return the path of the object with that handle as the mount at *target* has it."""
    mount = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        flags = os.O_PATH | os.O_CLOEXEC
        fd = _libc.open_by_handle_at(mount, ctypes.byref(handle), flags)
        if fd < 0:
            raise OSError(ctypes.get_errno(), "open_by_handle_at")
    finally:
        os.close(mount)
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)
