"""Descriptors of files that were not opened when the kernel asked, or for which it did not ask.

An open for reading is mostly answered without one.  With `noopen` (fuse.h,
FUSE_NO_OPEN_SUPPORT) no request says that a file was opened, nor that it was
closed.  A read or write then names the node alone, so one descriptor is kept of
each file used lately.  A descriptor that can write keeps upper's file system from
being remounted read-only, so these are closed when idle.
"""

import dataclasses
import logging
import os

import trio

from unionfs.fuse.files import host_flags
from unionfs.view.node import Node
from unionfs.view.union import Union

log = logging.getLogger(__name__)

_MOST = 256
_IDLE_SECONDS = 2.0


@dataclasses.dataclass(slots=True)
class _Kept:
    fd: int
    writes: bool
    used: bool = True  # since the last look for idle ones


class Descriptors:
    """The descriptors of one mount, by inode number."""

    def __init__(self, union: Union) -> None:
        self._union = union
        self._kept: dict[int, _Kept] = {}  # the one used last at the end
        self._held: dict[int, int] = {}  # inode number -> descriptor of a file without a path
        self._closing = False  # a task looks for idle ones
        self._most = _MOST
        union.holders.append(self._descriptors_of)

    def keep(self, most: int = _MOST) -> None:
        """Keep *most* descriptors from now on, and all that are the only way to their files."""
        self._most = most
        for ino, kept in [*self._kept.items()]:
            if not kept.writes and not os.fstat(kept.fd).st_nlink:
                self._held[ino] = self._kept.pop(ino).fd
        while len(self._kept) > most:
            self.forget(next(iter(self._kept)))

    def _descriptors_of(self, node: Node) -> list[int]:
        kept, held = self._kept.get(node.ino), self._held.get(node.ino)
        return [kept.fd] if kept else [] if held is None else [held]

    def to_read(self, node: Node) -> int:
        """Return a descriptor to read *node*."""
        kept = self._kept.pop(node.ino, None)
        if kept is None:
            if node.ino in self._held:
                return self._held[node.ino]
            kept = _Kept(self._union.open_to_read(node), writes=False)
        return self._put(node.ino, kept)

    def to_write(self, node: Node) -> int:
        """Return a descriptor to read and write *node*, whose content is on upper."""
        kept = self._kept.get(node.ino)
        if kept is None or not kept.writes:
            layer, path = self._union.upper.place(node)
            fd = layer.open_to_write(path, host_flags(os.O_RDWR))
            self.forget(node.ino)
            return self.add(node.ino, fd)
        del self._kept[node.ino]
        return self._put(node.ino, kept)

    def add(self, ino: int, fd: int) -> int:
        """Keep a descriptor that can write to a file for which none is kept yet."""
        if not self._closing:
            self._closing = True
            trio.lowlevel.spawn_system_task(self._close_idle)
        return self._put(ino, _Kept(fd, writes=True))

    def _put(self, ino: int, kept: _Kept) -> int:
        kept.used = True
        self._kept[ino] = kept
        if len(self._kept) > self._most:
            self.forget(next(iter(self._kept)))
        return kept.fd

    def forget(self, ino: int) -> None:
        """Close the descriptor of a file, if there is one."""
        kept = self._kept.pop(ino, None)
        fd = self._held.pop(ino, -1) if kept is None else kept.fd
        if fd < 0:
            return
        self._union.readers.discard(fd)
        try:
            os.close(fd)
        except OSError as exc:  # the error concerns another file than the request: close(2)
            log.warning("closing inode %d failed: %s", ino, exc.strerror)

    async def _close_idle(self) -> None:
        """Close descriptors that can write and were not used for a while, until none is left."""
        while writers := [pair for pair in self._kept.items() if pair[1].writes]:
            for ino, kept in writers:
                if not kept.used:
                    self.forget(ino)
                kept.used = False
            await trio.sleep(_IDLE_SECONDS)
        self._closing = False
