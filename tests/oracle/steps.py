"""What a program may do to a tree, step by step, and what it is told.

A `Player` carries the same steps out in any directory.  What it returns is all
that the caller of the system call learns, but for inode numbers, which are
handed to `witness`: they differ from one file system to the next.
"""

import contextlib
import errno
import mmap
import os
import stat
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from unionfs.host import syscalls

from .trees import content_of, mtime_of


class Step(NamedTuple):
    """One system call, or a few that belong together."""

    verb: str
    args: tuple[Any, ...] = ()

    def __str__(self) -> str:
        return f"{self.verb}({', '.join(_short(arg) for arg in self.args)})"


def _short(arg: Any) -> str:
    if isinstance(arg, bytes) and len(arg) > 20:
        return f"{arg[:1]!r} * {len(arg)}"
    return repr(arg)


# Is told what was looked at, and the path or descriptor by which.
Witness = Callable[[os.stat_result, str | int], None]


class Player:
    """One program at work in one directory."""

    def __init__(
        self, root: str, witness: Witness = lambda _st, _at: None, *, forgiving: bool = False
    ) -> None:
        self.root = root
        self.forgiving = forgiving  # of names that are listed and not there
        self.witness = witness
        self.user = 0
        self._open: dict[int, int] = {}  # slot -> descriptor

    def play(self, step: Step) -> Any:
        """Carry a step out; return what it says, or the name of its errno."""
        try:
            with self._as_user():
                return getattr(self, "do_" + step.verb)(*step.args)
        except OSError as exc:
            return errno.errorcode[exc.errno or 0]

    def close(self) -> None:
        """Close what is open."""
        while self._open:
            os.close(self._open.popitem()[1])

    @contextlib.contextmanager
    def _as_user(self) -> Iterator[None]:
        if not self.user:
            yield
            return
        os.setegid(self.user)
        os.seteuid(self.user)
        try:
            yield
        finally:
            os.seteuid(0)
            os.setegid(0)

    def _at(self, path: str) -> str:
        return os.path.join(self.root, path)

    def _slot(self, slot: int) -> int:
        if slot not in self._open:
            raise OSError(errno.EBADF, "nothing is open there")
        return self._open[slot]

    def _attributes(self, st: os.stat_result, at: str | int) -> tuple[int, ...]:
        self.witness(st, at)
        directory = stat.S_ISDIR(st.st_mode)
        return (
            st.st_mode, st.st_uid, st.st_gid, st.st_rdev, mtime_of(st),
            0 if directory else st.st_size,
            min(st.st_nlink, 1) if directory else st.st_nlink,
        )  # fmt: skip

    def do_become(self, user: int) -> None:
        self.user = user

    # Looking

    def do_stat(self, path: str) -> Any:
        at = self._at(path)
        return self._attributes(os.lstat(at), at)

    def do_read(self, path: str) -> Any:
        at = self._at(path)
        return content_of(at, os.lstat(at))

    def do_list(self, path: str) -> Any:
        found = []
        with os.scandir(self._at(path)) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                try:
                    st = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    if self.forgiving:
                        continue
                    raise
                found.append((entry.name, stat.S_IFMT(st.st_mode)))
                self.witness(st, entry.path)
                if entry.inode() != st.st_ino:
                    found.append((f"{path}/{entry.name}: d_ino is not st_ino", 0))
        return found

    def do_attributes(self, path: str) -> Any:
        at = self._at(path)
        names = sorted(os.listxattr(at, follow_symlinks=False))
        return [(name, os.getxattr(at, name, follow_symlinks=False)) for name in names]

    # Names

    def do_create(self, path: str, mode: int) -> Any:
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
        fd = os.open(self._at(path), flags, mode)
        try:
            return self._attributes(os.fstat(fd), fd)
        finally:
            os.close(fd)

    def do_mkdir(self, path: str, mode: int) -> None:
        os.mkdir(self._at(path), mode)

    def do_mknod(self, path: str, mode: int, device: int) -> None:
        os.mknod(self._at(path), mode, device)

    def do_symlink(self, target: str, path: str) -> None:
        os.symlink(target, self._at(path))

    def do_link(self, path: str, new: str) -> Any:
        os.link(self._at(path), self._at(new), follow_symlinks=False)
        return self._attributes(os.lstat(self._at(new)), self._at(new))

    def do_unlink(self, path: str) -> None:
        os.unlink(self._at(path))

    def do_rmdir(self, path: str) -> None:
        os.rmdir(self._at(path))

    def do_rename(self, path: str, new: str, flags: int) -> None:
        syscalls.renameat2(
            -100, os.fsencode(self._at(path)), -100, os.fsencode(self._at(new)), flags
        )

    # Contents and attributes

    def do_write(self, path: str, flags: int, offset: int, data: bytes) -> Any:
        fd = os.open(self._at(path), os.O_WRONLY | os.O_NONBLOCK | flags, 0o640)
        try:
            return os.pwrite(fd, data, offset)
        finally:
            os.close(fd)

    def do_truncate(self, path: str, size: int) -> None:
        os.truncate(self._at(path), size)

    def do_chmod(self, path: str, mode: int) -> None:
        os.chmod(self._at(path), mode)

    def do_chown(self, path: str, uid: int, gid: int) -> None:
        os.chown(self._at(path), uid, gid, follow_symlinks=False)

    def do_utime(self, path: str, atime: int, mtime: int) -> Any:
        os.utime(self._at(path), ns=(atime, mtime), follow_symlinks=False)
        return os.lstat(self._at(path)).st_atime_ns

    def do_setxattr(self, path: str, name: str, value: bytes, flags: int) -> None:
        os.setxattr(self._at(path), name, value, flags, follow_symlinks=False)

    def do_removexattr(self, path: str, name: str) -> None:
        os.removexattr(self._at(path), name, follow_symlinks=False)

    # Open files, kept over other steps

    def do_open(self, slot: int, path: str, flags: int) -> None:
        fd = os.open(self._at(path), flags | os.O_NONBLOCK, 0o644)
        if slot in self._open:
            os.close(self._open[slot])
        self._open[slot] = fd

    def do_close(self, slot: int) -> None:
        os.close(self._slot(slot))
        del self._open[slot]

    def do_fread(self, slot: int, offset: int, size: int) -> Any:
        return os.pread(self._slot(slot), size, offset)

    def do_fwrite(self, slot: int, offset: int, data: bytes) -> Any:
        return os.pwrite(self._slot(slot), data, offset)

    def do_fstat(self, slot: int) -> Any:
        fd = self._slot(slot)
        return self._attributes(os.fstat(fd), fd)

    def do_ftruncate(self, slot: int, size: int) -> None:
        os.ftruncate(self._slot(slot), size)

    def do_fchmod(self, slot: int, mode: int) -> None:
        os.fchmod(self._slot(slot), mode)

    def do_fchown(self, slot: int, uid: int, gid: int) -> None:
        os.fchown(self._slot(slot), uid, gid)

    def do_futime(self, slot: int, mtime: int) -> None:
        os.utime(self._slot(slot), ns=(mtime, mtime))

    def do_fsetxattr(self, slot: int, name: str, value: bytes) -> None:
        os.setxattr(self._slot(slot), name, value)

    def do_fattributes(self, slot: int) -> Any:
        fd = self._slot(slot)
        return [(name, os.getxattr(fd, name)) for name in sorted(os.listxattr(fd))]

    def do_fsync(self, slot: int) -> None:
        os.fsync(self._slot(slot))

    def do_flist(self, slot: int) -> Any:
        return sorted(os.listdir(self._slot(slot)))

    def do_fcreate(self, slot: int, name: str) -> None:
        directory = self._slot(slot)
        os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600, dir_fd=directory))

    def do_flink(self, slot: int, path: str) -> None:
        source = f"/proc/self/fd/{self._slot(slot)}"
        os.link(source, self._at(path), follow_symlinks=True)

    def do_map_read(self, slot: int) -> Any:
        with self._map(slot, mmap.ACCESS_READ) as memory:
            return memory[:]

    def do_map_write(self, slot: int, data: bytes) -> None:
        with self._map(slot, mmap.ACCESS_WRITE) as memory:
            count = min(len(memory), len(data))
            memory[:count] = data[:count]

    def _map(self, slot: int, access: int) -> mmap.mmap:
        fd = self._slot(slot)
        size = os.fstat(fd).st_size
        if not size or not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "nothing to map: mmap(2)")
        return mmap.mmap(fd, size, access=access)
