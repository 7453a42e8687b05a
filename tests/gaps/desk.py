"""Two programs at once: the second runs in a gap of the first, in which the daemon waits.

A `Desk` has the verbs of `tests.crash.client` as coroutines, and `Table` a plain directory's
counterpart.  `Gaps` lets the other program run where the first one waits for a thread: before
that has begun, half way through a copy, and when it is done.
"""

import copy
import errno
import os
import threading
from collections import Counter

import pyfuse3
import trio
import trio.testing

from tests.crash.client import _CONTEXT, _ROOT, Client
from tests.crash.plain import Plain
from tests.crash.trees import harvest
from unionfs.fuse.direct import Direct
from unionfs.fuse.session import messages
from unionfs.fuse.session.crew import Later, Waiting
from unionfs.view.content_copy import ContentCopy

_NOW = 1_700_000_000 * 10**9  # ns; a later mtime is "now", whichever moment that was


def settled(tree):
    """Return *tree* with all mtimes of the present made alike."""
    return {
        path: thing._replace(mtime=1) if thing.mtime > _NOW else thing
        for path, thing in tree.items()
    }


class Table(Plain):
    """A program in a plain directory."""

    def look(self):
        return settled(harvest(self.top, times=True))

    def open(self, name):
        os.close(os.open(self.path(name), os.O_RDWR))

    def read(self, name):
        with open(self.path(name), "rb") as file:
            return file.read()

    def sync(self, name):
        fd = os.open(self.path(name), os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)

    def syncdir(self, name):
        self.sync(name)

    def poke(self, name, data):
        self.overwrite(name, data)

    def allocate(self, name, length):
        fd = os.open(self.path(name), os.O_RDWR)
        try:
            os.posix_fallocate(fd, 0, length)
        finally:
            os.close(fd)

    def copy(self, name, target):
        source = os.open(self.path(name), os.O_RDONLY)
        fd = os.open(self.path(target), os.O_RDWR)
        try:
            return os.copy_file_range(source, fd, os.fstat(source).st_size, 0, 0)
        finally:
            os.close(source)
            os.close(fd)


class Gaps:
    """The moments at which one program's request waits for a thread."""

    def __init__(self):
        self.seen = 0
        self.at = -1  # the gap in which `other` runs
        self.other = None
        self.failing = False  # the thread's work fails in the end
        self.first = None  # the task in whose gaps that is
        self._go = threading.Event()  # the thread may finish its copy
        self._halved = False
        self._run_sync, self._copy = trio.to_thread.run_sync, os.copy_file_range

    def begin(self, at, *, failing=False):
        """Have the other run in gap number *at*."""
        self.seen, self.at, self.failing, self._halved = 0, at, failing, False

    def patch(self, monkeypatch):
        monkeypatch.setattr(trio.to_thread, "run_sync", self.run_sync)
        monkeypatch.setattr(os, "copy_file_range", self._copy_by_halves)
        monkeypatch.setattr(ContentCopy, "fill", self._fill(ContentCopy.fill))
        return self

    def _fill(self, fill):
        def go_on_and_fill(job):
            if threading.current_thread() is threading.main_thread():
                self._go.set()  # who fills in the loop may be about to wait for the thread
            fill(job)

        return go_on_and_fill

    async def pause(self):
        """Let the other run, if this is the gap, as far as it comes."""
        number, self.seen = self.seen, self.seen + 1
        if number == self.at:
            self.nursery.start_soon(self.other)
            await trio.testing.wait_all_tasks_blocked()

    async def run_sync(self, job, *args):
        """Stand in for trio's, which leaves *job* to a thread."""
        if trio.lowlevel.current_task() is not self.first:
            return job(*args)
        await self.pause()
        result = await self._run_sync(job, *args)
        if self.failing:
            raise OSError(errno.EIO, "the disk fails")
        await self.pause()
        return result

    def _copy_by_halves(self, source, target, count, *offsets):
        if threading.current_thread() is threading.main_thread() or self._halved:
            return self._copy(source, target, count, *offsets)
        self._halved = True
        done = self._copy(source, target, max(count // 2, 1), *offsets)
        self._go.clear()
        trio.from_thread.run_sync(self.nursery.start_soon, self._pause_and_go)
        self._go.wait()
        return done

    async def _pause_and_go(self):
        await self.pause()
        self._go.set()

    async def run(self, first, other):
        """Run both, and return what they said."""
        said = {}

        async def say(who, what):
            try:
                said[who] = await what()
            except OSError as exc:
                said[who] = errno.errorcode[exc.errno]

        async def story():
            self.first = trio.lowlevel.current_task()
            await say("first", first)

        self.other = lambda: say("other", other)
        async with trio.open_nursery() as self.nursery:
            self.nursery.start_soon(story)
        return said.get("first"), said.get("other")


class Desk(Client):
    """A program on the union; `another` is a second one on the same."""

    def __init__(self, dirs, features, gaps):
        super().__init__(dirs, features)
        self.direct = Direct(self.operations)
        self._gaps = gaps
        self._talks = []

    def another(self):
        other = copy.copy(self)
        other._lookups, other._talks = Counter(), []  # noqa: SLF001 - a copy of ours
        return other

    def _run(self, conversation, *args):
        self._talks.append(self._talk(conversation, *args))

    async def do(self, *steps):
        """Do verbs one after the other; return what the last one said."""
        said = None
        for verb, *args in steps:
            getattr(self, verb)(*args)
            said = await self._talks.pop()
        return said

    def look(self):
        async def talk():
            tree = {}
            await self._gather(_ROOT, "", tree)
            return settled(tree)

        self._run(talk)

    def open(self, name):
        self._run(self._with, name, os.O_RDWR)

    def read(self, name):
        async def talk(fh, _ino):
            return bytes(await self.operations.read(fh, 0, 1 << 16))

        self._run(self._with, name, os.O_RDONLY, talk)

    def sync(self, name):
        async def talk(fh, _ino):
            await self.operations.fsync(fh, False)

        self._run(self._with, name, os.O_RDONLY, talk)

    def syncdir(self, name):
        async def talk():
            ino = await self._walk(name)
            await self.operations.fsyncdir(ino, False)

        self._run(talk)

    def poke(self, name, data):
        """Write without an open: `noopen`."""

        async def talk():
            ino = await self._walk(name)
            body = messages.WRITE_IN.pack(0, 0, len(data), 0, 0) + data
            try:
                await self._ask(messages.WRITE, ino, body)
            finally:
                self.direct._content.descriptors.forget(ino)  # noqa: SLF001 - as the kernel would

        self._run(talk)

    def allocate(self, name, length):
        async def talk(fh, ino):
            body = messages.FALLOCATE_IN.pack(fh, 0, length, 0)
            await self._ask(messages.FALLOCATE, ino, body)

        self._run(self._with, name, os.O_RDWR, talk)

    def copy(self, name, target):
        async def talk(source, ino):
            size = (await self.operations.getattr(ino, _CONTEXT)).st_size

            async def on(fh, number):
                body = messages.COPY_FILE_RANGE_IN.pack(source, 0, number, fh, 0, size, 0)
                reply = await self._ask(messages.COPY_FILE_RANGE, ino, body)
                return int.from_bytes(reply[16:20], "little")

            return await self._with(target, os.O_RDWR, on)

        self._run(self._with, name, os.O_RDONLY, talk)

    async def _with(self, path, flags, talk=None):
        ino = await self._walk(path)
        info = await self.operations.open(ino, flags, _CONTEXT)
        try:
            return talk and await talk(info.fh, ino)
        finally:
            await self.operations.release(info.fh)

    async def _ask(self, opcode, ino, body):
        """Make a request of the kernel's that pyfuse3 does not know, as `dispatch` serves it."""
        reply = self.direct.table[opcode](1, ino, memoryview(body), 0, 0)
        while not isinstance(reply, bytes | memoryview):
            if isinstance(reply, Waiting):
                reply = await reply.job()
            if isinstance(reply, Later):
                await self._gaps.pause()
                reply = reply.job()
        number = -int.from_bytes(reply[4:8], "little", signed=True)
        if number:
            raise pyfuse3.FUSEError(number)
        return reply
