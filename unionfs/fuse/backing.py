"""Which open files the kernel serves by itself: FUSE_PASSTHROUGH (fuse-passthrough.rst).

The kernel's rules: while any open of an inode passes through, all of them must,
with the same backing file; and none may while one is open in the page cache.
Ours: only a file whose content is wholly in upper passes through, since a
reader of a lower one would not see what is written after copy-up.  So a file
that was opened before its copy-up goes through the page cache until its last
descriptor is closed, and content read in one way is dropped from the cache
before it is read in the other.

The kernel counts a file as closed before it sends the RELEASE, which may be put off until
after the next OPEN.  So wherever an answer would be different without some earlier opens,
what was put off is done first.

With `passthrough=all` lower files pass through as well, and an old reader stays
on the lower file, as with overlayfs.  The first open after the copy-up then
finds the inode bound to another backing file: it is left to its readers
(`is_outdated`), and the name gets a new inode.

A write through a mapping of a passing file changes the file's times and blocks without
a word to the daemon, or to the kernel's own FUSE.  So while such writes are possible, the
kernel is told to ask for attributes each time (`may_change`): from the first open that can
write until nobody who could write is seen to have the file open or mapped.
"""

import dataclasses
import os
from collections.abc import Callable
from typing import Protocol

from unionfs.host import syscalls
from unionfs.view.node import Node

# Bytes from which a read-only open registers its file: below, one read request costs no more
# than registering, and the page cache then serves all later opens.
SMALL = 128 << 10

# Backing ids kept for files that are not open; each holds a file of the kernel's.
_KEPT = 128


class Registry(Protocol):
    """What `Session` offers for files."""

    def register(self, fd: int) -> int:
        """Return a backing id for *fd*."""

    def unregister(self, backing: int) -> None:
        """Let go of a backing id."""

    def invalidate_attributes(self, ino: int) -> None:
        """Have the kernel ask for the attributes of a node before it uses them again."""

    def catch_up(self) -> None:
        """Do what was put off: files that were closed."""


class Forecast:
    """Will a file that is opened for writing while small become large?  As the latest ones did.

    Registering a file costs about as much as one write request, so it pays only
    for files that get more than one; at the open nothing tells which files will.
    """

    _MOST = 2  # files of one kind in a row that settle the matter

    def __init__(self) -> None:
        self._score = self._MOST

    @property
    def large(self) -> bool:
        """Tell whether the next one is expected to be large."""
        return self._score > 0

    def learn(self, size: int) -> None:
        """Take note of a file's size, in bytes, when a descriptor that could write is closed."""
        if size >= SMALL:
            self._score = self._MOST
        else:
            self._score = max(self._score - 1, 0)


@dataclasses.dataclass(slots=True)
class _Opens:
    """How one node is open at the moment."""

    cached: int = 0
    through: int = 0
    writers: int = 0  # of the opens that pass through
    backing: int = 0  # the kernel's id, while `through` is not zero
    lower: bool = False  # the backing file is one of a lower layer


class Backings:
    """The passthrough state of all open nodes of one mount."""

    def __init__(
        self,
        registry: Registry,
        open_to_read: Callable[[Node], int],
        act_for_owner: Callable[[int], None],
        *,
        enabled: bool,
    ) -> None:
        self._registry = registry
        self._open_to_read = open_to_read
        self._act_for_owner = act_for_owner
        self.enabled = enabled
        self._opens: dict[Node, _Opens] = {}  # node -> how it is open
        self._kept: dict[int, int] = {}  # inode number -> backing id without an open, oldest first
        # Numbers of inodes whose page cache may be out of date -> whether cache and attributes may
        # become so at any time: a mapping outlives its descriptor, and nobody tells of its end.
        self.bypassed: dict[int, bool] = {}

    def is_outdated(self, node: Node) -> bool:
        """Tell whether opens of *node* pass through to a lower file that was copied up since."""
        opens = self._opens.get(node)
        return opens is not None and opens.lower and not node.below and self.is_through(node)

    def is_through(self, node: Node) -> bool:
        """Tell whether opens of *node* pass through now."""
        opens = self._opens.get(node)
        if opens is not None and opens.through:
            opens = self._after_releases(node)
        return opens is not None and opens.through > 0

    def _after_releases(self, node: Node) -> _Opens | None:
        """Return how *node* is open for the kernel: releases that were put off count."""
        self._registry.catch_up()
        return self._opens.get(node)

    def may_be_mapped(self, node: Node) -> bool:
        """Tell whether a mapping may go on writing to a file whose opens have all ended.

        A new open should pass through as well, to see what the mapping writes.
        """
        return self.bypassed.get(node.ino, False)

    def may_change(self, node: Node) -> bool:
        """Tell whether attributes of a file may change without our knowing after a reply with them.

        The attributes may have been read before this call.  So the reply during which the last
        writer is found to be gone still says that they may change.
        """
        if not self.bypassed.get(node.ino):
            return False
        opens = self._opens.get(node)
        if opens is None or not opens.writers:
            self.bypassed[node.ino] = self._may_be_written(node)
        return True

    def _may_be_written(self, node: Node) -> bool:
        """Tell whether somebody may go on writing to a file that no passing open can write to."""
        try:
            fd = self._open_to_read(node)
        except OSError:  # EMFILE
            return True
        try:
            return syscalls.may_be_written(fd)
        finally:
            os.close(fd)

    def open(
        self, node: Node, fd: int, *, eligible: bool, writes: bool = False
    ) -> tuple[int, bool]:
        """Count an open of *node* by *fd*; return its backing id or 0, and whether the cache stays.

        No await may come between this call and the reply to the open.
        """
        if not self.enabled:
            return 0, True
        opens = self._opens.get(node)
        if opens is not None and opens.cached and eligible:
            opens = self._after_releases(node)
        if opens is None:
            opens = self._opens[node] = _Opens()
        passes = opens.through or (eligible and not opens.cached)
        if passes and self._pass(node, opens, fd):
            opens.writers += writes
            self.bypassed[node.ino] = writes or self.bypassed.get(node.ino, False)
            return opens.backing, False
        opens.cached += 1
        if node.ino in self.bypassed:
            if not self.bypassed[node.ino]:
                del self.bypassed[node.ino]
            return 0, False
        return 0, True

    def _pass(self, node: Node, opens: _Opens, fd: int) -> bool:
        if not opens.through:
            try:
                opens.backing, opens.lower = self._backing(node, fd), bool(node.below)
            except OSError:  # such as a backing file on FUSE: the page cache then
                return False
        opens.through += 1
        return True

    def _backing(self, node: Node, fd: int) -> int:
        """Return a backing id, registered by a descriptor that cannot write.

        The kernel opens the file anew for each open.  An id by a descriptor that could write
        would keep upper's file system from being remounted read-only as long as it is kept.
        Writes through an id are made as the user for whom this process acts at the registration.
        There is one id for all writers, so that user is the file's owner.
        """
        kept = self._kept.pop(node.ino, None)
        if kept is not None:
            return kept
        if node.below:  # a file of a lower layer, so *fd* cannot write
            return self._registry.register(fd)
        own = self._open_to_read(node)
        try:
            self._act_for_owner(own)
            return self._registry.register(own)
        finally:
            os.close(own)

    def close(self, node: Node, *, through: bool, writes: bool = False) -> None:
        """Count a release."""
        if not self.enabled:
            return
        opens = self._opens[node]
        if through:
            opens.through -= 1
            opens.writers -= writes
            if not opens.through:
                self._keep(node, opens)
        else:
            opens.cached -= 1
        if not opens.through and not opens.cached:
            del self._opens[node]

    def _keep(self, node: Node, opens: _Opens) -> None:
        """Keep a backing id for the next open: registering costs more than all else of it."""
        if node.orphan or opens.lower:  # no name to open it again; its content may come to upper
            self._registry.unregister(opens.backing)
            return
        self._kept[node.ino] = opens.backing
        if len(self._kept) > _KEPT:
            self._registry.unregister(self._kept.pop(next(iter(self._kept))))

    def forget(self, ino: int) -> None:
        """Take note that the kernel dropped an inode, and its page cache with it."""
        self.bypassed.pop(ino, None)
        if ino in self._kept:
            self._registry.unregister(self._kept.pop(ino))
