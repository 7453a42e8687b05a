"""When fsync(2) may return: all that it promises is on the disk, whoever asked before."""

import errno
import os
import threading

import pytest
import trio

from unionfs.fuse.durability import Durability
from unionfs.host import content


class Gate(threading.Event):
    """Holds a sync up until it is set."""

    def __init__(self):
        super().__init__()
        self.reached = threading.Event()

    async def comes(self):
        """Return when the sync is held up here."""
        await trio.to_thread.run_sync(self.reached.wait)


class Disk:
    """Stands for the disk under upper: notes what is synced, and can hold a sync up or fail it."""

    def __init__(self, monkeypatch):
        self.synced = []
        self.held = {}  # path -> what its next sync waits for
        self.failing = set()
        monkeypatch.setattr(os, "fsync", self._sync)
        monkeypatch.setattr(os, "fdatasync", lambda fd: self._sync(fd, ", data"))

    def _sync(self, fd, how=""):
        shown = os.readlink(f"/proc/self/fd/{fd}")  # in a detached mount: from that one's root
        path = shown.rpartition("/upper")[2].lstrip("/") or "."
        gate = self.held.pop(path, None)
        if gate is not None:
            gate.reached.set()
            gate.wait()
        if path in self.failing:
            raise OSError(errno.EIO, "bad sector")
        self.synced.append(path + how)

    def hold(self, path):
        gate = self.held[path] = Gate()
        return gate

    def take(self):
        taken, self.synced = self.synced, []
        return taken


@pytest.fixture
def disk(union, monkeypatch):
    """A lower file in two directories, copied up by a writer; its node, its descriptor."""
    u = union({}, {"d": {"e": {"f": "old"}}, "x": {}}, fsync="auto")
    fd = u.open_to_write("d/e/f")
    disk = Disk(monkeypatch)
    disk.union, disk.node, disk.fd = u, u.node("d/e/f"), fd
    disk.durability = Durability(u.union)
    return disk


async def sync(disk, ended=None, *, datasync=False):
    await disk.durability.sync_file(disk.node, disk.fd, datasync=datasync)
    if ended is not None:
        ended.set()


async def at_rest():
    """Let all tasks go on as far as they come without the disk."""
    await trio.testing.wait_all_tasks_blocked(0.02)


def test_a_file_and_the_names_that_lead_to_it_are_synced_once(disk):
    trio.run(sync, disk)
    assert disk.take() == ["d/e/f", "d/e", "d", "."]
    trio.run(sync, disk)
    assert disk.take() == ["d/e/f"]


@pytest.mark.parametrize("held", ["d/e", "d", "."])
def test_a_second_caller_is_not_told_before_all_is_on_the_disk(disk, held):
    async def story():
        async with trio.open_nursery() as nursery:
            gate, second = disk.hold(held), trio.Event()
            nursery.start_soon(sync, disk)
            await gate.comes()
            again = disk.hold(held)
            nursery.start_soon(sync, disk, second)
            await at_rest()
            told = second.is_set()
            gate.set()
            again.set()
            await second.wait()
            return told

    assert trio.run(story) is False


@pytest.mark.parametrize("failing", ["d/e", "d", "."])
def test_after_a_failed_sync_the_next_caller_syncs_again(disk, failing):
    disk.failing.add(failing)
    for _ in range(2):
        with pytest.raises(OSError, match="bad sector"):
            trio.run(sync, disk)
    disk.failing.clear()
    disk.take()
    trio.run(sync, disk)
    assert disk.take() == ["d/e/f", "d/e", "d", "."]


def test_a_copy_made_during_a_sync_is_not_taken_for_synced(union, monkeypatch):
    u = union({}, {"d": {"f": "old"}}, fsync="auto")
    u.change("d/f", mode=0o600)  # a copy without content: another follows
    disk = Disk(monkeypatch)
    disk.node, disk.fd, disk.durability = u.node("d/f"), u.open("d/f"), Durability(u.union)

    async def story():
        async with trio.open_nursery() as nursery:
            gate = disk.hold("d")
            nursery.start_soon(sync, disk)
            await gate.comes()
            u.append("d/f", "new")
            gate.set()

    trio.run(story)
    disk.take()
    trio.run(sync, disk)
    assert disk.take() == ["d/f", "d"]


def test_of_a_file_moved_during_a_sync_the_new_directory_is_synced(disk):
    disk.union.create("x/new")

    async def story():
        async with trio.open_nursery() as nursery:
            gate = disk.hold("d/e")
            nursery.start_soon(sync, disk)
            await gate.comes()
            disk.union.rename("d/e/f", "x/f")
            gate.set()

    trio.run(story)
    assert disk.take() == ["d/e/f", "d/e", "x", "."]


def test_what_was_copied_up_before_the_kernel_forgot_it_is_synced_as_well(disk):
    again = disk.union.remount()
    disk.node, disk.durability = again.node("d/e/f"), Durability(again.union)
    trio.run(sync, disk)
    assert disk.take() == ["d/e/f", "d/e", "d", "."]


def test_fdatasync_leaves_out_what_is_known_of_a_file_only_when_its_copy_is_on_the_disk(disk):
    for expected in (["d/e/f", "d/e", "d", "."], ["d/e/f, data"]):
        trio.run(lambda: sync(disk, datasync=True))
        assert disk.take() == expected


def test_a_file_of_upper_alone_takes_no_directory(union, monkeypatch):
    u = union({"d": {"f": "text"}}, {"d": {}}, fsync="auto")
    disk = Disk(monkeypatch)
    disk.node, disk.fd, disk.durability = u.node("d/f"), u.open("d/f"), Durability(u.union)
    trio.run(sync, disk)
    assert disk.take() == ["d/f"]


def test_on_btrfs_directories_are_synced_by_a_commit(disk, monkeypatch):
    commits = []
    monkeypatch.setattr(content.syscalls, "is_btrfs", lambda _fd: True)
    monkeypatch.setattr(content.mountcalls, "sync_filesystem", commits.append)
    trio.run(sync, disk)
    assert disk.take() == ["d/e/f"]
    assert len(commits) == 3
