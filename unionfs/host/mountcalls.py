"""System calls that make, change and remove mounts, through ctypes.

glibc has wrappers for the new ones only since 2.36, so those go through
syscall(2); their numbers are the same on every architecture but alpha
(asm-generic/unistd.h, Linux 5.2 and later).  Errors are `OSError` with the
errno of the call; ENOSYS says that the kernel is too old.
"""

import ctypes
import os

# mount(2), include/uapi/linux/mount.h
MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_SYNCHRONOUS = 16
MS_REMOUNT = 32
MS_DIRSYNC = 128
MS_NOATIME = 1024
MS_NODIRATIME = 2048
MS_BIND = 4096
MS_REC = 16384
MS_SILENT = 1 << 15
MS_PRIVATE = 1 << 18
MS_RELATIME = 1 << 21
MS_STRICTATIME = 1 << 24
MS_LAZYTIME = 1 << 25

# umount2(2)
MNT_DETACH = 2

# mount_setattr(2)
MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_NOSYMFOLLOW = 0x200000  # Linux 5.14
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR_NODIRATIME = 0x80
_MOUNT_ATTR__ATIME = 0x70
MOUNT_ATTR_ALL_OF_ATIME = _MOUNT_ATTR__ATIME | MOUNT_ATTR_NODIRATIME

# unshare(2), setns(2)
CLONE_NEWNS = 0x20000

_SYS_OPEN_TREE = 428
_SYS_MOVE_MOUNT = 429
_SYS_FSOPEN = 430
_SYS_FSCONFIG = 431
_SYS_FSMOUNT = 432
_SYS_MOUNT_SETATTR = 442

_AT_FDCWD = -100
_AT_EMPTY_PATH = 0x1000
_AT_RECURSIVE = 0x8000
_OPEN_TREE_CLONE = 1
_MOVE_MOUNT_F_EMPTY_PATH = 4
_CLOEXEC = 1  # FSOPEN_CLOEXEC, FSMOUNT_CLOEXEC
_FSCONFIG_SET_STRING = 1
_FSCONFIG_CMD_CREATE = 6

_PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None, use_errno=True)


class _MountAttributes(ctypes.Structure):
    """struct mount_attr of mount_setattr(2)."""

    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def _syscall(what: str, number: int, *arguments: object) -> int:
    """Make a system call; ints are passed as longs, as syscall(2) is variadic."""
    passed = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    return _checked(_libc.syscall(ctypes.c_long(number), *passed), what)


def clone_tree(fd: int, *, recursive: bool = False) -> int:
    """Return an O_PATH descriptor of a detached copy of the mount that holds the directory *fd*.

    The directory is the copy's root.  open_tree(2) with OPEN_TREE_CLONE, Linux
    5.2.  The copy lives until it is attached and unmounted again, or until the
    last descriptor in it is closed.
    """
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | _AT_EMPTY_PATH | (_AT_RECURSIVE if recursive else 0)
    return _syscall("open_tree", _SYS_OPEN_TREE, fd, b"", flags)


def set_attributes(
    fd: int, *, add: int = 0, remove: int = 0, private: bool = True, recursive: bool = False
) -> None:
    """Change a detached mount: add and remove MOUNT_ATTR_* bits, stop propagation.

    mount_setattr(2), Linux 5.12.  Without propagation no later mount of the
    host shows up in the copy.
    """
    clear = remove | (_MOUNT_ATTR__ATIME if add & _MOUNT_ATTR__ATIME else 0)
    wanted = _MountAttributes(add, clear, MS_PRIVATE if private else 0, 0)
    flags = _AT_EMPTY_PATH | (_AT_RECURSIVE if recursive else 0)
    size = ctypes.sizeof(wanted)
    _syscall("mount_setattr", _SYS_MOUNT_SETATTR, fd, b"", flags, ctypes.byref(wanted), size)


def attach_tree(fd: int, target: str) -> None:
    """Mount the detached tree *fd* at *target*: move_mount(2), Linux 5.2."""
    _syscall(
        "move_mount",
        _SYS_MOVE_MOUNT,
        fd,
        b"",
        _AT_FDCWD,
        os.fsencode(target),
        _MOVE_MOUNT_F_EMPTY_PATH,
    )


def detached_tmpfs(**parameters: str) -> int:
    """Return an O_PATH descriptor of a new tmpfs that is mounted nowhere.

    fsopen(2), fsconfig(2), fsmount(2), Linux 5.2; *parameters* as tmpfs(5) has
    them.  The memory is free again when the last descriptor in it is closed.
    """
    context = _syscall("fsopen", _SYS_FSOPEN, b"tmpfs", _CLOEXEC)
    try:
        for key, value in parameters.items():
            _configure(context, _FSCONFIG_SET_STRING, key.encode(), value.encode())
        _configure(context, _FSCONFIG_CMD_CREATE, None, None)
        return _syscall("fsmount", _SYS_FSMOUNT, context, _CLOEXEC, 0)
    finally:
        os.close(context)


def _configure(context: int, command: int, key: bytes | None, value: bytes | None) -> None:
    _syscall("fsconfig", _SYS_FSCONFIG, context, command, key, value, 0)


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    """Make a mount, a bind or a remount; the arguments are those of the system call."""
    result = _libc.mount(
        os.fsencode(source),
        os.fsencode(target),
        kind.encode(),
        ctypes.c_ulong(flags),
        os.fsencode(data) or None,
    )
    _checked(result, "mount")


def umount(target: str, flags: int = 0) -> None:
    """Unmount what is on top at *target*: umount2(2)."""
    _checked(_libc.umount2(os.fsencode(target), flags), "umount")


def unshare_mounts() -> None:
    """Give this process a mount namespace of its own, from which nothing propagates.

    unshare(2), mount_namespaces(7); os.unshare exists only since Python 3.12.
    """
    _checked(_libc.unshare(CLONE_NEWNS), "unshare")
    mount("none", "/", "", MS_REC | MS_PRIVATE)


def sync_filesystem(fd: int) -> None:
    """Write all of the file system that holds *fd* to its disk: syncfs(2)."""
    _checked(_libc.syncfs(fd), "syncfs")


def signal_at_death_of_parent(number: int) -> None:
    """Have signal *number* sent to this process when its parent dies: prctl(2)."""
    _checked(_libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0), "prctl")
