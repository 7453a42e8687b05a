"""How a directory of a layer is reached: through no symlink, and over any distance.

Who owns a directory in upper may put a symlink in its place beside the mount,
and the daemon, which is root, would follow it.  A mount with the flag
`nosymfollow` follows none, at no cost: the layers' detached copies have it
(`copies`), Linux 5.14.  On other mounts the directory that holds a name is opened
first, with openat2(2), Linux 5.6, or else name by name.  The same way leads to
what is farther from the layer's root than a path can say: path_resolution(7).

What is no longer where the union saw it is ESTALE: the kernel looks the names
of the path up again then (fs/namei.c, filename_lookup), and finds what is there.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator

from unionfs import syscalls

# Bytes of a path, with the zero that ends it: include/uapi/linux/limits.h.
PATH_MAX = 4096

_ST_NOSYMFOLLOW = 0x2000  # statfs(2), f_flags

_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC

# An older kernel; a container whose seccomp filter does not know the call.
_UNAVAILABLE = frozenset({errno.ENOSYS, errno.EPERM})


def follows_no_symlinks(fd: int) -> bool:
    """Tell whether the mount that an open file lies on follows no symlinks."""
    return bool(os.fstatvfs(fd).f_flag & _ST_NOSYMFOLLOW)


def stale() -> OSError:
    """Return the error of a path on which something else is than was seen there."""
    return OSError(errno.ESTALE, os.strerror(errno.ESTALE))


def stat_file(fd: int) -> os.stat_result:
    """Return the attributes of what was opened as a regular file; ESTALE where it is none."""
    st = os.fstat(fd)
    if not stat.S_ISREG(st.st_mode):
        raise stale()
    return st


def open_directory(fd: int, path: bytes) -> int:
    """Return an O_PATH descriptor of the directory *path*, of any length, below the directory *fd*.

    No component is followed that is a symlink: ESTALE.
    """
    try:
        if follows_no_symlinks(fd):
            return _descend(fd, _pieces(path), _open)
        try:
            return _descend(fd, _pieces(path), _open_beneath)
        except OSError as exc:
            if exc.errno not in _UNAVAILABLE:
                raise
        return _descend(fd, path.split(b"/"), _open_name)
    except OSError as exc:
        if exc.errno == errno.ELOOP:
            raise stale() from None
        raise


def _pieces(path: bytes) -> Iterator[bytes]:
    """Split a path where a slash is, so that each piece is short enough for a system call."""
    start = 0
    while len(path) - start >= PATH_MAX:
        end = path.rindex(b"/", start, start + PATH_MAX)
        yield path[start:end]
        start = end + 1
    yield path[start:]


def _descend(fd: int, pieces: Iterable[bytes], opened: Callable[[int, bytes], int]) -> int:
    """Open each piece below the one before, and return the last."""
    at = fd
    for piece in pieces:
        try:
            below = opened(at, piece)
        finally:
            if at != fd:
                os.close(at)
        at = below
    return at


def _open(at: int, path: bytes) -> int:
    return os.open(path, _DIRECTORY, dir_fd=at)


def _open_beneath(at: int, path: bytes) -> int:
    resolve = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS
    return syscalls.openat2(at, path, _DIRECTORY, resolve)


def _open_name(at: int, name: bytes) -> int:
    try:
        return os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=at)
    except NotADirectoryError:
        if stat.S_ISLNK(os.stat(name, dir_fd=at, follow_symlinks=False).st_mode):
            raise stale() from None
        raise
