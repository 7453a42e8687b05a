"""What a program does to files, as system calls below a directory or a mount.

`client` has the same verbs as requests to the core, so that one list of
operations runs on a plain directory, on a mount and without one.
"""

import fcntl
import os

from unionfs.fuse.session.privileges import CAP_FSETID, Without
from unionfs.host import syscalls
from unionfs.layers.iflags import FLAGS

from .trees import CHANGEABLE

STRANGER = 4711  # user and group of one who keeps no set-uid bits


class Plain:
    """The verbs, as system calls below a directory."""

    def __init__(self, top: str) -> None:
        self.top = top

    def path(self, name: str) -> str:
        return f"{self.top}/{name}"

    def stranger(self, verb: str, *args) -> None:
        """Use a verb as one who has all rights, but for that to keep set-uid bits."""
        os.setegid(STRANGER)
        try:
            with Without(CAP_FSETID):
                getattr(self, verb)(*args)
        finally:
            os.setegid(0)

    def append(self, name: str, data: bytes) -> None:
        self._write(name, data, os.O_APPEND)

    def overwrite(self, name: str, data: bytes) -> None:
        self._write(name, data, 0)

    def _write(self, name: str, data: bytes, flags: int) -> None:
        fd = os.open(self.path(name), os.O_WRONLY | flags)
        try:
            os.write(fd, data)
        finally:
            os.close(fd)

    def empty(self, name: str) -> None:
        os.close(os.open(self.path(name), os.O_WRONLY | os.O_TRUNC))

    def fill(self, name: str) -> None:
        """Change nothing that is seen."""

    def create(self, name: str, mode: int = 0o644) -> None:
        os.close(os.open(self.path(name), os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode))

    def truncate(self, name: str, size: int) -> None:
        os.truncate(self.path(name), size)

    def chmod(self, name: str, mode: int) -> None:
        os.chmod(self.path(name), mode)

    def chown(self, name: str, uid: int, gid: int) -> None:
        os.chown(self.path(name), uid, gid, follow_symlinks=False)

    def utime(self, name: str, ns: int) -> None:
        os.utime(self.path(name), ns=(ns, ns), follow_symlinks=False)

    def setxattr(self, name: str, attribute: str, value: bytes) -> None:
        os.setxattr(self.path(name), attribute, value, follow_symlinks=False)

    def removexattr(self, name: str, attribute: str) -> None:
        os.removexattr(self.path(name), attribute, follow_symlinks=False)

    def mkdir(self, name: str, mode: int = 0o755) -> None:
        os.mkdir(self.path(name), mode)

    def rmdir(self, name: str) -> None:
        os.rmdir(self.path(name))

    def unlink(self, name: str) -> None:
        os.unlink(self.path(name))

    def symlink(self, target: str, name: str) -> None:
        os.symlink(target, self.path(name))

    def mknod(self, name: str, mode: int, device: int = 0) -> None:
        os.mknod(self.path(name), mode, device)

    def link(self, name: str, new: str) -> None:
        os.link(self.path(name), self.path(new), follow_symlinks=False)

    def link_unnamed(self, name: str, data: bytes) -> None:
        directory = os.path.dirname(self.path(name))
        fd = os.open(directory, os.O_RDWR | os.O_TMPFILE, 0o644)
        try:
            os.write(fd, data)
            here = os.open("/proc/self/fd", os.O_RDONLY)
            try:
                os.link(str(fd), self.path(name), src_dir_fd=here, follow_symlinks=True)
            finally:
                os.close(here)
        finally:
            os.close(fd)

    def set_flags(self, name: str, flags: int) -> None:
        """Set and take away `CHANGEABLE` flags so that they are *flags*."""
        fd = os.open(self.path(name), os.O_RDONLY | os.O_NONBLOCK)
        try:
            have = FLAGS.flags(fcntl.ioctl(fd, FLAGS.read, bytes(4)))
            wished = FLAGS.with_flags(b"", have & ~CHANGEABLE | flags)
            fcntl.ioctl(fd, FLAGS.write, wished)
        finally:
            os.close(fd)

    def rename(self, name: str, new: str, flags: int = 0) -> None:
        old_path, new_path = os.fsencode(self.path(name)), os.fsencode(self.path(new))
        syscalls.renameat2(-100, old_path, -100, new_path, flags)
