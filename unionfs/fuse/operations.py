"""FUSE requests, answered by the union: the only module that speaks pyfuse3 to the core.

Every handler is wrapped once (`_replying`): an `OSError` is the reply.  Any other exception
is a bug, and is logged and answered with EIO; pyfuse3 would end the mount.

Await first, then decide, then act: what must wait (copying content, fsync,
cold reads) does so before the handler looks at nodes.  Threads see descriptors.

The kernel caches names, attributes and absence for ever: only this mount
changes them, and it tells the kernel by its replies.
"""

import errno
import functools
import os
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from typing import Any, TypeVar, cast

import pyfuse3
from pyfuse3 import EntryAttributes, FileInfo, FUSEError, RequestContext

from unionfs.changes.attributes import NewAttributes
from unionfs.changes.changes import Caller
from unionfs.fuse import entries
from unionfs.fuse.files import Opened, host_flags
from unionfs.fuse.service import Service
from unionfs.fuse.session.fullness import tried
from unionfs.fuse.session.leases import insisted
from unionfs.host.credentials import Requester
from unionfs.view.listings import DOTS
from unionfs.view.node import Node

# Handlers whose first argument is a file handle.  A directory's handle is its node's number.
_OF_FILES = frozenset({"read", "write", "release", "fsync"})

# Requests that are not made again for want of room: `session.dispatch`.
_DONE_ONCE = frozenset({"release", "releasedir", "fsync", "fsyncdir"})

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


class Operations(Service, pyfuse3.Operations):
    """The handlers of one mount."""

    supports_dot_lookup = False
    enable_writeback_cache = False
    enable_acl = True

    def subject(self, request: str, first: int) -> Node:
        """Return the node that a request is about; *first* is its first argument."""
        if request in _OF_FILES:
            return self.files.opened(first).node
        return self.union.root if request == "statfs" else self.union.nodes[first]

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
        # pyfuse3 does not tell whether the times are to be those of now.
        if not self.files.consent.permit(node, new, requester, touches=True):
            return self._entry(node, self.union.attributes(node))
        changes, sized = self.files.attribute_changes, False
        if changes.waits(node, new):
            sized = await changes.prepare(node, new, requester)
        return self._entry(node, changes.change(node, new, fh or -1, requester, sized=sized))

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
        await self.name_changes.unlink(self.union.nodes[parent], name)

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
        await self.name_changes.rename(nodes[parent], name, nodes[new_parent], new_name, flags)

    @_replying
    async def link(
        self, inode: int, new_parent: int, new_name: bytes, _ctx: RequestContext
    ) -> EntryAttributes:
        node, directory = self.union.nodes[inode], self.union.nodes[new_parent]
        return self._known_entry(node, await self.name_changes.link(node, directory, new_name))

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
        """Say ENOSYS: nothing is held back, and the kernel asks no more (fuse.h, FUSE_FLUSH)."""
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
