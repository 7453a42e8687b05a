"""System calls that the standard library lacks, made through ctypes.

The calls here work on files (renameat2(2)) and on the credentials of the
calling thread (setfsuid(2), setfsgid(2)); those that make mounts stand in
`mountcalls`.  Errors are `OSError` with the errno of the call.
"""

import ctypes
import fcntl
import os
import signal

# include/uapi/linux/fs.h, renameat2(2)
RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2
RENAME_WHITEOUT = 4

# openat2(2), include/uapi/linux/openat2.h
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08

# ioctl_ficlone(2): _IOW(0x94, 9, int)
FICLONE = 0x40049409

# prctl(2), capabilities(7)
_PR_SET_SECUREBITS = 28
_PR_GET_SECUREBITS = 27
_SECBIT_NO_SETUID_FIXUP = 1 << 2

_PAGE = os.sysconf("SC_PAGE_SIZE")

_libc = ctypes.CDLL(None, use_errno=True)
_renameat2 = _libc.renameat2
_renameat2.argtypes = [
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_uint,
]
_fallocate = _libc.fallocate64
_fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


def renameat2(old_fd: int, old: bytes, new_fd: int, new: bytes, flags: int) -> None:
    """Call renameat2(2) with RENAME_NOREPLACE, RENAME_EXCHANGE or RENAME_WHITEOUT."""
    if _renameat2(old_fd, old, new_fd, new, flags) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), old, None, new)


# FALLOC_FL_*: include/uapi/linux/falloc.h
KEEP_SIZE = 0x01
PUNCH_HOLE = 0x02
ZERO_RANGE = 0x10


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    """Call fallocate(2) with FALLOC_FL_* in *mode*; *offset* and *length* in bytes."""
    if _fallocate(fd, mode, offset, length) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class _Statx(ctypes.Structure):
    """The beginning of struct statx, statx(2)."""

    _fields_ = (
        ("mask", ctypes.c_uint32),
        ("blksize", ctypes.c_uint32),
        ("attributes", ctypes.c_uint64),
        ("rest", ctypes.c_char * 240),
    )


_statx = _libc.statx
_statx.argtypes = [
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_int,
    ctypes.c_uint,
    ctypes.POINTER(_Statx),
]
_AT_SYMLINK_NOFOLLOW = 0x100
_AT_STATX_DONT_SYNC = 0x4000
_STATX_ATTR_PROTECTED = 0x10 | 0x20  # STATX_ATTR_IMMUTABLE, STATX_ATTR_APPEND


def is_guarded(directory: int, path: bytes) -> bool:
    """Tell whether *path* is immutable or append-only, as far as statx(2) knows."""
    result, how = _Statx(), _AT_SYMLINK_NOFOLLOW | _AT_STATX_DONT_SYNC
    if _statx(directory, path, how, 0, result) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return bool(result.attributes & _STATX_ATTR_PROTECTED)


class _OpenHow(ctypes.Structure):
    """struct open_how of openat2(2)."""

    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


_OPENAT2 = 437  # on all architectures but alpha


def openat2(fd: int, path: bytes, flags: int, resolve: int) -> int:
    """Open *path* as openat2(2) does with RESOLVE_* in *resolve*; ENOSYS before Linux 5.6."""
    how = _OpenHow(flags, 0, resolve)
    opened: int = _libc.syscall(
        ctypes.c_long(_OPENAT2),
        ctypes.c_long(fd),
        path,
        ctypes.byref(how),
        ctypes.c_long(ctypes.sizeof(how)),
    )
    if opened < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return opened


class _CachedPages(ctypes.Structure):
    """struct cachestat, include/uapi/linux/mman.h: numbers of pages; the first are in the cache."""

    _fields_ = (("cached", ctypes.c_uint64), ("rest", ctypes.c_uint64 * 4))


_CACHESTAT = 451  # on all architectures but alpha


def is_cached(fd: int, offset: int, count: int) -> bool:
    """Tell whether *count* bytes (not 0) at *offset* are in the page cache, or on their way there.

    cachestat(2), Linux 6.5; with an older kernel nothing is known, so no.
    """
    pages = _CachedPages()
    span = (ctypes.c_uint64 * 2)(offset, count)
    if _libc.syscall(_CACHESTAT, fd, span, ctypes.byref(pages), 0) != 0:
        return False
    return int(pages.cached) > (offset % _PAGE + count - 1) // _PAGE


def may_be_written(fd: int) -> bool:
    """Tell whether anybody may go on writing to the file that *fd* is open to read.

    A mapping counts as long as it lasts.  The kernel tells by refusing a lease: fcntl(2).
    On file systems without leases, as on a network, nobody knows, so the answer is yes.
    """
    try:
        # If somebody opens the file just now, the kernel signals that, and the default kills.
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError:
        return True
    return False


def keep_capabilities_across_setfsuid() -> None:
    """Let `set_filesystem_ids` change owners without dropping capabilities.

    SECBIT_NO_SETUID_FIXUP, capabilities(7); it lasts for this thread and its children.
    """
    bits = _libc.prctl(_PR_GET_SECUREBITS, 0, 0, 0, 0)
    if not bits & _SECBIT_NO_SETUID_FIXUP:
        _set_securebits(bits | _SECBIT_NO_SETUID_FIXUP)


def drop_capabilities_with_setfsuid() -> None:
    """Take `keep_capabilities_across_setfsuid` back."""
    _set_securebits(_libc.prctl(_PR_GET_SECUREBITS, 0, 0, 0, 0) & ~_SECBIT_NO_SETUID_FIXUP)


def _set_securebits(bits: int) -> None:
    if _libc.prctl(_PR_SET_SECUREBITS, bits, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl(PR_SET_SECUREBITS): {os.strerror(number)}")


def set_filesystem_ids(uid: int, gid: int) -> None:
    """Make new files of this thread belong to *uid* and *gid*: setfsuid(2), setfsgid(2)."""
    _libc.setfsuid(ctypes.c_uint(uid))
    _libc.setfsgid(ctypes.c_uint(gid))


_CLONE_FS = 0x200  # include/uapi/linux/sched.h


def leave_common_directory() -> None:
    """Give this thread a working directory, and a umask, of its own: unshare(2), CLONE_FS."""
    if _libc.unshare(_CLONE_FS) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"unshare(CLONE_FS): {os.strerror(number)}")


class _StatFs(ctypes.Structure):
    """The beginning of struct statfs, statfs(2): all that is read of it is the type."""

    _fields_ = (("type", ctypes.c_long), ("rest", ctypes.c_char * 248))


# include/uapi/linux/magic.h
_TMPFS_MAGIC = 0x01021994
_BTRFS_MAGIC = 0x9123683E
_EXT_MAGIC = 0xEF53
_XFS_MAGIC = 0x58465342


def is_tmpfs(fd: int) -> bool:
    """Tell whether an open file lies on tmpfs."""
    return filesystem_type(fd) == _TMPFS_MAGIC


def is_btrfs(fd: int) -> bool:
    """Tell whether an open file lies on btrfs."""
    return filesystem_type(fd) == _BTRFS_MAGIC


def knows_holes(fd: int) -> bool:
    """Tell whether lseek(2) says of each page of a file if it was written, after a crash too."""
    return filesystem_type(fd) in {_TMPFS_MAGIC, _BTRFS_MAGIC, _EXT_MAGIC, _XFS_MAGIC}


def may_share(fd: int) -> bool:
    """Tell whether two files of this kind of file system can share blocks: ioctl_ficlone(2)."""
    return filesystem_type(fd) in {_BTRFS_MAGIC, _XFS_MAGIC}


def never_shares(fd: int) -> bool:
    """Tell whether two files of this kind of file system never share blocks; others may."""
    return filesystem_type(fd) in {_TMPFS_MAGIC, _EXT_MAGIC}


def filesystem_type(fd: int) -> int:
    """Return the magic number of the file system that an open file lies on: fstatfs(2)."""
    result = _StatFs()
    if _libc.fstatfs(fd, ctypes.byref(result)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int(result.type)
