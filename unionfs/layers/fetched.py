"""Content of a layer that may keep one waiting, as threads bring it near.

A thread opens, reads and closes files there, since each of these calls may take as long
as the server likes.  The rest of the daemon sees bytes, or a descriptor of a copy: a file
without a name in work, to which a copy-up gives a name.
"""

import errno
import os
import threading
from collections.abc import Callable
from typing import Self, TypeVar

from unionfs.host import content
from unionfs.layers import staging
from unionfs.layers.descent import stat_file
from unionfs.layers.layer import Layer

_MOST_OPEN = 64  # files that are kept open for the next read

_NEW = os.O_RDWR | os.O_CLOEXEC

# The error of an open file that its server has forgotten: the file is opened once more.
_FORGOTTEN = frozenset({errno.ESTALE, errno.EBADF, errno.ENOENT})

_T = TypeVar("_T")


class Fetched:
    """A copy of a file's content that somebody is about to take."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @classmethod
    def made(cls, near: Layer, path: bytes, most: int | None, stash: int) -> Self:
        """Copy a file to *stash*; ENOSPC, before anything is read, if there is no room for it."""
        source = near.open(path, os.O_RDONLY)
        try:
            return cls(copy(source, most, stash))
        finally:
            os.close(source)

    @property
    def is_taken(self) -> bool:
        """Tell whether there is nothing to be taken any more."""
        return self._fd < 0

    def take(self) -> int:
        """Return the descriptor, which belongs to the caller from now on."""
        fd, self._fd = self._fd, -1
        return fd

    def close(self) -> None:
        """Close the descriptor, if nobody has taken it."""
        if self._fd >= 0:
            os.close(self.take())


def copy(source: int, most: int | None, stash: int) -> int:
    """Copy the first *most* bytes of an open file, or all, to a file without a name; return that.

    The copy is on the file system of the directory *stash*, or in RAM (-1).  ENOSPC, before
    anything is read, if there is no room for it.
    """
    st = stat_file(source)
    size = st.st_size if most is None else min(most, st.st_size)
    target = _nameless(stash)
    try:
        if stash >= 0:
            content.require_room(stash, content.taken(size, st))
        content.copy(source, target, size)
        os.ftruncate(target, st.st_size)
    except BaseException:
        os.close(target)
        raise
    return target


def _nameless(stash: int) -> int:
    """Return a file without a name on the file system of work, which may get a name there.

    Open(2), O_TMPFILE.
    """
    if stash < 0:
        return os.memfd_create("fetched")
    try:
        return os.open(staging.DIRECTORY, os.O_TMPFILE | _NEW, 0o600, dir_fd=stash)
    except OSError as exc:
        if exc.errno not in {errno.EOPNOTSUPP, errno.EISDIR}:  # not on FUSE, say
            raise
    name = b"%s/fetched-%d" % (staging.DIRECTORY, threading.get_native_id())
    fd = os.open(name, os.O_CREAT | os.O_EXCL | _NEW, 0o600, dir_fd=stash)
    os.unlink(name, dir_fd=stash)
    return fd


class _Open:
    """One file that is open, and how many threads use it."""

    __slots__ = ("fd", "users")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.users = 1


class OpenFiles:
    """The files of one layer that were read last; only threads of that layer come here."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[bytes, _Open] = {}  # path -> file, the one used last at the end
        self._forgotten: list[_Open] = []

    def read(self, near: Layer, path: bytes, size: int, offset: int) -> bytes:
        """Return up to *size* bytes at *offset*; fewer only at the end of the file."""

        def read(fd: int) -> bytes:
            parts, left = [], size
            while left and (data := os.pread(fd, left, offset + size - left)):
                parts.append(data)
                left -= len(data)
            return b"".join(parts)

        return self._with(near, path, read)

    def seek(self, near: Layer, path: bytes, offset: int, whence: int) -> int:
        """Return where data or a hole begins: lseek(2)."""
        return self._with(near, path, lambda fd: os.lseek(fd, offset, whence))

    def _with(self, near: Layer, path: bytes, use: Callable[[int], _T]) -> _T:
        file, is_new = self._enter(near, path)
        try:
            return use(file.fd)
        except OSError as exc:
            if is_new or exc.errno not in _FORGOTTEN:
                raise
            with self._lock:
                self._let_go(path)
        finally:
            self._leave(file)
        return self._with(near, path, use)

    def _enter(self, near: Layer, path: bytes) -> tuple[_Open, bool]:
        with self._lock:
            file = self._open.pop(path, None)
            if file is not None:
                file.users += 1
                self._open[path] = file
                return file, False
        fd = near.open(path, os.O_RDONLY)
        try:
            stat_file(fd)
        except OSError:
            os.close(fd)
            raise
        file = _Open(fd)
        with self._lock:
            self._let_go(path)
            self._open[path] = file
            if len(self._open) > _MOST_OPEN:
                self._let_go(next(iter(self._open)))
        return file, True

    def _let_go(self, path: bytes) -> None:
        """Have the last user of a file close it; the lock is held."""
        file = self._open.pop(path, None)
        if file is not None:
            self._forgotten.append(file)

    def _leave(self, file: _Open) -> None:
        with self._lock:
            file.users -= 1
            closing = [one for one in self._forgotten if not one.users]
            self._forgotten = [one for one in self._forgotten if one.users]
        for one in closing:
            os.close(one.fd)

    def forget(self) -> None:
        """Have the threads that come next close all files."""
        with self._lock:
            for path in list(self._open):
                self._let_go(path)
