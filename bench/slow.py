"""A server of a directory, read-only, whose every call takes a while, or waits until told.

    python -m bench.slow SOURCE MOUNTPOINT SECONDS

says `serving`, then takes orders from stdin, and answers each by a line: `hang`, `go`,
`take SECONDS` (for each call from now on), `fail OPERATION` (EIO from now on), `count OPERATION`
(how often that was asked for), `last OPERATION NAME` likewise for one name.  Nothing of it stays
in the kernel's caches but what has been read.  The tests use it, too.
"""

from __future__ import annotations

import errno
import os
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import pyfuse3
import trio
from pyfuse3 import EntryAttributes, FileInfo, FUSEError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


def _handler(method: Callable[..., Any]) -> Callable[..., Coroutine[Any, Any, Any]]:
    """Make a handler of a method that makes system calls at once."""
    name = method.__name__

    async def handler(self: Server, *args: Any) -> Any:
        self.counts[name] += 1
        if name == "lookup":
            self.counts[name, args[1].decode()] += 1
        await self.patience()
        if name == self.failing:
            raise FUSEError(errno.EIO)
        try:
            return method(self, *args)
        except OSError as exc:
            raise FUSEError(exc.errno) from None

    handler.__name__ = name
    return handler


class Server(pyfuse3.Operations):
    """The directory, and what it has been asked for."""

    enable_acl = False

    def __init__(self, source: str, seconds: float) -> None:
        super().__init__()
        self.paths = {pyfuse3.ROOT_INODE: os.fsencode(source)}
        self.seconds = seconds
        self.failing = ""  # an operation
        self.going = trio.Event()
        self.going.set()
        self.counts: Counter[Any] = Counter()

    async def patience(self) -> None:
        """Take as long as a call takes."""
        if self.seconds:
            await trio.sleep(self.seconds)
        await self.going.wait()

    def _number(self, path: bytes) -> int:
        st = os.lstat(path)
        if path == self.paths[pyfuse3.ROOT_INODE]:
            return pyfuse3.ROOT_INODE
        number = st.st_ino + 1
        self.paths[number] = path
        return number

    def _entry(self, path: bytes) -> EntryAttributes:
        st, entry = os.lstat(path), EntryAttributes()
        entry.st_ino = self._number(path)
        for field in ("mode", "nlink", "uid", "gid", "rdev", "size", "blocks",
                      "atime_ns", "mtime_ns", "ctime_ns"):  # fmt: skip
            setattr(entry, f"st_{field}", getattr(st, f"st_{field}"))
        entry.entry_timeout = entry.attr_timeout = 0
        return entry

    @_handler
    def lookup(self, parent: int, name: bytes, _ctx: object) -> EntryAttributes:
        return self._entry(os.path.join(self.paths[parent], name))

    async def forget(self, inode_list: object) -> None:
        pass

    @_handler
    def getattr(self, inode: int, _ctx: object) -> EntryAttributes:
        return self._entry(self.paths[inode])

    @_handler
    def readlink(self, inode: int, _ctx: object) -> bytes:
        return os.readlink(self.paths[inode])

    @_handler
    def opendir(self, inode: int, _ctx: object) -> int:
        return inode

    async def releasedir(self, _fh: int) -> None:
        pass

    async def readdir(self, fh: int, start: int, token: Any) -> None:
        self.counts["readdir"] += 1
        await self.patience()
        path = self.paths[fh]
        for index, name in enumerate(sorted(os.listdir(path))[start:], start):
            if not pyfuse3.readdir_reply(
                token, name, self._entry(os.path.join(path, name)), index + 1
            ):
                break

    @_handler
    def open(self, inode: int, flags: int, _ctx: object) -> FileInfo:
        return FileInfo(fh=os.open(self.paths[inode], flags & ~os.O_NOFOLLOW & ~os.O_ACCMODE))

    @_handler
    def read(self, fh: int, offset: int, size: int) -> bytes:
        return os.pread(fh, size, offset)

    @_handler
    def flush(self, _fh: int) -> None:
        pass

    async def release(self, fh: int) -> None:
        os.close(fh)

    @_handler
    def listxattr(self, inode: int, _ctx: object) -> list[bytes]:
        names = os.listxattr(self.paths[inode], follow_symlinks=False)
        return [name.encode() for name in names if not name.startswith("trusted.overlay")]

    @_handler
    def getxattr(self, inode: int, name: bytes, _ctx: object) -> bytes:
        return os.getxattr(self.paths[inode], name, follow_symlinks=False)

    @_handler
    def statfs(self, _ctx: object) -> pyfuse3.StatvfsData:
        figures, data = os.statvfs(self.paths[pyfuse3.ROOT_INODE]), pyfuse3.StatvfsData()
        for field in ("bsize", "frsize", "blocks", "bfree", "bavail", "files", "ffree", "favail",
                      "namemax"):  # fmt: skip
            setattr(data, f"f_{field}", getattr(figures, f"f_{field}"))
        return data

    def obey(self, order: str) -> str:
        """Do as told, and return what to say."""
        word, *rest = order.split()
        if word == "hang":
            self.going = trio.Event()
        elif word == "go":
            self.going.set()
        elif word == "take":
            self.seconds = float(rest[0])
        elif word == "fail":
            (self.failing,) = rest
        elif word == "count":
            return str(self.counts[rest[0]])
        elif word == "last":
            return str(self.counts[rest[0], rest[1]])
        else:
            raise OSError(errno.EINVAL, order)
        return word


async def _listen(server: Server) -> None:
    stream = trio.lowlevel.FdStream(os.dup(0))
    text = b""
    while data := await stream.receive_some():
        text += data
        while b"\n" in text:
            line, text = text.split(b"\n", 1)
            print(server.obey(line.decode()), flush=True)


async def _serve(server: Server) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_listen, server)
        print("serving", flush=True)
        await pyfuse3.main(1, 100)
        nursery.cancel_scope.cancel()


def main(source: str, mountpoint: str, seconds: str) -> None:
    """Serve until unmounted."""
    server = Server(source, float(seconds))
    pyfuse3.init(server, mountpoint, {"default_permissions", "fsname=slow", "subtype=slow", "ro"})
    try:
        trio.run(_serve, server)
    finally:
        pyfuse3.close(unmount=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
