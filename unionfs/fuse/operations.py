"""FUSE requests, answered by the union: the only module that speaks pyfuse3 to the core.

Every handler is wrapped once (`_replying`): an `OSError` is the reply, anything
else is a bug, logged and answered with EIO; pyfuse3 would end the mount.

Await first, then decide, then act: what must wait (copying content, fsync,
cold reads) does so before the handler looks at nodes.  Threads see descriptors.

The kernel caches names, attributes and absence for ever: only this mount
changes them, and it tells the kernel by its replies.
"""

import contextlib
import errno
import functools
import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

import pyfuse3
from pyfuse3 import EntryAttributes, FileInfo, FUSEError, RequestContext

from unionfs.changes.assembly import verbs_of
from unionfs.changes.attributes import Attributes, NewAttributes
from unionfs.changes.changes import Caller
from unionfs.fuse import entries, rootattributes
from unionfs.fuse.chattr import Chattr
from unionfs.fuse.descriptors import Descriptors
from unionfs.fuse.durability import Durability
from unionfs.fuse.files import Files, Opened, host_flags
from unionfs.fuse.maintenance import Maintenance
from unionfs.fuse.own_attributes import OwnAttributes
from unionfs.fuse.session import Granted, Session
from unionfs.fuse.session.fullness import tried
from unionfs.fuse.session.leases import insisted
from unionfs.fuse.trouble import Trouble, reply_number
from unionfs.host.credentials import Requester
from unionfs.view.listings import DOTS, Listings
from unionfs.view.node import Node
from unionfs.view.union import Union

if TYPE_CHECKING:
    from unionfs.fuse.crossing_copies import CrossingCopies

log = logging.getLogger(__name__)

# Handlers whose first argument is a file handle.  A directory's handle is its node's number.
_OF_FILES = frozenset({"read", "write", "release", "fsync"})

# Not done again where there was no room: `session.dispatch`.
_DONE_ONCE = frozenset({"release", "releasedir", "fsync", "fsyncdir"})

STATUS = rootattributes.STATUS.encode()

_Handler = TypeVar("_Handler", bound=Callable[..., Awaitable[Any]])


def _replying(handler: _Handler) -> _Handler:
    """Let *handler* raise OSError; pyfuse3 would otherwise end the session."""

    @functools.wraps(handler)
    async def reply(*args: Any) -> Any:
        try:
            if handler.__name__ in _DONE_ONCE:
                return await insisted(lambda: handler(*args))
            return await tried(lambda: insisted(lambda: handler(*args)))
        except FUSEError:
            raise
        except Exception as exc:  # noqa: BLE001 - told
            name = handler.__name__
            number = args[0].explain(exc, name, lambda: args[0].subject(name, args[1]))
            raise FUSEError(number) from None

    return cast("_Handler", reply)


class Operations(pyfuse3.Operations):
    """The handlers of one mount, and what `direct` has in common with them."""

    supports_dot_lookup = False
    enable_writeback_cache = False
    enable_acl = True

    def __init__(
        self,
        union: Union,
        session: Session,
        *,
        passthrough: Literal["off", "upper", "all"],
        status: dict[str, Any],
    ) -> None:
        super().__init__()
        self.union = union
        self.session = session
        self.status = rootattributes.Status(status)
        self.trouble = Trouble()
        self._copyup, self.changes = verbs_of(union)
        self.attributes = Attributes(union, self._copyup)
        self.chattr = Chattr(union, self._copyup)
        self.durability = Durability(union)
        self.files = Files(union, self._copyup, session, passthrough)
        self.descriptors = Descriptors(union)
        self._own_attributes = OwnAttributes(
            union, self.changes, self.files.copies, Maintenance(union, self.descriptors, self.files)
        )
        self.listings = Listings(union)
        self.crossing: CrossingCopies | None = None
        if union.two_sided:
            from unionfs.fuse import crossing_copies  # noqa: PLC0415 - few unions have two

            self.crossing = crossing_copies.of(union, self.changes, self.files.copies)

    def explain(self, error: Exception, request: str, subject: Callable[[], Node]) -> int:
        """Return the errno of a failed request, and log what an administrator should know of.

        What is no `OSError` is a bug, and EIO; pyfuse3 would end the mount.
        """
        if not isinstance(error, OSError):
            log.error("%s failed", request, exc_info=error)
            return errno.EIO
        number = reply_number(error)
        if self.trouble.concerns(number):
            node = self.union.root
            with contextlib.suppress(KeyError, OSError):  # a stale number has no path to be told
                node = subject()
            self.trouble.tell(number, request, node.path)
        return number

    def subject(self, request: str, first: int) -> Node:
        """Return the node that a request is about; *first* is its first argument."""
        if request in _OF_FILES:
            return self.files.opened(first).node
        return self.union.root if request == "statfs" else self.union.nodes[first]

    def serve_with(self, granted: Granted) -> None:
        """Take note of what the kernel granted, before the first request comes."""
        self.status.document["kernel"] = granted.as_json()
        self.files.begin(granted)
        if self.union.upper and granted.direct:
            self.union.upper.defer_removals()
        if self.union.far and self.session.ask(self.union.far):
            for layer in self.union.far:
                layer.ask_from_now_on(self.union.upper.work.fd if self.union.upper else -1)

    # Entries

    def _entry(self, node: Node, st: os.stat_result) -> EntryAttributes:
        entry = entries.of_node(self.union, node, st)
        if self.files.backings.may_change(node):
            entry.attr_timeout = 0
        return entry

    def _known_entry(self, node: Node, st: os.stat_result) -> EntryAttributes:
        """Return an entry that the kernel counts as a lookup."""
        try:
            entry = self._entry(node, st)
        except BaseException:
            self.union.nodes.drop_if_unknown(node)
            raise
        node.lookups += 1
        return entry

    @_replying
    async def lookup(self, parent: int, name: bytes, _ctx: RequestContext) -> EntryAttributes:
        found = self.union.lookup.node(self.union.nodes[parent], name)
        if found is not None:
            return self._known_entry(*found)
        return entries.absent()

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        """Take back lookups; must not raise, pyfuse3 awaits it outside of any except."""
        for ino, count in inode_list:
            self.forget_node(ino, count)

    def forget_node(self, ino: int, count: int) -> None:
        """Take back *count* lookups of one node; must not raise, as nobody is told."""
        try:
            node = self.union.nodes.get(ino)
            # First, as the pin of a deleted file is closed with its node, and shall be its last
            # descriptor: `closing`.
            if node is None or node.lookups <= count:
                self.files.forget(ino)
            self.union.nodes.forget(ino, count)
        except Exception:
            log.exception("forget of %d failed", ino)

    @_replying
    async def getattr(self, inode: int, _ctx: RequestContext) -> EntryAttributes:
        node = self.union.nodes[inode]
        return self._entry(node, self.union.attributes(node))

    @_replying
    async def setattr(
        self,
        inode: int,
        attr: EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: int | None,
        ctx: RequestContext,
    ) -> EntryAttributes:
        node = self.union.nodes[inode]
        new = NewAttributes(
            mode=attr.st_mode if fields.update_mode else None,
            uid=attr.st_uid if fields.update_uid else -1,
            gid=attr.st_gid if fields.update_gid else -1,
            size=attr.st_size if fields.update_size else None,
            atime_ns=attr.st_atime_ns if fields.update_atime else None,
            mtime_ns=attr.st_mtime_ns if fields.update_mtime else None,
        )
        requester = _requester(ctx)
        # Here nobody tells whether the times are those of now.
        if not self.files.consent.permit(node, new, requester, touches=True):
            return self._entry(node, self.union.attributes(node))
        sized = False
        if self.files.waits_to_change(node, new):
            sized = await self.files.prepare(node, new, requester)
        return self._entry(node, self.files.change(node, new, fh or -1, requester, sized=sized))

    @_replying
    async def readlink(self, inode: int, _ctx: RequestContext) -> bytes:
        return self.union.readlink(self.union.nodes[inode])

    # Names

    @_replying
    async def mknod(
        self, parent: int, name: bytes, mode: int, rdev: int, ctx: RequestContext
    ) -> EntryAttributes:
        made = self.changes.mknod(self.union.nodes[parent], name, mode, rdev, _caller(ctx))
        return self._known_entry(*made)

    @_replying
    async def mkdir(
        self, parent: int, name: bytes, mode: int, ctx: RequestContext
    ) -> EntryAttributes:
        made = self.changes.mkdir(self.union.nodes[parent], name, mode, _caller(ctx))
        return self._known_entry(*made)

    @_replying
    async def symlink(
        self, parent: int, name: bytes, target: bytes, ctx: RequestContext
    ) -> EntryAttributes:
        made = self.changes.symlink(self.union.nodes[parent], name, target, _caller(ctx))
        return self._known_entry(*made)

    @_replying
    async def unlink(self, parent: int, name: bytes, _ctx: RequestContext) -> None:
        if self.crossing is not None:
            await self.crossing.unlink(self.union.nodes[parent], name)
        else:
            self.changes.unlink(self.union.nodes[parent], name)

    @_replying
    async def rmdir(self, parent: int, name: bytes, _ctx: RequestContext) -> None:
        self.changes.rmdir(self.union.nodes[parent], name)

    @_replying
    async def rename(
        self,
        parent: int,
        name: bytes,
        new_parent: int,
        new_name: bytes,
        flags: int,
        _ctx: RequestContext,
    ) -> None:
        nodes = self.union.nodes
        change = nodes[parent], name, nodes[new_parent], new_name, flags
        if self.crossing is not None:
            await self.crossing.rename(*change)
            return
        await self.files.copies.bring_source(nodes[parent], name)
        self.changes.rename(*change)

    @_replying
    async def link(
        self, inode: int, new_parent: int, new_name: bytes, _ctx: RequestContext
    ) -> EntryAttributes:
        node, directory = self.union.nodes[inode], self.union.nodes[new_parent]
        if self.crossing is not None:
            st = await self.crossing.link(node, directory, new_name)
        else:
            await self.files.copies.bring_wholly(node)
            st = self.changes.link(node, directory, new_name)
        return self._known_entry(node, st)

    # Files

    @_replying
    async def open(self, inode: int, flags: int, ctx: RequestContext) -> FileInfo:
        return self._opened(await self.files.open(self.union.nodes[inode], flags, _requester(ctx)))

    @_replying
    async def create(
        self, parent: int, name: bytes, mode: int, flags: int, ctx: RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        node, st, fd = self.changes.create(
            self.union.nodes[parent], name, host_flags(flags), mode, _caller(ctx)
        )
        opened = self.files.created(node, fd, mode, flags)
        return self._opened(opened), self._known_entry(node, st)

    def _opened(self, opened: Opened) -> FileInfo:
        if opened.backing:
            self.session.pass_through(opened.backing)
        return FileInfo(fh=opened.fd, keep_cache=opened.keep_cache)

    @_replying
    async def read(self, fh: int, offset: int, size: int) -> bytes:
        node = self.files.opened(fh).node
        if node.partial:
            data = await self.files.partial_content.read(node, size, offset)
        else:
            data = await self.files.reading.read(fh, size, offset)
        return cast("bytes", data)  # any buffer will do

    @_replying
    async def write(self, fh: int, offset: int, data: bytes) -> int:
        node = self.files.opened(fh).node
        if node.partial:
            return await self.files.partial_content.write(node, fh, offset, data)
        return self.files.write(fh, offset, data)

    async def flush(self, _fh: int) -> None:
        """Nothing is held back; said once, the kernel asks no more (fuse.h, FUSE_FLUSH)."""
        raise FUSEError(errno.ENOSYS)

    @_replying
    async def release(self, fh: int) -> None:
        self.files.release(fh)

    @_replying
    async def fsync(self, fh: int, datasync: bool) -> None:  # noqa: FBT001 (pyfuse3's signature)
        await self.durability.sync_file(self.files.opened(fh).node, fh, datasync=datasync)

    # Directories

    @_replying
    async def opendir(self, inode: int, _ctx: RequestContext) -> int:
        if not self.union.access.strict:
            self.session.cache_listing()
        return inode

    @_replying
    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        directory, end = self.union.nodes[fh], 0
        most = self.listings.most(directory, start_id)
        for name, node, st, after in islice(self.listings.read(directory, start_id), most):
            if st is None and after > len(DOTS):  # pyfuse3 has no entry without a look-up
                end = after
                continue
            entry = entries.of_dot(node) if st is None else self._entry(node, st)
            if not pyfuse3.readdir_reply(token, name, entry, after):
                self.union.nodes.drop_if_unknown(node)
                break
            end = after
            if st is not None:
                node.lookups += 1
        self.listings.sent(directory, start_id, end, most)

    @_replying
    async def releasedir(self, _fh: int) -> None:
        pass

    @_replying
    async def fsyncdir(self, fh: int, _datasync: bool) -> None:  # noqa: FBT001 (as `fsync`)
        await self.durability.sync_directory(self.union.nodes[fh])

    # Attributes and the file system

    @_replying
    async def getxattr(self, inode: int, name: bytes, _ctx: RequestContext) -> bytes:
        return self.attribute(self.union.nodes[inode], name)

    @_replying
    async def listxattr(self, inode: int, ctx: RequestContext) -> list[bytes]:
        return self.attributes.names_for(self.union.nodes[inode], ctx.uid)

    @_replying
    async def setxattr(self, inode: int, name: bytes, value: bytes, ctx: RequestContext) -> None:
        await self.set_attribute(self.union.nodes[inode], name, value, 0, _requester(ctx))

    def attribute(self, node: Node, name: bytes) -> bytes:
        """Return an extended attribute; the root has one that only its daemon knows."""
        if name == STATUS and node is self.union.root:
            self.union.access.follow_mount(self.session.device)
            return self.status.attribute()
        return self.attributes.get(node, name)

    async def set_attribute(
        self, node: Node, name: bytes, value: bytes, flags: int, requester: Requester
    ) -> None:
        """Set an extended attribute, also where a file has to be copied up with its content."""
        if name in OwnAttributes.names:
            await self._own_attributes.set(node, name, value)
            return
        await self.files.copies.bring_wholly(node)
        self.files.sets_attribute()
        self.attributes.set(node, name, value, flags, requester)

    @_replying
    async def removexattr(self, inode: int, name: bytes, ctx: RequestContext) -> None:
        self.files.consent.remove_attribute(self.union.nodes[inode], name, _requester(ctx))

    @_replying
    async def statfs(self, _ctx: RequestContext) -> pyfuse3.StatvfsData:
        return entries.of_filesystem(self.union.statvfs(self.union.root))


def _requester(ctx: RequestContext) -> Requester:
    return Requester(ctx.uid, ctx.gid, ctx.pid)


def _caller(ctx: RequestContext) -> Caller:
    return Caller(ctx.uid, ctx.gid, ctx.umask)
