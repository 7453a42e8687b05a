"""A program's view of the core without a mount: what the kernel would ask, asked in-process.

`Client` turns system calls into the requests that the kernel sends to
`Operations`, keeps the count of lookups, and forgets everything after each
call, as a kernel without memory does; or, from `keep` on, nothing before
`forget`.  Its verbs are those of `plain`.
"""

import contextlib
import errno
import os
import stat
from collections import Counter
from types import SimpleNamespace
from typing import NamedTuple, Self

import pyfuse3
import trio

from tests.layers import opened
from unionfs.changes.changes import Caller
from unionfs.changes.parts import read_lower
from unionfs.fuse.operations import Operations
from unionfs.host import content, syscalls
from unionfs.host.credentials import Requester
from unionfs.layers.iflags import FLAGS
from unionfs.layers.layer import Layer, WritableLayer
from unionfs.layers.stack import Stack
from unionfs.view.union import Features, Union

from .plain import STRANGER
from .trees import CHANGEABLE, Thing, Tree

_ROOT = 1
_PIECE = 48 << 10  # bytes
_CONTEXT = SimpleNamespace(uid=0, gid=0, pid=0, umask=0o022)
_NO_FIELDS = dict.fromkeys(
    ("update_atime", "update_mtime", "update_ctime", "update_mode", "update_uid", "update_gid",
     "update_size"), False,
)  # fmt: skip


class Dirs(NamedTuple):
    """Where the layers of a union are."""

    lowers: tuple[str, ...]  # top first
    upper: str
    work: str


class _NoSession:
    """Stands for the session: nothing passes through, nothing is cached."""

    granted = SimpleNamespace(passthrough="off", as_json=dict)

    def requester(self, _unique: int, uid: int, gid: int) -> Requester:
        return Requester(uid, gid, 0)

    def cache_listing(self) -> None:
        pass

    def taken(self) -> None:
        pass


class Client:
    """The verbs, as requests to the core over the layers in *dirs*."""

    lower = Layer

    def __init__(self, dirs: Dirs, features: Features | None = None) -> None:
        self._before = _descriptors()
        self._home = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
        self._umask = os.umask(0)
        number = len(dirs.lowers)
        lowers = tuple(
            self.lower(*opened(path), number=number - index, name=path)
            for index, path in enumerate(dirs.lowers)
        )
        fds = opened(dirs.upper, dirs.work)
        upper = WritableLayer(fds[0], name=dirs.upper)
        work = WritableLayer(fds[1], name=dirs.work)
        self.union = self.joined(Stack(upper, work, lowers), features or Features())
        self.operations = Operations(self.union, _NoSession(), passthrough="off", status={})
        self._lookups: Counter[int] = Counter()
        self._keeps = False
        self.numbers: dict[str, int] = {}  # path -> its inode number at the last `harvest`

    def joined(self, stack: Stack, features: Features) -> Union:
        """Return the union of the layers."""
        return Union(stack, features)

    def close(self) -> None:
        """Let go of everything, as the end of the process would."""
        os.fchdir(self._home)
        os.umask(self._umask)
        syscalls.set_filesystem_ids(0, 0)
        for fd in _descriptors() - self._before:
            os.close(int(fd))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    # Requests

    def _run(self, conversation, *args):
        return trio.run(self._talk, conversation, *args)

    async def _talk(self, conversation, *args):
        """Run what the kernel does for one system call; see `keep` for what it knows then."""
        try:
            return await conversation(*args)
        except pyfuse3.FUSEError as exc:
            raise OSError(exc.errno, os.strerror(exc.errno)) from exc
        finally:
            if not self._keeps:
                await self._forget()

    async def _forget(self) -> None:
        known, self._lookups = list(self._lookups.items()), Counter()
        await self.operations.forget(known)

    def keep(self) -> None:
        """Be a kernel with memory to spare: what was looked up stays known."""
        self._keeps = True

    def forget(self) -> None:
        """Forget everything, as `echo 2 >/proc/sys/vm/drop_caches` makes the kernel do."""
        trio.run(self._forget)

    def _known(self, entry: pyfuse3.EntryAttributes) -> pyfuse3.EntryAttributes:
        self._lookups[entry.st_ino] += 1
        return entry

    async def _find(self, parent: int, name: bytes) -> pyfuse3.EntryAttributes:
        entry = await self.operations.lookup(parent, name, _CONTEXT)
        if entry.st_ino == 0:
            raise pyfuse3.FUSEError(errno.ENOENT)
        return self._known(entry)

    async def _walk(self, path: str) -> int:
        ino = _ROOT
        for name in os.fsencode(path).split(b"/"):
            if name != b".":
                ino = (await self._find(ino, name)).st_ino
        return ino

    async def _parent(self, path: str) -> tuple[int, bytes]:
        parent, name = os.path.split(path)
        return await self._walk(parent or "."), os.fsencode(name)

    async def _free(self, path: str) -> tuple[int, bytes]:
        """Return parent and name, after asking for the name as the kernel does."""
        parent, name = await self._parent(path)
        with contextlib.suppress(pyfuse3.FUSEError):
            await self._find(parent, name)
        return parent, name

    async def _taken(self, path: str) -> tuple[int, bytes]:
        parent, name = await self._parent(path)
        await self._find(parent, name)
        return parent, name

    # Verbs

    def stranger(self, verb: str, *args) -> None:
        """Use a verb as somebody who keeps no privileges of a file, and is no member of a group."""
        _CONTEXT.uid = _CONTEXT.gid = STRANGER
        try:
            getattr(self, verb)(*args)
        finally:
            _CONTEXT.uid = _CONTEXT.gid = 0

    def append(self, name: str, data: bytes) -> None:
        self._run(self._write, name, data, os.O_WRONLY | os.O_APPEND)

    def overwrite(self, name: str, data: bytes) -> None:
        self._run(self._write, name, data, os.O_WRONLY)

    async def _write(self, path: str, data: bytes, flags: int) -> None:
        ino = await self._walk(path)
        info = await self.operations.open(ino, flags, _CONTEXT)
        try:
            size = (await self.operations.getattr(ino, _CONTEXT)).st_size
            written = await self.operations.write(info.fh, size if flags & os.O_APPEND else 0, data)
            if written != len(data):
                raise pyfuse3.FUSEError(errno.ENOSPC)
        finally:
            await self.operations.release(info.fh)

    def empty(self, name: str) -> None:
        async def talk() -> None:
            ino = await self._walk(name)
            info = await self.operations.open(ino, os.O_WRONLY | os.O_TRUNC, _CONTEXT)
            await self.operations.release(info.fh)

        self._run(talk)

    def fill(self, name: str) -> None:
        """Bring the rest of a file piece by piece, as is done while nobody asks for anything."""

        async def talk() -> None:
            node = self.union.nodes[await self._walk(name)]
            partials = self.operations.files.partials
            while (run := partials.rest(node, _PIECE)) is not None:
                data = read_lower(self.union.upper.partials.of(node).source, run)
                partials.take(node, run.start, data)
            if node.partial:
                content.sync(self.union.upper.partials.of(node).target)
                partials.finish(node)
            if partials.records.is_said:
                partials.records.say_no_more()

        self._run(talk)

    def create(self, name: str, mode: int = 0o644) -> None:
        async def talk() -> None:
            parent, last = await self._free(name)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            info, entry = await self.operations.create(
                parent, last, stat.S_IFREG | mode, flags, _CONTEXT
            )
            self._known(entry)
            await self.operations.release(info.fh)

        self._run(talk)

    async def _setattr(self, path: str, fields: tuple[str, ...], **values: int) -> None:
        attributes = pyfuse3.EntryAttributes()
        for key, value in values.items():
            setattr(attributes, key, value)
        asked = SimpleNamespace(**(_NO_FIELDS | dict.fromkeys(fields, True)))
        ino = await self._walk(path)
        if "st_mode" in values:
            entry = await self.operations.getattr(ino, _CONTEXT)
            attributes.st_mode = stat.S_IFMT(entry.st_mode) | values["st_mode"]
        await self.operations.setattr(ino, attributes, asked, None, _CONTEXT)

    def _set(self, name: str, fields: tuple[str, ...], **values: int) -> None:
        self._run(lambda: self._setattr(name, fields, **values))

    def truncate(self, name: str, size: int) -> None:
        self._set(name, ("update_size",), st_size=size)

    def chmod(self, name: str, mode: int) -> None:
        self._set(name, ("update_mode",), st_mode=mode)

    def chown(self, name: str, uid: int, gid: int) -> None:
        self._set(name, ("update_uid", "update_gid"), st_uid=uid, st_gid=gid)

    def utime(self, name: str, ns: int) -> None:
        self._set(name, ("update_atime", "update_mtime"), st_atime_ns=ns, st_mtime_ns=ns)

    def setxattr(self, name: str, attribute: str, value: bytes) -> None:
        async def talk() -> None:
            ino = await self._walk(name)
            await self.operations.setxattr(ino, attribute.encode(), value, _CONTEXT)

        self._run(talk)

    def removexattr(self, name: str, attribute: str) -> None:
        async def talk() -> None:
            ino = await self._walk(name)
            await self.operations.removexattr(ino, attribute.encode(), _CONTEXT)

        self._run(talk)

    def mkdir(self, name: str, mode: int = 0o755) -> None:
        async def talk() -> None:
            parent, last = await self._free(name)
            self._known(await self.operations.mkdir(parent, last, stat.S_IFDIR | mode, _CONTEXT))

        self._run(talk)

    def rmdir(self, name: str) -> None:
        async def talk() -> None:
            await self.operations.rmdir(*await self._taken(name), _CONTEXT)

        self._run(talk)

    def unlink(self, name: str) -> None:
        async def talk() -> None:
            await self.operations.unlink(*await self._taken(name), _CONTEXT)

        self._run(talk)

    def symlink(self, target: str, name: str) -> None:
        async def talk() -> None:
            parent, last = await self._free(name)
            self._known(await self.operations.symlink(parent, last, os.fsencode(target), _CONTEXT))

        self._run(talk)

    def mknod(self, name: str, mode: int, device: int = 0) -> None:
        async def talk() -> None:
            parent, last = await self._free(name)
            self._known(await self.operations.mknod(parent, last, mode, device, _CONTEXT))

        self._run(talk)

    def link(self, name: str, new: str) -> None:
        async def talk() -> None:
            ino = await self._walk(name)
            parent, last = await self._free(new)
            self._known(await self.operations.link(ino, parent, last, _CONTEXT))

        self._run(talk)

    def link_unnamed(self, name: str, data: bytes) -> None:
        async def talk() -> None:
            parent, last = await self._free(name)
            node, _, fd = self.operations.changes.create_unnamed(
                self.union.nodes[parent], os.O_RDWR, 0o644, Caller(0, 0, _CONTEXT.umask)
            )
            node.lookups += 1
            self._lookups[node.ino] += 1
            try:
                if os.write(fd, data) != len(data):
                    raise pyfuse3.FUSEError(errno.ENOSPC)
                self._known(await self.operations.link(node.ino, parent, last, _CONTEXT))
            finally:
                os.close(fd)

        self._run(talk)

    def set_flags(self, name: str, flags: int) -> None:
        async def talk() -> None:
            node = self.union.nodes[await self._walk(name)]
            chattr = self.operations.chattr
            shown = chattr.get(node, FLAGS)
            wished = FLAGS.with_flags(b"", FLAGS.flags(shown) & ~CHANGEABLE | flags)
            if chattr.takes_content(node, FLAGS, wished):
                await self.operations.files.copies.bring(node)
            chattr.set(node, FLAGS, shown, wished, 0)

        self._run(talk)

    def rename(self, name: str, new: str, flags: int = 0) -> None:
        async def talk() -> None:
            source = await self._taken(name)
            target = await self._free(new)
            await self.operations.rename(*source, *target, flags, _CONTEXT)

        self._run(talk)

    def statvfs(self) -> pyfuse3.StatvfsData:
        return self._run(self.operations.statfs, _CONTEXT)

    # Reading the whole tree

    def harvest(self) -> Tree:
        """Return all that the union shows, mtimes included."""
        tree: Tree = {}
        self.numbers = {}
        self._run(self._gather, _ROOT, "", tree)
        return tree

    def by_number(self, numbers: dict[str, int]) -> Tree:
        """Return what nodes show whose names the kernel keeps: no name is looked up."""
        tree: Tree = {}

        async def talk() -> None:
            for path, ino in numbers.items():
                tree[path] = await self._look(await self.operations.getattr(ino, _CONTEXT))

        self._run(talk)
        return tree

    async def _gather(self, ino: int, path: str, tree: Tree) -> None:
        for name, entry in await self._entries(ino):
            below = os.path.join(path, os.fsdecode(name))
            tree[below] = await self._look(entry)
            self.numbers[below] = entry.st_ino
            if stat.S_ISDIR(entry.st_mode):
                await self._gather(entry.st_ino, below, tree)

    async def _entries(self, ino: int) -> list[tuple[bytes, pyfuse3.EntryAttributes]]:
        found: list[tuple[bytes, pyfuse3.EntryAttributes]] = []
        start, end = -1, 0

        def reply(_token, name, attributes, next_id) -> bool:
            nonlocal end
            if name not in {b".", b".."}:
                found.append((name, self._known(attributes)))
            end = next_id
            return True

        real, pyfuse3.readdir_reply = pyfuse3.readdir_reply, reply
        fh = await self.operations.opendir(ino, _CONTEXT)
        try:
            while end != start:
                start = end
                await self.operations.readdir(fh, start, None)
        finally:
            pyfuse3.readdir_reply = real
            await self.operations.releasedir(fh)
        return found

    async def _look(self, entry: pyfuse3.EntryAttributes) -> Thing:
        ino, mode = entry.st_ino, entry.st_mode
        names = sorted(bytes(name).decode() for name in await self._attributes(ino))
        return Thing(
            mode,
            entry.st_uid,
            entry.st_gid,
            await self._content(ino, mode, entry.st_size),
            entry.st_rdev,
            1 if stat.S_ISDIR(mode) else entry.st_nlink,
            tuple([
                (name, bytes(await self.operations.getxattr(ino, name.encode(), _CONTEXT)))
                for name in names
            ]),
            0 if stat.S_ISDIR(mode) else entry.st_mtime_ns,
            self._flags(ino, mode),
        )  # fmt: skip

    def _flags(self, ino: int, mode: int) -> int:
        if stat.S_IFMT(mode) not in {stat.S_IFREG, stat.S_IFDIR}:
            return 0
        return FLAGS.flags(self.operations.chattr.get(self.union.nodes[ino], FLAGS)) & CHANGEABLE

    async def _attributes(self, ino: int) -> list[bytes]:
        return list(await self.operations.listxattr(ino, _CONTEXT))

    async def _content(self, ino: int, mode: int, size: int) -> bytes:
        if stat.S_ISLNK(mode):
            return bytes(await self.operations.readlink(ino, _CONTEXT))
        if not stat.S_ISREG(mode):
            return b""
        info = await self.operations.open(ino, os.O_RDONLY, _CONTEXT)
        try:
            return bytes(await self.operations.read(info.fh, 0, size))
        finally:
            await self.operations.release(info.fh)


def _descriptors() -> set[str]:
    """Return the open descriptors, without that of the listing itself."""
    return {fd for fd in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{fd}")}
