"""The floor: a directory mirrored with pyfuse3 as it comes, without any union or trick.

    python -m bench.floor SOURCE MOUNTPOINT

What this costs over the plain directory is what pyfuse3, libfuse and the
kernel's FUSE cost anybody who writes a filesystem in the obvious way.  A node
is known by the inode number that its file has in SOURCE and remembers one
parent and name, from which its path is computed.
"""

from __future__ import annotations

import errno
import functools
import itertools
import os
import stat
import sys
from typing import TYPE_CHECKING, Any

import pyfuse3
import trio

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

STAT_FIELDS = (
    *("st_ino", "st_mode", "st_nlink", "st_uid", "st_gid", "st_rdev", "st_size", "st_blocks"),
    *("st_atime_ns", "st_mtime_ns", "st_ctime_ns"),
)


def _replying(
    handler: Callable[..., Coroutine[Any, Any, Any]],
) -> Callable[..., Coroutine[Any, Any, Any]]:
    """Let *handler* raise OSError."""

    @functools.wraps(handler)
    async def reply(*args: Any) -> Any:
        try:
            return await handler(*args)
        except OSError as error:
            raise pyfuse3.FUSEError(error.errno or errno.EIO) from None

    return reply


def _entry(st: os.stat_result, *, root: bool = False) -> pyfuse3.EntryAttributes:
    entry = pyfuse3.EntryAttributes()
    for field in STAT_FIELDS:
        setattr(entry, field, getattr(st, field))
    if root:
        entry.st_ino = pyfuse3.ROOT_INODE
    return entry


class Mirror(pyfuse3.Operations):
    """The requests, each answered by the same call on the mirrored directory."""

    supports_dot_lookup = False

    def __init__(self, source: bytes) -> None:
        super().__init__()
        self.source = source
        self.names: dict[int, tuple[int, bytes]] = {}  # inode -> its parent's inode and its name
        self.lookups: dict[int, int] = {}  # inode -> entries handed out and not forgotten
        self.opened: dict[int, int] = {}  # inode -> a descriptor of it, for when it has no name
        self.listings: dict[int, tuple[int, list[bytes]]] = {}  # handle -> directory and its names
        self.handles = itertools.count(1)

    def path(self, inode: int) -> bytes:
        if inode == pyfuse3.ROOT_INODE:
            return self.source
        parent, name = self.names[inode]
        return self.path(parent) + b"/" + name

    def child(self, parent: int, name: bytes) -> bytes:
        return self.path(parent) + b"/" + name

    def learn(self, parent: int, name: bytes) -> pyfuse3.EntryAttributes:
        st = os.lstat(self.child(parent, name))
        self.names[st.st_ino] = (parent, name)
        self.lookups[st.st_ino] = self.lookups.get(st.st_ino, 0) + 1
        return _entry(st)

    def stat(self, inode: int) -> pyfuse3.EntryAttributes:
        try:
            st = os.lstat(self.path(inode))
        except FileNotFoundError:
            if inode not in self.opened:
                raise
            st = os.fstat(self.opened[inode])
        return _entry(st, root=inode == pyfuse3.ROOT_INODE)

    @_replying
    async def lookup(self, parent: int, name: bytes, _ctx: object) -> pyfuse3.EntryAttributes:
        return self.learn(parent, name)

    async def forget(self, inodes: Sequence[tuple[int, int]]) -> None:
        for inode, count in inodes:
            left = self.lookups.get(inode, 0) - count
            if left > 0:
                self.lookups[inode] = left
            else:
                self.lookups.pop(inode, None)
                self.names.pop(inode, None)

    @_replying
    async def getattr(self, inode: int, _ctx: object) -> pyfuse3.EntryAttributes:
        return self.stat(inode)

    @_replying
    async def setattr(
        self,
        inode: int,
        attr: pyfuse3.EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: int | None,
        _ctx: object,
    ) -> pyfuse3.EntryAttributes:
        path = self.path(inode)
        if fields.update_size:
            os.truncate(path if fh is None else fh, attr.st_size)
        if fields.update_mode:
            os.chmod(path, stat.S_IMODE(attr.st_mode))
        if fields.update_uid or fields.update_gid:
            uid = attr.st_uid if fields.update_uid else -1
            os.lchown(path, uid, attr.st_gid if fields.update_gid else -1)
        if fields.update_atime or fields.update_mtime:
            old = self.stat(inode)
            atime = attr.st_atime_ns if fields.update_atime else old.st_atime_ns
            mtime = attr.st_mtime_ns if fields.update_mtime else old.st_mtime_ns
            os.utime(path, ns=(atime, mtime), follow_symlinks=False)
        return self.stat(inode)

    @_replying
    async def readlink(self, inode: int, _ctx: object) -> bytes:
        return os.readlink(self.path(inode))

    @_replying
    async def mknod(
        self, parent: int, name: bytes, mode: int, rdev: int, _ctx: object
    ) -> pyfuse3.EntryAttributes:
        os.mknod(self.child(parent, name), mode, rdev)
        return self.learn(parent, name)

    @_replying
    async def mkdir(
        self, parent: int, name: bytes, mode: int, _ctx: object
    ) -> pyfuse3.EntryAttributes:
        os.mkdir(self.child(parent, name), mode)
        return self.learn(parent, name)

    @_replying
    async def symlink(
        self, parent: int, name: bytes, target: bytes, _ctx: object
    ) -> pyfuse3.EntryAttributes:
        os.symlink(target, self.child(parent, name))
        return self.learn(parent, name)

    @_replying
    async def link(
        self, inode: int, parent: int, name: bytes, _ctx: object
    ) -> pyfuse3.EntryAttributes:
        os.link(self.path(inode), self.child(parent, name), follow_symlinks=False)
        return self.learn(parent, name)

    @_replying
    async def unlink(self, parent: int, name: bytes, _ctx: object) -> None:
        os.unlink(self.child(parent, name))

    @_replying
    async def rmdir(self, parent: int, name: bytes, _ctx: object) -> None:
        os.rmdir(self.child(parent, name))

    @_replying
    async def rename(
        self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int, _ctx: object
    ) -> None:
        if flags:
            raise pyfuse3.FUSEError(errno.EINVAL)
        os.rename(self.child(parent, name), target := self.child(new_parent, new_name))
        self.names[os.lstat(target).st_ino] = (new_parent, new_name)

    @_replying
    async def open(self, inode: int, flags: int, _ctx: object) -> pyfuse3.FileInfo:
        fd = os.open(self.path(inode), flags & ~os.O_NOFOLLOW)
        self.opened[inode] = fd
        return pyfuse3.FileInfo(fh=fd)

    @_replying
    async def create(
        self, parent: int, name: bytes, mode: int, flags: int, _ctx: object
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]:
        fd = os.open(self.child(parent, name), flags | os.O_CREAT, mode)
        entry = self.learn(parent, name)
        self.opened[entry.st_ino] = fd
        return pyfuse3.FileInfo(fh=fd), entry

    @_replying
    async def read(self, fh: int, offset: int, size: int) -> bytes:
        return os.pread(fh, size, offset)

    @_replying
    async def write(self, fh: int, offset: int, data: bytes) -> int:
        return os.pwrite(fh, data, offset)

    @_replying
    async def release(self, fh: int) -> None:
        inode = os.fstat(fh).st_ino
        if self.opened.get(inode) == fh:
            del self.opened[inode]
        os.close(fh)

    @_replying
    async def fsync(self, fh: int, datasync: bool) -> None:  # noqa: FBT001 - pyfuse3's signature
        (os.fdatasync if datasync else os.fsync)(fh)

    @_replying
    async def opendir(self, inode: int, _ctx: object) -> int:
        handle = next(self.handles)
        self.listings[handle] = inode, os.listdir(self.path(inode))
        return handle

    async def releasedir(self, handle: int) -> None:
        del self.listings[handle]

    @_replying
    async def readdir(self, handle: int, start: int, token: pyfuse3.ReaddirToken) -> None:
        inode, names = self.listings[handle]
        for index in range(start, len(names)):
            name = names[index]
            st = os.lstat(self.child(inode, name))
            if not pyfuse3.readdir_reply(token, name, _entry(st), index + 1):
                break
            self.names[st.st_ino] = (inode, name)
            self.lookups[st.st_ino] = self.lookups.get(st.st_ino, 0) + 1

    @_replying
    async def statfs(self, _ctx: object) -> pyfuse3.StatvfsData:
        answer, st = pyfuse3.StatvfsData(), os.statvfs(self.source)
        for field in ("f_bsize", "f_frsize", "f_blocks", "f_bfree", "f_bavail", "f_files"):
            setattr(answer, field, getattr(st, field))
        answer.f_ffree, answer.f_favail, answer.f_namemax = st.f_ffree, st.f_favail, st.f_namemax
        return answer

    @_replying
    async def getxattr(self, inode: int, name: bytes, _ctx: object) -> bytes:
        return os.getxattr(self.path(inode), name, follow_symlinks=False)

    @_replying
    async def setxattr(self, inode: int, name: bytes, value: bytes, _ctx: object) -> None:
        os.setxattr(self.path(inode), name, value, follow_symlinks=False)

    @_replying
    async def removexattr(self, inode: int, name: bytes, _ctx: object) -> None:
        os.removexattr(self.path(inode), name, follow_symlinks=False)

    @_replying
    async def listxattr(self, inode: int, _ctx: object) -> list[bytes]:
        return [os.fsencode(name) for name in os.listxattr(self.path(inode))]


def main() -> None:
    """Serve until unmounted."""
    source, mountpoint = sys.argv[1:]
    os.umask(0)  # the kernel has applied the caller's
    options = {"fsname=floor", "default_permissions", "allow_other"} | pyfuse3.default_options
    pyfuse3.init(Mirror(os.fsencode(source)), mountpoint, options)
    try:
        trio.run(pyfuse3.main)
    finally:
        pyfuse3.close(unmount=False)


if __name__ == "__main__":
    main()
