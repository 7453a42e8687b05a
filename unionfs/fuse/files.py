"""Open files of a mount: opening, writing, releasing.

Await first, then decide, then act: content is copied up (`content_copies`) before a
node is looked at.
"""

import contextlib
import dataclasses
import errno
import os
from typing import Literal, NamedTuple

from unionfs.changes import protection
from unionfs.changes.attributes import Attributes
from unionfs.changes.copyup import CopyUp
from unionfs.fuse import content_copies
from unionfs.fuse.attribute_changes import AttributeChanges
from unionfs.fuse.backing import Backings, Registry
from unionfs.fuse.consent import Consent
from unionfs.fuse.content_copies import ContentCopies
from unionfs.fuse.partial_content import PartialContent
from unionfs.fuse.passthrough import Passthrough
from unionfs.fuse.reading import Reading
from unionfs.fuse.session import leases
from unionfs.fuse.session.grants import Granted
from unionfs.host.credentials import Requester
from unionfs.layers.layer import WritableLayer
from unionfs.view.node import Node
from unionfs.view.union import Union

# Flags that the kernel has dealt with itself, or that would make our own reads fail.
_KERNEL_FLAGS = os.O_CREAT | os.O_EXCL | os.O_NOCTTY | os.O_APPEND | os.O_DIRECT | os.O_NOATIME

_UNTOLD = contextlib.nullcontext()

# The handle of a file that was opened for reading without a descriptor: none of ours.
UNOPENED = 0


class Opened(NamedTuple):
    """The answer to an open."""

    fd: int  # the file handle
    backing: int  # the id of the backing file that the kernel is to use, or 0
    keep_cache: bool


@dataclasses.dataclass(slots=True)
class OpenFile:
    """What is known of a descriptor that the kernel has as a file handle."""

    node: Node
    through: bool  # the kernel passes its data to the backing file
    writes: bool  # opened for writing


class Files:
    """The open files of one mount; a file handle is the host's descriptor."""

    def __init__(
        self,
        union: Union,
        copyup: CopyUp,
        registry: Registry,
        passthrough: Literal["off", "upper", "all"],
    ) -> None:
        self.union = union
        self.granted = Granted()
        # Do requests that cut a file say whether its set-id bits are to fall?
        self.told = False
        # The number of the file made last, as long as nobody gave a file extended attributes.
        self._newest = 0
        self.backings = Backings(
            registry,
            self._open_upper_to_read,
            self._act_for_owner,
            enabled=passthrough != "off",
        )
        self.passthrough = Passthrough(union, self.backings, of_lowers=passthrough == "all")
        self._registry = registry
        self._copyup = copyup
        self.partials = copyup.partials
        self.partials.is_barred = self.backings.is_through
        self.copies = ContentCopies(union, copyup)
        self._attributes = Attributes(union, copyup)
        self.attribute_changes = AttributeChanges(
            union, copyup, self._attributes, self.copies, self.changed
        )
        self.consent = Consent(union, self._attributes, self.is_written)
        # The numbers of files that were changed after somebody opened them for reading.
        self._unread: set[int] = set()
        self.reading = Reading()
        self.partial_content = PartialContent(union, self.partials, self.reading)
        self._open: dict[int, OpenFile] = {}  # descriptor -> what is known of it
        union.holders.append(self._descriptors_of)

    def begin(self, granted: Granted) -> None:
        """Take note of what the kernel granted, before the first request comes."""
        self.granted = self.consent.granted = granted
        self.told = granted.kill_privileges
        self.backings.enabled &= granted.passthrough

    def _descriptors_of(self, node: Node) -> list[int]:
        return [fd for fd, file in self._open.items() if file.node is node]

    def _open_upper_to_read(self, node: Node) -> int:
        layer, path = self.union.place(node)
        return layer.open(path, os.O_RDONLY)

    def _act_for_owner(self, fd: int) -> None:
        st = os.fstat(fd)
        self.union.acting.write_as(st.st_uid, st.st_gid)

    # Opening

    async def open(self, node: Node, flags: int, requester: Requester) -> Opened:
        """Open an existing file."""
        self.permit_open(node, flags)
        if self.waits_to_open(node, flags):
            return await self.open_when_ready(node, flags, requester)
        return self.open_at_once(node, flags, requester)

    async def open_when_ready(self, node: Node, flags: int, requester: Requester) -> Opened:
        """Open a file for writing for which `waits_to_open` is true."""
        with _told_of_leases(flags):
            if flags & os.O_TRUNC:
                return await self._open_emptied(node, flags, requester)
            # With O_SYNC each step of the copy would wait for the disk: the file is opened later.
            kept = None if flags & os.O_DSYNC else host_flags(flags)
            job = await self.copies.bring(node, flags=kept)
        if job is None or not job.kept_open:
            return self.open_at_once(node, flags, requester)
        return self._answer(node, job.target, flags)

    def permit_open(self, node: Node, flags: int) -> None:
        """Raise EPERM where a protected file is to be opened for writing."""
        if flags & (os.O_ACCMODE | os.O_TRUNC) and (node.protection or not node.upper):
            protection.require_writable(self.union, node, flags)

    async def _open_emptied(self, node: Node, flags: int, requester: Requester) -> Opened:
        """Open a file and then empty it: a file that cannot be opened keeps its content."""
        kept = host_flags(flags) & ~os.O_TRUNC
        self._copyup.foresee_content(node, 0)
        with self._permitting_truncation(node, flags, requester):
            job = await self.copies.bring(node, 0, kept) if not node.partial else None
            if job is not None:
                return self._answer(node, job.target, flags)
            layer, path = self.union.upper.place(node)
            fd = layer.open_to_write(path, kept)
            try:
                await self.attribute_changes.cut(node, layer, fd, 0)
            except BaseException:
                os.close(fd)
                raise
        return self._answer(node, fd, flags)

    def waits_to_open(self, node: Node, flags: int) -> bool:
        """Tell whether content has to be copied up first, or much to be cut off."""
        if flags & (os.O_ACCMODE | os.O_TRUNC) == os.O_RDONLY:
            return False
        if self.union.has_lower_content(node):
            return bool(flags & os.O_TRUNC) or not self.partials.suits(node)
        return bool(flags & os.O_TRUNC and self.attribute_changes.cuts_much(node, 0))

    def open_unopened(self, node: Node) -> Opened | None:
        """Answer an open for reading that needs no descriptor; None for one that does.

        Most files that are opened are cached already, or are read at once as a whole.  So the host
        opens a file only at the first read (`descriptors`).
        """
        if self.passthrough.needs_descriptor(node):
            return None
        keeps = self.backings.open(node, -1, eligible=False)[1] and self._stays_cached(node)
        return Opened(UNOPENED, 0, keeps)

    def _stays_cached(self, node: Node) -> bool:
        """Tell whether a new reader of a file may use the page cache: `atimes`."""
        access = self.union.access
        if node.below or not access.count:
            return True
        unread = node.ino in self._unread
        self._unread.discard(node.ino)
        return not (unread or access.strict)

    def open_at_once(self, node: Node, flags: int, requester: Requester) -> Opened:
        """Open a file that does not have to wait; no await may come before the reply."""
        with _told_of_leases(flags):
            if flags & (os.O_ACCMODE | os.O_TRUNC) == os.O_RDONLY:
                return self._answer(node, self.union.open_to_read(node), flags)
            self.union.require_upper()
            self._copyup.metadata(node)
            self.begin_partial(node)
            with self._permitting_truncation(node, flags, requester):
                layer, path = self.union.upper.place(node)
                fd = layer.open_to_write(path, host_flags(flags))
            return self._answer(node, fd, flags)

    def begin_partial(self, node: Node) -> None:
        """Let the content of a lower file come to upper block by block, as it is written."""
        if self.union.has_lower_content(node):
            self._copyup.by_blocks(node)

    def _permitting_truncation(
        self, node: Node, flags: int, requester: Requester
    ) -> contextlib.AbstractContextManager[None]:
        """Let set-uid bits fall: with O_TRUNC there is no setattr request."""
        if flags & os.O_TRUNC:
            return self._attributes.privileges_dropped(node, requester)
        return contextlib.nullcontext()

    def _answer(self, node: Node, fd: int, flags: int) -> Opened:
        try:
            if self.backings.is_outdated(node):
                self._leave_to_old_readers(node)
            eligible = self.passthrough.may_pass(node, fd, flags)
        except BaseException:
            self.union.readers.discard(fd)
            os.close(fd)
            raise
        writes = flags & os.O_ACCMODE != os.O_RDONLY
        unseen = self.backings.may_be_mapped(node)
        opened = self._enter(node, fd, writes=writes, eligible=eligible)
        if opened.backing and writes and not unseen:  # the kernel keeps attributes yet
            self._registry.invalidate_attributes(node.ino)
        return opened

    def _leave_to_old_readers(self, node: Node) -> None:
        """Give the name of *node* a new inode, as the kernel still reads the lower file.

        At ESTALE the kernel looks the name up again and opens what it finds then
        (fs/namei.c, do_filp_open, LOOKUP_REVAL).
        """
        self.union.supersede(node)
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    def _enter(self, node: Node, fd: int, *, writes: bool, eligible: bool) -> Opened:
        backing, keep = self.backings.open(node, fd, eligible=eligible, writes=writes)
        if writes:
            self._unread.add(node.ino)
        elif keep:
            keep = self._stays_cached(node)
        self._open[fd] = OpenFile(node, backing != 0, writes)
        return Opened(fd, backing, keep)

    def created(self, node: Node, fd: int, mode: int, flags: int) -> Opened:
        """Answer with the descriptor of a new file."""
        self.made(node)
        return self._enter(
            node, fd, writes=True, eligible=self.passthrough.may_new_pass(mode, flags)
        )

    def made(self, node: Node) -> None:
        """Take note of a new file."""
        self._newest = node.ino

    def sets_attribute(self) -> None:
        """Take note that a file is about to get an extended attribute."""
        self._newest = 0

    def has_no_attributes(self, ino: int) -> bool:
        """Tell whether a file is so new that it has no extended attributes."""
        return ino == self._newest

    def opened(self, fd: int) -> OpenFile:
        """Return what is known of an open file."""
        return self._open[fd]

    # Writing, releasing

    def is_written(self, node: Node) -> bool:
        """Tell whether somebody has a file open for writing."""
        self._registry.catch_up()
        return any(file.writes and file.node is node for file in self._open.values())

    def changed(self, node: Node) -> None:
        """Take note that a file has changed since it was read last."""
        self._unread.add(node.ino)

    def write(self, fd: int, offset: int, data: bytes | memoryview) -> int:
        """Write *data* at *offset* and return how much of it was written."""
        return os.pwrite(fd, data, offset)

    def copies_soon(self, source: int, start: int, length: int) -> int | None:
        """Return how many bytes there are to copy from an open file, if copying takes no time.

        None where it takes longer than a thread costs.
        """
        left = min(length, os.fstat(source).st_size - start)
        return max(left, 0) if left < content_copies.THREAD_BYTES else None

    def ready_to_write(self, node: Node, fd: int, requester: Requester | None) -> WritableLayer:
        """Return the layer that is to write to *fd*.

        The bits that a write by *requester* takes away fall now, unless `permit` was asked before.
        """
        if requester is not None:
            before = os.fstat(fd)
            if self._attributes.drop_privileges(node, before, requester) is not before:
                self._registry.invalidate_attributes(node.ino)
        return self.union.upper.layer

    def release_unopened(self, node: Node) -> None:
        """Take note that an open without a descriptor has ended."""
        self.backings.close(node, through=False)

    def release(self, fd: int) -> None:
        """Close a descriptor that the kernel no longer uses."""
        file = self._open.pop(fd)
        self.backings.close(file.node, through=file.through, writes=file.writes)
        if file.writes:
            self._unread.add(file.node.ino)
        if file.writes and self.backings.enabled:
            self.passthrough.learn(file.node, os.fstat(fd).st_size)
        self.union.readers.discard(fd)
        os.close(fd)

    def forget(self, ino: int) -> None:
        """Take note that the kernel dropped an inode."""
        self.passthrough.forget(ino)
        self._unread.discard(ino)
        self.backings.forget(ino)
        if self.union.nodes.has_partials:
            self.union.upper.partials.forget(ino)


def _told_of_leases(flags: int) -> contextlib.AbstractContextManager[None]:
    """Raise EAGAIN for a lease if the caller does not wait: fcntl_locking(2), F_SETLEASE."""
    return leases.unheld() if flags & os.O_NONBLOCK else _UNTOLD


def host_flags(flags: int) -> int:
    """Return the flags to open upper's file with; mmap and the page cache need reading, too."""
    return (flags & ~_KERNEL_FLAGS & ~os.O_ACCMODE) | os.O_RDWR
