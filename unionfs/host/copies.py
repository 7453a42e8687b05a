"""Directories opened in detached copies of their mounts.

A detached copy is what kernel overlayfs makes of each of its layers
(fs/overlayfs/super.c, `clone_private_mount`): a mount that is in no namespace,
with attributes of its own, into which later mounts of the host do not
propagate.  It lives as long as a file in it is open.  Linux 5.12 has all the
calls that this takes; older kernels answer `UNAVAILABLE`.

No symlink is followed in a copy (`descent`), and no device opened: changes of a layer
beside the mount cannot lead the daemon elsewhere.
"""

import contextlib
import errno
import os
from collections.abc import Iterator

from unionfs.host import mountcalls

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC

# An older kernel; a mount that may not be copied (mount_namespaces(7), "unbindable").
UNAVAILABLE = frozenset({errno.ENOSYS, errno.EINVAL, errno.EPERM})


@contextlib.contextmanager
def copy_of(fd: int, attributes: int = 0) -> Iterator[int]:
    """Hold a copy of the mount of *fd* open, an O_PATH descriptor of its root, the directory *fd*.

    After that, whatever is open below it keeps the copy alive.
    """
    tree = mountcalls.clone_tree(fd)
    try:
        guard(tree, attributes)
        yield tree
    finally:
        os.close(tree)


def guard(tree: int, attributes: int = 0) -> None:
    """Set *attributes* of a detached mount, and those that keep paths and opens inside it."""
    attributes |= mountcalls.MOUNT_ATTR_NODEV
    try:
        mountcalls.set_attributes(tree, add=attributes | mountcalls.MOUNT_ATTR_NOSYMFOLLOW)
    except OSError as exc:
        if exc.errno != errno.EINVAL:
            raise
        mountcalls.set_attributes(tree, add=attributes)  # before Linux 5.14


def open_read_only(fd: int) -> int:
    """Open the directory *fd* in a copy that the kernel keeps from being written to."""
    attributes = mountcalls.MOUNT_ATTR_RDONLY | mountcalls.MOUNT_ATTR_NOATIME
    with copy_of(fd, attributes) as tree:
        return os.open(".", DIRECTORY, dir_fd=tree)


def open_siblings(above: str, paths: tuple[str, ...]) -> tuple[int, list[int]]:
    """Open *paths*, relative to the directory *above*, in one copy of the mount that holds them.

    One copy, because rename(2) does not cross mounts; no path has a symlink in it.  Return the
    copy's descriptor as well: only through it, while it is open, can the copy's attributes change.
    """
    fd = os.open(above, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with copy_of(fd) as tree, contextlib.ExitStack() as undo:
            fds: list[int] = []
            for path in paths:
                fds.append(os.open(path, DIRECTORY | os.O_NOFOLLOW, dir_fd=tree))
                undo.callback(os.close, fds[-1])
            copy = os.dup(tree)
            undo.pop_all()
            return copy, fds
    finally:
        os.close(fd)
