"""Disks that remember: every write and every flush of them, in order, in a log.

`python recorder.py MOUNTPOINT LOG IMAGE...` serves a directory of a few files.
`disk` holds the first IMAGE's bytes, `disk1` the next one's, and each is meant to
lie under a loop device: what a file system does to it is appended to LOG as it
happens.  What a program writes to `ledger` is appended to the same LOG, so that
promises ("this was fsynced") have a place in the order of writes and flushes.

A write is logged when it reaches this process and a flush when its request
does, so a write that was still under way when the flush was asked for counts
as flushed.  File systems wait for a write before they flush it, so that is no
promise which they would miss.

A record is `kind disk offset length` (`_HEAD`) and, for W and L, *length* bytes.
"""
# ruff: noqa: ARG002 - pyfuse3 gives its handlers more than one file needs

import errno
import os
import stat
import struct
import sys
from collections.abc import Iterator
from typing import NamedTuple

import pyfuse3
import trio

_HEAD = struct.Struct("<cBQI")
_LEDGER = 2
_DISK = 3  # the first


class Record(NamedTuple):
    """One thing that happened to a disk: W(rite), F(lush) or L(edger line)."""

    kind: bytes
    offset: int = 0
    data: bytes = b""
    disk: int = 0


def read_log(path: str) -> Iterator[Record]:
    """Yield the records of the log at *path*."""
    with open(path, "rb") as log:
        while head := log.read(_HEAD.size):
            kind, disk, offset, length = _HEAD.unpack(head)
            yield Record(kind, offset, log.read(length), disk)


def disk_name(number: int) -> str:
    """Return the name of the file that is a disk."""
    return f"disk{number or ''}"


class Recorder(pyfuse3.Operations):
    """The file system of the files."""

    def __init__(self, images: list[str], log: str) -> None:
        super().__init__()
        # Inode number -> descriptor of the image, of each disk.
        self.images = {_DISK + at: os.open(path, os.O_RDWR) for at, path in enumerate(images)}
        self.inodes = {disk_name(ino - _DISK).encode(): ino for ino in self.images}
        self.inodes[b"ledger"] = _LEDGER
        self.log = open(log, "wb", buffering=0)  # noqa: SIM115 - open as long as the process

    def record(self, kind: bytes, disk: int = 0, offset: int = 0, data: bytes = b"") -> None:
        self.log.write(_HEAD.pack(kind, disk, offset, len(data)) + data)

    async def getattr(self, inode, ctx=None):
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = inode
        entry.st_mode = stat.S_IFDIR | 0o755 if inode == 1 else stat.S_IFREG | 0o600
        entry.st_size = os.fstat(self.images[inode]).st_size if inode in self.images else 0
        entry.attr_timeout = entry.entry_timeout = 3600
        return entry

    async def setattr(self, inode, attr, fields, fh, ctx):
        return await self.getattr(inode)

    async def lookup(self, parent_inode, name, ctx=None):
        if name not in self.inodes:
            raise pyfuse3.FUSEError(errno.ENOENT)
        return await self.getattr(self.inodes[name])

    async def open(self, inode, flags, ctx):
        return pyfuse3.FileInfo(fh=inode, direct_io=True)

    async def read(self, fh, off, size):
        return os.pread(self.images[fh], size, off) if fh in self.images else b""

    async def write(self, fh, off, buf):
        data = bytes(buf)
        if fh in self.images:
            self.record(b"W", fh - _DISK, off, data)
            return os.pwrite(self.images[fh], data, off)
        self.record(b"L", data=data)
        return len(data)

    async def fsync(self, fh, datasync):
        self.record(b"F", fh - _DISK)

    async def flush(self, fh):
        raise pyfuse3.FUSEError(errno.ENOSYS)


def main(mountpoint: str, log: str, *images: str) -> None:
    options = {"fsname=recorder", "nosuid", "nodev"}
    pyfuse3.init(Recorder([*images], log), mountpoint, options)
    try:
        trio.run(pyfuse3.main)
    finally:
        pyfuse3.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
