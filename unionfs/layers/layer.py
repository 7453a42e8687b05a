"""One directory tree of the host, reached through a descriptor of its root.

Paths are relative to that root and may be of any length; `b"."` is the root itself.
No path is walked through a symlink: if somebody changes the layer beside the mount, a
directory that the union saw may be a symlink by now.  Mostly the layer's mount itself
follows no symlinks, and one system call is enough.  Else, and over long distances, a verb
is made once more from the directory that holds the name (`descent`).  Nor does an open
wait for anything: a file that the union saw may be a FIFO by now.  While a lease is held
on it (fcntl_locking(2), F_SETLEASE), an open raises BlockingIOError.

Only `WritableLayer` (upper and work) has verbs that write: the type checker sees that a
lower layer is never written to.  Every system call of the daemon that changes names or
attributes is a method of `WritableLayer`; the crash tests count, stop and fail there.

Extended attributes have no *at() calls before Linux 6.13, so those methods
enter the layer with fchdir(2) first: no /proc is needed.  Nothing in the daemon
relies on the working directory otherwise, and threads work on descriptors alone.
"""

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from unionfs.host import syscalls
from unionfs.layers.descent import Root, stale

_T = TypeVar("_T")

NO_ATTRIBUTES = frozenset({errno.ENODATA, errno.EOPNOTSUPP})
_GONE = (FileNotFoundError, NotADirectoryError)
NO_WAIT = os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_OPEN = NO_WAIT | os.O_NOFOLLOW
_HOLD = os.O_PATH | os.O_CLOEXEC


def join(path: bytes, name: bytes) -> bytes:
    """Return the path of *name* in the directory *path*."""
    return name if path == b"." else path + b"/" + name


class Layer(Root):
    """A host directory tree that is only read."""

    asks = False  # do threads ask it, with `Ask`: `far`?

    def __init__(self, fd: int, *, number: int = 0, name: str = "") -> None:
        super().__init__(fd)
        self.number = number  # from the bottom: the lowest lower is 1; upper and work are 0
        self.name = name  # for messages
        self.device = os.fstat(fd).st_dev
        self.kind = syscalls.filesystem_type(fd)
        # What the union adds to inode numbers of this file system that are below `end`; the lowest
        # number of the lowers on this file system; and whether its directories tell the numbers
        # that stat(2) does.  Settled by `inodes.divide`.
        self.first = 0
        self.end = 1 << 48
        self.family = number
        self.lists_numbers = True

    def stat(self, path: bytes) -> os.stat_result:
        """Return the attributes of *path*; a symlink is not followed."""
        try:
            return os.stat(path, dir_fd=self.at, follow_symlinks=self.follow)
        except OSError as exc:
            return self.closer(exc, path, Layer.stat)

    def find(self, path: bytes) -> os.stat_result | None:
        """Return the attributes of *path*, or None where nothing bears that name."""
        try:
            return os.stat(path, dir_fd=self.at, follow_symlinks=False)
        except _GONE:
            return None
        except OSError as exc:
            if exc.errno == errno.ENAMETOOLONG and not self.is_too_far(exc, path):
                return None  # this file system has no names as long as that
            with contextlib.suppress(*_GONE):
                return self.closer(exc, path, Layer.find)
            return None

    def is_guarded(self, path: bytes) -> bool:
        """Tell whether statx(2) calls *path* immutable or append-only."""
        try:
            return syscalls.is_guarded(self.at, path)
        except OSError as exc:
            return self.closer(exc, path, Layer.is_guarded)

    def open(self, path: bytes, flags: int) -> int:
        """Open an existing object and return a descriptor; BlockingIOError for a leased file."""
        try:
            return os.open(path, flags | _OPEN, dir_fd=self.at)
        except OSError as exc:
            return self.closer(exc, path, Layer._open_no_device, flags)

    def _open_no_device(self, name: bytes, flags: int) -> int:
        """Open an object that is no device: an open may start one, and this mount is not nodev."""
        if stat.S_IFMT(self.stat(name).st_mode) in {stat.S_IFCHR, stat.S_IFBLK}:
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        return self.open(name, flags)

    def hold(self, path: bytes) -> int:
        """Return a descriptor that only holds an object, whatever it is: open(2), O_PATH."""
        try:
            return os.open(path, _HOLD | (0 if self.follow else os.O_NOFOLLOW), dir_fd=self.at)
        except OSError as exc:
            return self.closer(exc, path, Layer.hold)

    def open_content(self, path: bytes, most: int | None = None) -> int:  # noqa: ARG002 (`far`)
        """Open a file to copy its first *most* bytes, or all of it (None)."""
        return self.open(path, os.O_RDONLY)

    def learned(self, key: tuple[object, ...], find: Callable[["Layer"], _T]) -> _T:  # noqa: ARG002
        """Return what *find* finds in this layer; *key* names the question (`far`)."""
        return find(self)

    def forget(self) -> None:
        """Forget what is known of the layer, which is being changed."""

    def flags(self, path: bytes, command: int, size: int) -> bytes:
        """Return inode flags of a file or directory by the ioctl(2) *command*: ioctl_iflags(2)."""
        fd = self.open(path, os.O_RDONLY)
        try:
            return fcntl.ioctl(fd, command, bytes(size))
        finally:
            os.close(fd)

    def statvfs(self) -> os.statvfs_result:
        """Return the figures of the file system: statvfs(3)."""
        return os.fstatvfs(self.fd)

    def readlink(self, path: bytes) -> bytes:
        """Return the target of the symlink *path*."""
        try:
            return os.readlink(path, dir_fd=self.at)
        except OSError as exc:
            return self.closer(exc, path, Layer.readlink)

    def scan(self, path: bytes) -> list["os.DirEntry[bytes]"]:
        """Return the entries of a directory, in the host's order; they know their kinds."""
        fd = self.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fchdir(fd)
            with os.scandir(b".") as entries:
                found = list(entries)
            for entry in found:
                entry.is_symlink()  # it asks now, from here, where d_type does not tell: readdir(3)
            return found
        finally:
            os.close(fd)
            # A directory that is deleted now, and still the working directory, would keep its file
            # system from being remounted read-only.
            os.fchdir(self.fd)

    def attributes(self, path: bytes) -> list[str]:
        """Return the names of the extended attributes of *path*; none where unsupported."""
        try:
            os.fchdir(self.at)
            return os.listxattr(path, follow_symlinks=self.follow)
        except OSError as exc:
            if exc.errno == errno.EOPNOTSUPP:
                return []
            return self.closer(exc, path, Layer.attributes)

    def attribute(self, path: bytes, name: bytes | str) -> bytes:
        """Return the value of one extended attribute; ENODATA where there is none."""
        try:
            os.fchdir(self.at)
            return os.getxattr(path, name, follow_symlinks=self.follow)
        except OSError as exc:
            return self.closer(exc, path, Layer.attribute, name)

    def find_attribute(self, path: bytes, name: bytes | str) -> bytes | None:
        """Return the value of one extended attribute, or None."""
        try:
            return self.attribute(path, name)
        except OSError as exc:
            if exc.errno in NO_ATTRIBUTES:
                return None
            raise


class LayerPath(NamedTuple):
    """A directory or file of one lower layer."""

    layer: Layer
    path: bytes
    whiteouts_are_files: bool = False  # in this directory: `whiteouts`

    def child(self, name: bytes) -> "LayerPath":
        """Return the place of a file in this directory."""
        return LayerPath(self.layer, join(self.path, name))


class WritableLayer(Layer):
    """A layer that may change: upper and work.  No lower layer is one."""

    def create(self, path: bytes, flags: int, mode: int) -> int:
        """Create a regular file and return its descriptor; EEXIST where the name is taken."""
        try:
            return os.open(path, flags | os.O_CREAT | os.O_EXCL | _OPEN, mode, dir_fd=self.at)
        except OSError as exc:
            return self.closer(exc, path, WritableLayer.create, flags, mode)

    def create_unnamed(self, path: bytes, flags: int, mode: int) -> int:
        """Create a regular file without a name in the directory *path*; return its descriptor.

        Open(2), O_TMPFILE; EOPNOTSUPP where the file system has no such files.
        """
        try:
            return os.open(path, flags | os.O_TMPFILE | _OPEN, mode, dir_fd=self.at)
        except OSError as exc:
            return self.closer(exc, path, WritableLayer.create_unnamed, flags, mode)

    def give_name(self, fd: int, path: bytes) -> None:
        """Give an open file without a name the name *path*: open(2), O_TMPFILE."""
        try:
            os.link(b"/proc/self/fd/%d" % fd, path, dst_dir_fd=self.at, follow_symlinks=True)
        except OSError as exc:
            self.closer(exc, path, lambda near, name: near.give_name(fd, name))

    def open_to_write(self, path: bytes, flags: int) -> int:
        """Open an existing file for writing; O_TRUNC among *flags* truncates it.

        BlockingIOError for a leased file.
        """
        return self.open(path, flags)

    def mkdir(self, path: bytes, mode: int) -> None:
        """Make a directory."""
        try:
            os.mkdir(path, mode, dir_fd=self.at)
        except OSError as exc:
            self.closer(exc, path, WritableLayer.mkdir, mode)

    def mknod(self, path: bytes, mode: int, device: int) -> None:
        """Make a FIFO, a socket, a device or an empty regular file."""
        try:
            os.mknod(path, mode, device, dir_fd=self.at)
        except OSError as exc:
            self.closer(exc, path, WritableLayer.mknod, mode, device)

    def symlink(self, target: bytes, path: bytes) -> None:
        """Make a symlink at *path* that holds *target*."""
        try:
            os.symlink(target, path, dir_fd=self.at)
        except OSError as exc:
            self.closer(exc, path, lambda near, name: near.symlink(target, name))

    def link(self, path: bytes, other: "WritableLayer", target: bytes) -> None:
        """Give the object at *path* the name *target* in *other* too."""
        follow = self.follow
        try:
            os.link(path, target, src_dir_fd=self.at, dst_dir_fd=other.at, follow_symlinks=follow)
        except OSError as exc:
            self.both_closer(exc, path, other, target, WritableLayer.link)

    def unlink(self, path: bytes) -> None:
        """Remove a name that is not a directory."""
        try:
            os.unlink(path, dir_fd=self.at)
        except OSError as exc:
            self.closer(exc, path, WritableLayer.unlink)

    def rmdir(self, path: bytes) -> None:
        """Remove an empty directory."""
        try:
            os.rmdir(path, dir_fd=self.at)
        except OSError as exc:
            self.closer(exc, path, WritableLayer.rmdir)
        if self.landmarks:
            self.landmarks.forget(path)

    def move(self, path: bytes, other: "WritableLayer", target: bytes) -> None:
        """Give *path* the name *target*, replacing what has it: rename(2)."""
        try:
            os.rename(path, target, src_dir_fd=self.at, dst_dir_fd=other.at)
        except OSError as exc:
            self.both_closer(exc, path, other, target, WritableLayer.move)
        if self.landmarks or other.landmarks:
            self._forget(path, other, target)

    def exchange(self, path: bytes, other: "WritableLayer", target: bytes) -> None:
        """Swap two names in one step: renameat2(2), RENAME_EXCHANGE."""
        try:
            syscalls.renameat2(self.at, path, other.at, target, syscalls.RENAME_EXCHANGE)
        except OSError as exc:
            self.both_closer(exc, path, other, target, WritableLayer.exchange)
        if self.landmarks or other.landmarks:
            self._forget(path, other, target)

    def move_and_cover(self, path: bytes, other: "WritableLayer", target: bytes) -> None:
        """Rename and leave a whiteout at *path* in one step: RENAME_WHITEOUT."""
        try:
            syscalls.renameat2(self.at, path, other.at, target, syscalls.RENAME_WHITEOUT)
        except OSError as exc:
            self.both_closer(exc, path, other, target, WritableLayer.move_and_cover)
        if self.landmarks or other.landmarks:
            self._forget(path, other, target)

    def _forget(self, path: bytes, other: "WritableLayer", target: bytes) -> None:
        self.landmarks.forget(path)
        other.landmarks.forget(target)

    def chmod(self, path: bytes, mode: int) -> None:
        """Set the mode; *path* is not a symlink."""
        try:
            os.chmod(path, mode, dir_fd=self.at)
        except OSError as exc:
            self.closer(exc, path, WritableLayer._chmod_held, mode)

    def _chmod_held(self, name: bytes, mode: int) -> None:
        """Set the mode of an object that is held meanwhile: chmod(2) would follow a symlink."""
        fd = self.hold(name)
        try:
            if stat.S_ISLNK(os.fstat(fd).st_mode):
                raise stale()
            os.chmod(f"/proc/self/fd/{fd}", mode)
        finally:
            os.close(fd)

    def chown(self, path: bytes, uid: int, gid: int) -> None:
        """Set owner and group; -1 leaves one as it is."""
        try:
            os.chown(path, uid, gid, dir_fd=self.at, follow_symlinks=self.follow)
        except OSError as exc:
            self.closer(exc, path, WritableLayer.chown, uid, gid)

    def utime(self, path: bytes, atime_ns: int, mtime_ns: int) -> None:
        """Set both times, in nanoseconds since the epoch."""
        times = atime_ns, mtime_ns
        try:
            os.utime(path, ns=times, dir_fd=self.at, follow_symlinks=self.follow)
        except OSError as exc:
            self.closer(exc, path, WritableLayer.utime, *times)

    def set_attribute(self, path: bytes, name: bytes | str, value: bytes, flags: int = 0) -> None:
        """Set an extended attribute; *flags* as setxattr(2) takes them."""
        try:
            os.fchdir(self.at)
            os.setxattr(path, name, value, flags, follow_symlinks=self.follow)
        except OSError as exc:
            self.closer(exc, path, WritableLayer.set_attribute, name, value, flags)

    def remove_attribute(self, path: bytes, name: bytes | str) -> None:
        """Remove an extended attribute; ENODATA where there is none."""
        try:
            os.fchdir(self.at)
            os.removexattr(path, name, follow_symlinks=self.follow)
        except OSError as exc:
            self.closer(exc, path, WritableLayer.remove_attribute, name)

    def set_flags(self, path: bytes, command: int, flags: bytes) -> None:
        """Set inode flags of a file or directory by the ioctl(2) *command*: ioctl_iflags(2)."""
        fd = self.open(path, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, command, flags)
        finally:
            os.close(fd)

    # Open files, which are beyond all paths

    def truncate(self, fd: int, size: int) -> None:
        """Set the size of an open file, in bytes."""
        os.ftruncate(fd, size)

    def write(self, fd: int, data: memoryview, offset: int, flags: int) -> int:
        """Write to an open file as one opened with *flags* would: only O_SYNC and O_DSYNC count."""
        if not flags & os.O_DSYNC:
            return os.pwrite(fd, data, offset)
        how = os.RWF_SYNC if flags & os.O_SYNC == os.O_SYNC else os.RWF_DSYNC
        return os.pwritev(fd, [data], offset, how)

    def allocate(self, fd: int, mode: int, offset: int, length: int) -> None:
        """Reserve, zero or free room of an open file: fallocate(2)."""
        syscalls.fallocate(fd, mode, offset, length)

    def copy_range(self, source: int, start: int, fd: int, offset: int, length: int) -> int:
        """Copy between open files as copy_file_range(2); return the number of bytes."""
        return os.copy_file_range(source, fd, length, start, offset)

    def copy_bytes(self, source: int, start: int, fd: int, offset: int, length: int) -> int:
        """Copy a few bytes by hand, as copy_file_range(2) between file systems is EXDEV."""
        return os.pwrite(fd, os.pread(source, length, start), offset)


def is_directory(st: os.stat_result) -> bool:
    """Tell whether *st* describes a directory."""
    return stat.S_ISDIR(st.st_mode)
