"""One directory tree of the host, reached through a descriptor of its root.

Paths are relative to that root, `b"."` is the root itself; none passes through
a symlink, since the union only builds them from directories that it has seen.
A `Layer` has no verb that writes, a `WritableLayer` (upper and work) has: the
type checker sees that a lower layer is never written to.  Every system call of
the daemon that changes names or attributes is a method of `WritableLayer`;
the crash tests count, stop and fail there.

Extended attributes have no *at() calls before Linux 6.13, so those methods
enter the layer with fchdir(2) first: no /proc is needed, and a path may be as
long as PATH_MAX.  Nothing in the daemon relies on the working directory
otherwise, and threads work on descriptors alone.
"""

import errno
import fcntl
import os
import stat
from collections.abc import Iterator

from unionfs import syscalls

_NO_ATTRIBUTES = frozenset({errno.ENODATA, errno.EOPNOTSUPP})
_OPEN = os.O_CLOEXEC | os.O_NOFOLLOW


def join(path: bytes, name: bytes) -> bytes:
    """Return the path of *name* in the directory *path*."""
    return name if path == b"." else path + b"/" + name


class Layer:
    """A host directory tree that is only read."""

    follow = False  # do the verbs follow a last symlink? only `Pins`

    def __init__(self, fd: int, *, number: int = 0, name: str = "") -> None:
        self.fd = fd
        self.number = number  # from the bottom: the lowest lower is 1; upper and work are 0
        self.name = name  # for messages
        self.device = os.fstat(fd).st_dev

    def stat(self, path: bytes) -> os.stat_result:
        """Return the attributes of *path*; a symlink is not followed."""
        return os.stat(path, dir_fd=self.fd, follow_symlinks=self.follow)

    def find(self, path: bytes) -> os.stat_result | None:
        """Return the attributes of *path*, or None where nothing bears that name."""
        try:
            return os.stat(path, dir_fd=self.fd, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def is_guarded(self, path: bytes) -> bool:
        """Tell whether statx(2) calls *path* immutable or append-only."""
        return syscalls.is_guarded(self.fd, path)

    def open(self, path: bytes, flags: int) -> int:
        """Open an existing object and return a descriptor."""
        return os.open(path, flags | _OPEN, dir_fd=self.fd)

    def readlink(self, path: bytes) -> bytes:
        """Return the target of the symlink *path*."""
        return os.readlink(path, dir_fd=self.fd)

    def scan(self, path: bytes) -> Iterator["os.DirEntry[bytes]"]:
        """Yield the entries of the directory *path*, in the host's order."""
        fd = self.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fchdir(fd)
            with os.scandir(b".") as entries:
                yield from list(entries)
        finally:
            os.close(fd)
            # One that is deleted now, and still the working directory, would keep its file system
            # from being remounted read-only.
            os.fchdir(self.fd)

    def attributes(self, path: bytes) -> list[str]:
        """Return the names of the extended attributes of *path*; none where unsupported."""
        os.fchdir(self.fd)
        try:
            return os.listxattr(path, follow_symlinks=self.follow)
        except OSError as exc:
            if exc.errno == errno.EOPNOTSUPP:
                return []
            raise

    def attribute(self, path: bytes, name: bytes | str) -> bytes:
        """Return the value of one extended attribute; ENODATA where there is none."""
        os.fchdir(self.fd)
        return os.getxattr(path, name, follow_symlinks=self.follow)

    def find_attribute(self, path: bytes, name: bytes | str) -> bytes | None:
        """Return the value of one extended attribute, or None."""
        try:
            return self.attribute(path, name)
        except OSError as exc:
            if exc.errno in _NO_ATTRIBUTES:
                return None
            raise


class WritableLayer(Layer):
    """A layer that may change: upper and work.  No lower layer is one."""

    def create(self, path: bytes, flags: int, mode: int) -> int:
        """Create a regular file and return its descriptor; EEXIST where the name is taken."""
        return os.open(path, flags | os.O_CREAT | os.O_EXCL | _OPEN, mode, dir_fd=self.fd)

    def create_unnamed(self, path: bytes, flags: int, mode: int) -> int:
        """Create a regular file without a name in the directory *path*; return its descriptor.

        Open(2), O_TMPFILE; EOPNOTSUPP where the file system has no such files.
        """
        return os.open(path, flags | os.O_TMPFILE | _OPEN, mode, dir_fd=self.fd)

    def open_to_write(self, path: bytes, flags: int) -> int:
        """Open an existing file for writing; O_TRUNC among *flags* truncates it."""
        return os.open(path, flags | (0 if self.follow else _OPEN), dir_fd=self.fd)

    def mkdir(self, path: bytes, mode: int) -> None:
        """Make a directory."""
        os.mkdir(path, mode, dir_fd=self.fd)

    def mknod(self, path: bytes, mode: int, device: int) -> None:
        """Make a FIFO, a socket, a device or an empty regular file."""
        os.mknod(path, mode, device, dir_fd=self.fd)

    def symlink(self, target: bytes, path: bytes) -> None:
        """Make a symlink at *path* that holds *target*."""
        os.symlink(target, path, dir_fd=self.fd)

    def link(self, path: bytes, other: "WritableLayer", target: bytes) -> None:
        """Give the object at *path* the name *target* in *other* too."""
        os.link(path, target, src_dir_fd=self.fd, dst_dir_fd=other.fd, follow_symlinks=self.follow)

    def unlink(self, path: bytes) -> None:
        """Remove a name that is not a directory."""
        os.unlink(path, dir_fd=self.fd)

    def rmdir(self, path: bytes) -> None:
        """Remove an empty directory."""
        os.rmdir(path, dir_fd=self.fd)

    def move(self, path: bytes, other: "WritableLayer", target: bytes) -> None:
        """Give *path* the name *target*, replacing what has it: rename(2)."""
        os.rename(path, target, src_dir_fd=self.fd, dst_dir_fd=other.fd)

    def exchange(self, path: bytes, other: "WritableLayer", target: bytes) -> None:
        """Swap two names in one step: renameat2(2), RENAME_EXCHANGE."""
        syscalls.renameat2(self.fd, path, other.fd, target, syscalls.RENAME_EXCHANGE)

    def move_and_cover(self, path: bytes, target: bytes) -> None:
        """Rename and leave a whiteout at *path* in one step: RENAME_WHITEOUT."""
        syscalls.renameat2(self.fd, path, self.fd, target, syscalls.RENAME_WHITEOUT)

    def chmod(self, path: bytes, mode: int) -> None:
        """Set the mode; *path* is not a symlink."""
        os.chmod(path, mode, dir_fd=self.fd)

    def chown(self, path: bytes, uid: int, gid: int) -> None:
        """Set owner and group; -1 leaves one as it is."""
        os.chown(path, uid, gid, dir_fd=self.fd, follow_symlinks=self.follow)

    def utime(self, path: bytes, atime_ns: int, mtime_ns: int) -> None:
        """Set both times, in nanoseconds since the epoch."""
        os.utime(path, ns=(atime_ns, mtime_ns), dir_fd=self.fd, follow_symlinks=self.follow)

    def set_flags(self, path: bytes, command: int, flags: bytes) -> None:
        """Set inode flags of a file or directory by the ioctl(2) *command*: ioctl_iflags(2)."""
        fd = self.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            fcntl.ioctl(fd, command, flags)
        finally:
            os.close(fd)

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
        """Copy between open files as copy_file_range(2), and return how many bytes it were."""
        return os.copy_file_range(source, fd, length, start, offset)

    def copy_bytes(self, source: int, start: int, fd: int, offset: int, length: int) -> int:
        """Do the same by hand, for a few bytes between file systems: there it is EXDEV."""
        return os.pwrite(fd, os.pread(source, length, start), offset)

    def set_attribute(self, path: bytes, name: bytes | str, value: bytes, flags: int = 0) -> None:
        """Set an extended attribute; *flags* as setxattr(2) takes them."""
        os.fchdir(self.fd)
        os.setxattr(path, name, value, flags, follow_symlinks=self.follow)

    def remove_attribute(self, path: bytes, name: bytes | str) -> None:
        """Remove an extended attribute; ENODATA where there is none."""
        os.fchdir(self.fd)
        os.removexattr(path, name, follow_symlinks=self.follow)


class Pins(WritableLayer):
    """Upper objects that lost their last name, reached through descriptors held open.

    The path of a pin is its magic link (proc_pid_fd(5)), so every verb follows it.
    """

    follow = True

    def __init__(self) -> None:
        super().__init__(os.open(b"/proc/self/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        # Relative to the held directory, so /proc itself may go away later.

    def open(self, path: bytes, flags: int) -> int:
        """Open the pinned object once more."""
        return os.open(path, flags | os.O_CLOEXEC, dir_fd=self.fd)

    def readlink(self, path: bytes) -> bytes:
        """Return the target of a pinned symlink: readlink(2), "empty pathname"."""
        return os.readlink(b"", dir_fd=int(path))


def path_of_pin(fd: int) -> bytes:
    """Return the path of the descriptor *fd* in `Pins`."""
    return b"%d" % fd


def is_directory(st: os.stat_result) -> bool:
    """Tell whether *st* describes a directory."""
    return stat.S_ISDIR(st.st_mode)
