"""What btrfs itself loses when power fails after an fsync(2), and what the union does about it.

Where a test of btrfs itself fails, the limit in docs/durability.md, or the
commit in unionfs/durability.py, can go.
"""

import contextlib
import os

import pytest

from unionfs.host.syscalls import RENAME_WHITEOUT, renameat2

from . import contender, disks
from .client import Client, Dirs
from .contender import Place

_CONTENT = b"lower" * 600


@contextlib.contextmanager
def _power_fails(directory, prepare, do):
    """Do it on a btrfs on which *prepare* is committed; yield what of it is there after a cut."""
    image, after, disk = f"{directory}/image", f"{directory}/after", f"{directory}/disk"
    os.mkdir(disk)
    disks.make("btrfs", image)
    with disks.mounted("btrfs", image, disk):
        prepare(disk)
        os.sync()
        do(disk)
        disks.clone(image, after)
    with disks.mounted("btrfs", after, disk):
        yield disk


def _sync(path):
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def _make(path, size=0):
    with open(path, "wb") as file:
        file.truncate(size)


def _rename_what_was_synced(disk):
    os.mkdir(f"{disk}/old")
    _make(f"{disk}/old/inside")
    _sync(f"{disk}/old/inside")
    _sync(f"{disk}/old")
    path = os.fsencode(disk)
    renameat2(-100, path + b"/old", -100, path + b"/new", RENAME_WHITEOUT)
    _make(f"{disk}/file")
    _sync(f"{disk}/file")
    assert set(os.listdir(disk)) == {"old", "new", "file"}


def test_btrfs_itself_forgets_the_whiteout_of_a_rename(directory):
    with _power_fails(directory, lambda _disk: None, _rename_what_was_synced) as disk:
        assert set(os.listdir(disk)) == {"new", "file"}


def test_btrfs_keeps_the_whiteout_with_notreelog(directory):
    def prepare(disk):
        disks.run("mount", "-o", "remount,notreelog", disk)

    with _power_fails(directory, prepare, _rename_what_was_synced) as disk:
        assert set(os.listdir(disk)) == {"old", "new", "file"}


def test_btrfs_itself_forgets_the_size_of_a_file_when_its_directory_is_synced(directory):
    def do(disk):
        _make(f"{disk}/top/staged", 3000)
        os.rename(f"{disk}/top/staged", f"{disk}/top/file")
        _sync(f"{disk}/top")

    with _power_fails(directory, lambda disk: os.mkdir(f"{disk}/top"), do) as disk:
        assert os.stat(f"{disk}/top/file").st_size == 0


def test_btrfs_itself_shows_both_names_when_the_new_directory_is_synced(directory):
    def prepare(disk):
        os.mkdir(f"{disk}/one")
        os.mkdir(f"{disk}/two")
        _make(f"{disk}/one/file")

    def do(disk):
        os.rename(f"{disk}/one/file", f"{disk}/two/file")
        _sync(f"{disk}/two")

    with _power_fails(directory, prepare, do) as disk:
        assert (os.listdir(f"{disk}/one"), os.listdir(f"{disk}/two")) == (["file"], ["file"])


@pytest.fixture
def survivors(directory):
    """Return what of a union, its upper on btrfs, is there after something and a power cut."""

    def after(do):
        image, cut, disk = f"{directory}/image", f"{directory}/cut", f"{directory}/disk"
        lower, mountpoint = f"{directory}/lower", f"{directory}/mnt"
        for path in (disk, f"{lower}/one", f"{lower}/two", mountpoint):
            os.makedirs(path)
        with open(f"{lower}/one/file", "wb") as file:
            file.write(_CONTENT)
        disks.make("btrfs", image)
        with disks.mounted("btrfs", image, disk):
            for name in ("upper", "work"):
                os.mkdir(f"{disk}/{name}")
            with contender.union(Place(lower, f"{disk}/upper", f"{disk}/work", mountpoint)):
                do(mountpoint)
                disks.clone(image, cut)
        with (
            disks.mounted("btrfs", cut, disk),
            Client(Dirs((lower,), f"{disk}/upper", f"{disk}/work")) as client,
        ):
            return {name: thing.content for name, thing in client.harvest().items()}

    return after


def test_a_synced_directory_on_btrfs_holds_a_whole_file_under_a_new_name(survivors):
    def do(top):
        os.rename(f"{top}/one/file", f"{top}/one/new")
        _sync(f"{top}/one")

    assert survivors(do) == {"one": b"", "one/new": _CONTENT, "two": b""}


def test_a_synced_directory_on_btrfs_holds_what_was_moved_there_and_the_old_one_does_not(survivors):
    def do(top):
        os.rename(f"{top}/one/file", f"{top}/two/file")
        _sync(f"{top}/two")

    assert survivors(do) == {"one": b"", "two": b"", "two/file": _CONTENT}


def test_what_is_copied_up_and_renamed_on_btrfs_does_not_show_below_when_another_is_synced(
    survivors,
):
    def do(top):
        _make(f"{top}/other")
        _sync(top)
        with open(f"{top}/one/file", "ab") as file:
            file.write(b"more")
        os.rename(f"{top}/one/file", f"{top}/one/new")
        with open(f"{top}/other", "ab", buffering=0) as file:
            file.write(b"more")
            os.fsync(file)

    rest = {"one": b"", "other": b"more", "two": b""}
    files = {"one/file": _CONTENT}, {"one/new": _CONTENT}, {"one/new": _CONTENT + b"more"}
    assert survivors(do) in [rest | file for file in files]
