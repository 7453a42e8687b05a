"""A server of a directory, read-only, whose every call takes a while, or waits until told.

    python -m tests.far.server SOURCE MOUNTPOINT SECONDS

says `serving`, then takes orders from stdin, and answers each by a line: `hang`, `go`,
`count OPERATION` (how often that was asked for), `last OPERATION NAME` likewise for one name.
Nothing of it stays in the kernel's caches but what has been read.
"""

import errno
import os
import stat
import sys
from collections import Counter

import pyfuse3
import trio
from pyfuse3 import EntryAttributes, FileInfo, FUSEError


def _handler(method):
    """Make a handler of a method that makes system calls at once."""
    name = method.__name__

    async def handler(self, *args):
        self.counts[name] += 1
        if name == "lookup":
            self.counts[name, args[1].decode()] += 1
        await self.patience()
        try:
            return method(self, *args)
        except OSError as exc:
            raise FUSEError(exc.errno) from None

    handler.__name__ = name
    return handler


class Server(pyfuse3.Operations):
    enable_acl = False

    def __init__(self, source, seconds):
        super().__init__()
        self.paths = {pyfuse3.ROOT_INODE: os.fsencode(source)}
        self.numbers = {}
        self.seconds = seconds
        self.going = trio.Event()
        self.going.set()
        self.counts = Counter()

    async def patience(self):
        if self.seconds:
            await trio.sleep(self.seconds)
        await self.going.wait()

    def _number(self, path):
        st = os.lstat(path)
        if path == self.paths[pyfuse3.ROOT_INODE]:
            return pyfuse3.ROOT_INODE
        number = st.st_ino + 1
        self.paths[number] = path
        return number

    def _entry(self, path):
        st, entry = os.lstat(path), EntryAttributes()
        entry.st_ino = self._number(path)
        for field in ("mode", "nlink", "uid", "gid", "rdev", "size", "blocks",
                      "atime_ns", "mtime_ns", "ctime_ns"):  # fmt: skip
            setattr(entry, f"st_{field}", getattr(st, f"st_{field}"))
        entry.entry_timeout = entry.attr_timeout = 0
        return entry

    @_handler
    def lookup(self, parent, name, _ctx):
        return self._entry(os.path.join(self.paths[parent], name))

    async def forget(self, inode_list):
        pass

    @_handler
    def getattr(self, inode, _ctx):
        return self._entry(self.paths[inode])

    @_handler
    def readlink(self, inode, _ctx):
        return os.readlink(self.paths[inode])

    @_handler
    def opendir(self, inode, _ctx):
        return inode

    async def releasedir(self, _fh):
        pass

    async def readdir(self, fh, start, token):
        self.counts["readdir"] += 1
        await self.patience()
        path = self.paths[fh]
        for index, name in enumerate(sorted(os.listdir(path))[start:], start):
            if not pyfuse3.readdir_reply(
                token, name, self._entry(os.path.join(path, name)), index + 1
            ):
                break

    @_handler
    def open(self, inode, flags, _ctx):
        return FileInfo(fh=os.open(self.paths[inode], flags & ~os.O_NOFOLLOW & ~os.O_ACCMODE))

    @_handler
    def read(self, fh, offset, size):
        return os.pread(fh, size, offset)

    @_handler
    def flush(self, _fh):
        pass

    async def release(self, fh):
        os.close(fh)

    @_handler
    def listxattr(self, inode, _ctx):
        names = os.listxattr(self.paths[inode], follow_symlinks=False)
        return [name.encode() for name in names if not name.startswith("trusted.overlay")]

    @_handler
    def getxattr(self, inode, name, _ctx):
        return os.getxattr(self.paths[inode], name, follow_symlinks=False)

    @_handler
    def statfs(self, _ctx):
        figures, data = os.statvfs(self.paths[pyfuse3.ROOT_INODE]), pyfuse3.StatvfsData()
        for field in ("bsize", "frsize", "blocks", "bfree", "bavail", "files", "ffree", "favail",
                      "namemax"):  # fmt: skip
            setattr(data, f"f_{field}", getattr(figures, f"f_{field}"))
        return data

    def obey(self, order):
        """Do as told, and return what to say."""
        word, *rest = order.split()
        if word == "hang":
            self.going = trio.Event()
        elif word == "go":
            self.going.set()
        elif word == "count":
            return str(self.counts[rest[0]])
        elif word == "last":
            return str(self.counts[rest[0], rest[1]])
        else:
            raise OSError(errno.EINVAL, order)
        return word


async def _listen(server):
    stream = trio.lowlevel.FdStream(os.dup(0))
    text = b""
    while data := await stream.receive_some():
        text += data
        while b"\n" in text:
            line, text = text.split(b"\n", 1)
            print(server.obey(line.decode()), flush=True)  # noqa: T201 - that is how it speaks


async def _serve(server):
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_listen, server)
        print("serving", flush=True)  # noqa: T201
        await pyfuse3.main(1, 100)
        nursery.cancel_scope.cancel()


def main(source, mountpoint, seconds):
    assert stat.S_ISDIR(os.stat(source).st_mode)
    server = Server(source, float(seconds))
    pyfuse3.init(server, mountpoint, {"default_permissions", "fsname=slow", "subtype=slow", "ro"})
    try:
        trio.run(_serve, server)
    finally:
        pyfuse3.close(unmount=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
