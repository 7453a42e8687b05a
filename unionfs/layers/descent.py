"""How a directory of a layer is reached: through no symlink, and over any distance.

The owner of a directory in upper may put a symlink in its place beside the mount,
and the daemon, which is root, would follow it.  A mount with the flag
`nosymfollow` follows no symlink, at no cost: the layers' detached copies have it
(`copies`), Linux 5.14.  On other mounts the directory that holds a name is opened
first, with openat2(2), Linux 5.6, or else name by name.  The same way leads to
objects that are farther from the layer's root than a path can say: path_resolution(7).

An object that is no longer where the union saw it is ESTALE: the kernel then looks the
names of the path up again (fs/namei.c, filename_lookup), and finds what is there.
"""

import contextlib
import copy
import errno
import os
import stat
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Self, TypeVar

from unionfs.host import syscalls

# Bytes of a path, with the zero that ends it: include/uapi/linux/limits.h.
PATH_MAX = 4096

_ST_NOSYMFOLLOW = 0x2000  # statfs(2), f_flags

_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC

# An older kernel; a container whose seccomp filter does not know the call.
_UNAVAILABLE = frozenset({errno.ENOSYS, errno.EPERM})


# Stands for a root from which paths may not be walked: no descriptor has this number, so each call
# fails (EBADF).
_NOWHERE = (1 << 31) - 1

# The errors for a symlink, and of open(2) for a socket: neither was there when the union looked.
_OTHER = frozenset({errno.ELOOP, errno.ENXIO})

_T = TypeVar("_T")


def follows_no_symlinks(fd: int) -> bool:
    """Tell whether the mount that an open file lies on follows no symlinks."""
    return bool(os.fstatvfs(fd).f_flag & _ST_NOSYMFOLLOW)


def stale() -> OSError:
    """Return the error for a path that leads to another object than the union saw there."""
    return OSError(errno.ESTALE, os.strerror(errno.ESTALE))


def stat_file(fd: int) -> os.stat_result:
    """Return the attributes of an open file; ESTALE where it is not a regular file."""
    st = os.fstat(fd)
    if not stat.S_ISREG(st.st_mode):
        raise stale()
    return st


def open_directory(fd: int, path: bytes) -> int:
    """Return an O_PATH descriptor of the directory *path* below the directory *fd*.

    No component may be a symlink: ESTALE.
    """
    try:
        if follows_no_symlinks(fd):
            return _open(fd, path)
        try:
            return _open_beneath(fd, path)
        except OSError as exc:
            if exc.errno not in _UNAVAILABLE:
                raise
        return _open_by_names(fd, path.split(b"/"))
    except OSError as exc:
        if exc.errno == errno.ELOOP:
            raise stale() from None
        raise


class Landmarks(dict[bytes, int]):
    """Directories of one layer that are far from its root, held open, by their paths.

    Work in one of them, or somewhere below, does not start at the root again, which would
    take the longer the path is: a program that walks a deep tree pays for single steps.
    A landmark stays what was found there, as do the dentries that kernel overlayfs holds.
    """

    _MOST = 8

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._root = fd

    def open(self, path: bytes) -> int:
        """Return an O_PATH descriptor of the directory *path*, which may be of any length."""
        try:
            return self._open(path)
        except OSError:
            if not self:
                raise
        self.clear()  # one of them may have been removed beside the mount
        return self._open(path)

    def _open(self, path: bytes) -> int:
        start, at = self._nearest(path)
        while start < len(path):
            end = _end_of_piece(path, start)
            at = open_directory(at, path[start:end])
            self._hold(path[:end], at)
            start = end + 1
        return os.dup(at)

    def _nearest(self, path: bytes) -> tuple[int, int]:
        """Return where the rest of *path* begins below the nearest landmark, and the landmark."""
        above = [known for known in self if path == known or path.startswith(known + b"/")]
        if not above:
            return 0, self._root
        best = max(above, key=len)
        at = self[best] = self.pop(best)  # the last one to be let go of
        return len(best) + 1, at

    def _hold(self, path: bytes, fd: int) -> None:
        self[path] = fd
        if len(self) > self._MOST:
            os.close(self.pop(next(iter(self))))

    def forget(self, path: bytes) -> None:
        """Let go of *path* and of all below: another object will have that name."""
        below = path + b"/"
        for known in [known for known in self if known == path or known.startswith(below)]:
            os.close(self.pop(known))

    def clear(self) -> None:
        """Let go of all."""
        while self:
            os.close(self.popitem()[1])


def _end_of_piece(path: bytes, start: int) -> int:
    """Return where the longest part of *path* that a system call takes ends."""
    if len(path) - start < PATH_MAX:
        return len(path)
    return path.rindex(b"/", start, start + PATH_MAX)


def _open(at: int, path: bytes) -> int:
    return os.open(path, _DIRECTORY, dir_fd=at)


def _open_beneath(at: int, path: bytes) -> int:
    resolve = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS
    return syscalls.openat2(at, path, _DIRECTORY, resolve)


def _open_by_names(fd: int, names: list[bytes]) -> int:
    at = fd
    for name in names:
        try:
            below = _open_name(at, name)
        finally:
            if at != fd:
                os.close(at)
        at = below
    return at


def _open_name(at: int, name: bytes) -> int:
    try:
        return os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=at)
    except NotADirectoryError:
        if stat.S_ISLNK(os.stat(name, dir_fd=at, follow_symlinks=False).st_mode):
            raise stale() from None
        raise


class Root:
    """The root of a layer, and the ways from there: what all verbs of `Layer` have in common.

    A verb makes its system call with a path from `at`.  Where the call fails because the path
    is too long, or because symlinks may be on it, `closer` makes the call once more from the
    directory that holds the name.
    """

    follow = False  # do the verbs follow a last symlink? only those of `Pins`

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.at = fd if self.follow or follows_no_symlinks(fd) else _NOWHERE
        self.landmarks = Landmarks(fd)

    def close(self) -> None:
        """Let go of the layer."""
        self.landmarks.clear()
        os.close(self.fd)

    @contextlib.contextmanager
    def beside(self, path: bytes) -> Iterator[tuple[Self, bytes]]:
        """Yield a layer whose root is the directory that holds *path*, and the name in there."""
        directory, _, name = path.rpartition(b"/")
        near = copy.copy(self)
        near.landmarks = Landmarks(self.fd)  # none: landmarks have paths from the root
        if not directory:
            near.at = self.fd
            yield near, name
            return
        far = len(path) >= PATH_MAX
        open_ = self.landmarks.open if far else partial(open_directory, self.fd)
        near.at = open_(directory)
        try:
            yield near, name
        finally:
            os.close(near.at)
            os.fchdir(self.fd)  # reading attributes has entered the other directory

    def is_too_far(self, error: OSError, path: bytes) -> bool:
        """Tell whether a call has failed because *path* is long, or may not be walked."""
        if error.errno == errno.EBADF:
            return self.at == _NOWHERE
        is_long = len(path) >= PATH_MAX and b"/" in path
        return error.errno == errno.ENAMETOOLONG and is_long

    def closer(self, error: OSError, path: bytes, verb: Callable[..., _T], *rest: Any) -> _T:
        """Make a failed call again from closer by, if it was too far; else raise *error*."""
        if not self.is_too_far(error, path):
            raise stale() if error.errno in _OTHER else error
        with self.beside(path) as (near, name):
            return verb(near, name, *rest)

    def both_closer(
        self,
        error: OSError,
        path: bytes,
        other: "Root",
        target: bytes,
        verb: Callable[..., None],
    ) -> None:
        """Do as `closer` for a verb with two paths."""
        if not (self.is_too_far(error, path) or other.is_too_far(error, target)):
            raise stale() if error.errno in _OTHER else error
        with self.beside(path) as (near, name), other.beside(target) as (goal, goal_name):
            verb(near, name, goal, goal_name)
