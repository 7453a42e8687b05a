# ruff: noqa: ARG002, PLR0917 -- the handlers' arguments are pyfuse3's
"""A small filesystem to serve through a `Session`: it mirrors a directory, without union logic.

Run as `python mirror.py SETTINGS`, where SETTINGS is JSON.  It prints a line
when it serves, and then answers each line on its standard input with a line of
JSON: `state`, `go` or `stop`.  Some names and contents of files ask for special
behaviour, see `Mirror.open` and `Mirror.read`.
"""

import collections
import ctypes
import errno
import json
import os
import signal
import sys
import threading
import time

import pyfuse3
import trio

from unionfs.fuse.session import Session, Switches

FOREVER = 1e6
FIELDS = ("st_mode", "st_nlink", "st_uid", "st_gid", "st_size", "st_blocks", "st_rdev")
TIMES = ("st_atime_ns", "st_mtime_ns", "st_ctime_ns")


def entry_of(path: str, ino: int) -> pyfuse3.EntryAttributes:
    try:
        st = os.lstat(path)
    except OSError as exc:
        raise pyfuse3.FUSEError(exc.errno) from None
    entry = pyfuse3.EntryAttributes()
    entry.st_ino = ino
    for name in FIELDS + TIMES:
        setattr(entry, name, getattr(st, name))
    entry.entry_timeout = entry.attr_timeout = FOREVER
    return entry


class Mirror(pyfuse3.Operations):
    """Paths by inode number, and descriptors as handles."""

    enable_acl = True

    def __init__(self, session: Session, settings: dict) -> None:
        super().__init__()
        self.session = session
        self.passthrough = settings.get("passthrough", False)
        self.cache_listing = settings.get("cache_listing", False)
        self.flush_once = settings.get("flush_once", True)
        self.counts: collections.Counter[str] = collections.Counter()
        self.paths = {pyfuse3.ROOT_INODE: settings["source"]}
        self.inos: dict[str, int] = {}
        self.backing: dict[int, list[int]] = {}  # inode -> [backing id, opens]
        self.ino_of: dict[int, int] = {}  # handle -> inode passed through
        self.umasks: list[int] = []
        self.going = threading.Event()  # set where reads of what is held go on
        self.handles: set[int] = set()

    def ino(self, path: str) -> int:
        ino = self.inos.get(path)
        if ino is None:
            ino = self.inos[path] = len(self.paths) + 1
            self.paths[ino] = path
        return ino

    def entry(self, path: str) -> pyfuse3.EntryAttributes:
        return entry_of(path, self.ino(path))

    def child(self, parent: int, name: bytes) -> str:
        return self.paths[parent] + "/" + os.fsdecode(name)

    async def lookup(self, parent, name, ctx=None):
        self.counts["lookup"] += 1
        try:
            return self.entry(self.child(parent, name))
        except pyfuse3.FUSEError:
            absent = pyfuse3.EntryAttributes()
            absent.st_ino = 0
            absent.entry_timeout = FOREVER
            return absent

    async def forget(self, inode_list):
        pass

    async def getattr(self, inode, ctx=None):
        self.counts["getattr"] += 1
        return entry_of(self.paths[inode], inode)

    async def setattr(self, inode, attr, fields, fh, ctx):
        path = self.paths[inode]
        if fields.update_size:
            os.truncate(path, attr.st_size)
        if fields.update_mode:
            os.chmod(path, attr.st_mode & 0o7777)
        if not (fields.update_size or fields.update_mode):  # a write takes set-uid bits away
            os.chown(path, -1, -1)
        return entry_of(path, inode)

    async def getxattr(self, inode, name, ctx):
        self.counts["getxattr"] += 1
        raise pyfuse3.FUSEError(errno.ENODATA)

    async def readlink(self, inode, ctx):
        self.counts["readlink"] += 1
        return os.fsencode(os.readlink(self.paths[inode]))

    async def mkdir(self, parent, name, mode, ctx):
        self.umasks.append(ctx.umask)
        os.mkdir(self.child(parent, name))
        os.chmod(self.child(parent, name), mode & 0o7777)
        return self.entry(self.child(parent, name))

    async def unlink(self, parent, name, ctx):
        os.unlink(self.child(parent, name))
        self.inos.pop(self.child(parent, name), None)

    async def rename(self, parent_old, name_old, parent_new, name_new, flags, ctx):
        old, new = self.child(parent_old, name_old), self.child(parent_new, name_new)
        os.rename(old, new)
        ino = self.inos.pop(old)
        self.inos[new], self.paths[ino] = ino, new

    def opened(self, ino: int, fd: int) -> pyfuse3.FileInfo:
        self.handles.add(fd)
        if self.passthrough and self.session.granted.passthrough:
            use = self.backing.setdefault(ino, [0, 0])
            if not use[1]:
                use[0] = self.session.register(fd)
            use[1] += 1
            self.ino_of[fd] = ino
            self.session.pass_through(use[0])
        return pyfuse3.FileInfo(fh=fd, keep_cache=True)

    async def open(self, inode, flags, ctx):
        self.counts["open"] += 1
        path = self.paths[inode]
        name = os.path.basename(path)
        if name.startswith("slow-open"):
            await trio.to_thread.run_sync(time.sleep, 0.02)
        if flags & os.O_ACCMODE:
            flags = (flags & ~os.O_ACCMODE) | os.O_RDWR
        info = self.opened(inode, os.open(path, flags & ~(os.O_APPEND | os.O_CREAT)))
        if name == "refused-after-divert":
            await self.release(info.fh)
            raise pyfuse3.FUSEError(errno.EPERM)
        if name == "waits-after-divert":
            await trio.to_thread.run_sync(time.sleep, 0.01)
        return info

    async def create(self, parent, name, mode, flags, ctx):
        self.umasks.append(ctx.umask)
        path = self.child(parent, name)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | (flags & os.O_EXCL), 0o600)
        os.fchmod(fd, mode & 0o7777)
        entry = self.entry(path)
        return self.opened(entry.st_ino, fd), entry

    async def release(self, fh):
        ino = self.ino_of.pop(fh, None)
        if ino is not None:
            use = self.backing[ino]
            use[1] -= 1
            if not use[1]:
                self.session.unregister(use[0])
        self.handles.remove(fh)
        os.close(fh)

    def close(self) -> None:
        """Close what clients still had open when the mount went away."""
        for fh in self.handles:
            os.close(fh)

    async def flush(self, fh):
        if self.flush_once:
            raise pyfuse3.FUSEError(errno.ENOSYS)

    async def fsync(self, fh, datasync):
        os.fsync(fh)

    async def read(self, fh, off, size):
        self.counts["read"] += 1
        data = os.pread(fh, size, off)
        if data.startswith(b"held:"):
            await trio.to_thread.run_sync(self.going.wait)
        return data

    async def write(self, fh, off, buf):
        self.counts["write"] += 1
        return os.pwrite(fh, buf, off)

    async def opendir(self, inode, ctx):
        self.counts["opendir"] += 1
        if self.cache_listing:
            self.session.cache_listing()
        return inode

    async def readdir(self, fh, start_id, token):
        self.counts["readdir"] += 1
        directory = self.paths[fh]
        for index, name in enumerate(sorted(os.listdir(directory))):
            if index >= start_id:
                entry = self.entry(f"{directory}/{name}")
                if not pyfuse3.readdir_reply(token, os.fsencode(name), entry, index + 1):
                    break


class Witnesses:
    """A timer, a thread and a signal that shall make progress while requests flood in."""

    def __init__(self) -> None:
        self.ticks = self.thread_rounds = self.signals = 0
        self.worst_tick = 0.0

    async def timer(self) -> None:
        while True:
            before = trio.current_time()
            await trio.sleep(0.005)
            self.worst_tick = max(self.worst_tick, trio.current_time() - before - 0.005)
            self.ticks += 1

    async def threads(self) -> None:
        while True:
            await trio.to_thread.run_sync(time.sleep, 0.001)
            self.thread_rounds += 1

    async def receive(self, signals) -> None:
        async for _number in signals:
            self.signals += 1


# When the session was made, and when it served: time.perf_counter().
session_clock: dict[str, float] = {}


def say(what: object) -> None:
    print(what if isinstance(what, str) else json.dumps(what), flush=True)  # noqa: T201


async def answer(session, mirror, witnesses, nursery) -> None:
    stdin = trio.lowlevel.FdStream(os.dup(0))
    async for chunk in stdin:
        for line in chunk.split():
            if line == b"stop":
                nursery.cancel_scope.cancel()
            elif line == b"go":
                mirror.going.set()
            elif line == b"terminate":
                pyfuse3.terminate()
            elif line == b"witness":
                nursery.start_soon(witnesses.timer)
                nursery.start_soon(witnesses.threads)
            state = {
                "granted": session.granted.as_json(),
                "counts": mirror.counts,
                "umasks": mirror.umasks,
                "cpu": time.process_time(),
                "ticks": witnesses.ticks,
                "worst_tick": witnesses.worst_tick,
                "thread_rounds": witnesses.thread_rounds,
                "signals": witnesses.signals,
                "start_seconds": session_clock["started"] - session_clock["begun"],
            }
            say(state)


def started() -> None:
    session_clock["started"] = time.perf_counter()
    say("serving")


async def serve(session: Session, mirror: Mirror) -> None:
    witnesses = Witnesses()
    with trio.open_signal_receiver(signal.SIGUSR1, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(witnesses.receive, signals)
            nursery.start_soon(answer, session, mirror, witnesses, nursery)
            await session.serve(started)
            nursery.cancel_scope.cancel()


def drop_admin() -> None:
    """Give up CAP_SYS_ADMIN; fusermount3, which is set-uid, gets it back."""
    sets = (ctypes.c_uint32 * 6)()
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    libc = ctypes.CDLL(None)
    libc.capget(header, sets)
    sets[0] &= ~(1 << 21)
    sets[1] &= ~(1 << 21)
    libc.capset(header, sets)


def main(settings: dict) -> None:
    before = set(os.listdir("/proc/self/fd"))
    if settings.get("unprivileged"):
        drop_admin()
    session_clock["begun"] = time.perf_counter()
    session = Session(
        settings["mountpoint"],
        source=settings.get("fsname", settings["source"]),
        subtype="mirror",
        mount_flags=settings.get("flags", 0),
        switches=Switches(**settings.get("switches", {})),
    )
    mirror = Mirror(session, settings)
    try:
        session.mount(mirror)
        trio.run(serve, session, mirror)
    except OSError as exc:
        say({"errno": exc.errno})
    finally:
        session.close()
        mirror.close()
    after = set(os.listdir("/proc/self/fd"))
    with open("/proc/self/mounts", errors="surrogateescape", encoding="utf-8") as lines:
        mounts = sum(line.startswith(settings["source"] + " ") for line in lines)
    left = len(after) - len(before)
    threads = sum(not thread.daemon for thread in threading.enumerate())  # trio's are daemons
    say({"left": left, "threads": threads, "mounts": mounts})


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
