"""What btrfs itself loses when power fails after an fsync(2), and what the union does about it.

Where a test of btrfs itself fails, the limit in docs/durability.md, or the
commit in unionfs/durability.py, can go.
"""

import contextlib
import os

from unionfs.syscalls import RENAME_WHITEOUT, renameat2

from . import contender, disks
from .client import Client, Dirs
from .contender import Place


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


def test_btrfs_itself_forgets_the_whiteout_of_a_rename(directory):
    def do(disk):
        os.mkdir(f"{disk}/old")
        _make(f"{disk}/old/inside")
        _sync(f"{disk}/old/inside")
        _sync(f"{disk}/old")
        path = os.fsencode(disk)
        renameat2(-100, path + b"/old", -100, path + b"/new", RENAME_WHITEOUT)
        _make(f"{disk}/file")
        _sync(f"{disk}/file")
        assert set(os.listdir(disk)) == {"old", "new", "file"}

    with _power_fails(directory, lambda _disk: None, do) as disk:
        assert set(os.listdir(disk)) == {"new", "file"}


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


def test_a_synced_directory_on_btrfs_holds_whole_files_at_one_name(directory):
    """It is synced by a commit."""
    lower, mountpoint, content = f"{directory}/lower", f"{directory}/mnt", b"lower" * 600
    for path in (f"{lower}/one", f"{lower}/two", mountpoint):
        os.makedirs(path)
    for name in ("renamed", "moved"):
        with open(f"{lower}/one/{name}", "wb") as file:
            file.write(content)

    image, after, disk = f"{directory}/image", f"{directory}/after", f"{directory}/disk"
    os.mkdir(disk)
    disks.make("btrfs", image)
    with disks.mounted("btrfs", image, disk):
        os.mkdir(f"{disk}/upper")
        os.mkdir(f"{disk}/work")
        with contender.union(Place(lower, f"{disk}/upper", f"{disk}/work", mountpoint)):
            os.rename(f"{mountpoint}/one/moved", f"{mountpoint}/two/moved")
            _sync(f"{mountpoint}/two")
            os.rename(f"{mountpoint}/one/renamed", f"{mountpoint}/one/new")
            _sync(f"{mountpoint}/one")
            disks.clone(image, after)
    with (
        disks.mounted("btrfs", after, disk),
        Client(Dirs((lower,), f"{disk}/upper", f"{disk}/work")) as client,
    ):
        seen = {name: thing.content for name, thing in client.harvest().items()}
    assert seen == {"one": b"", "one/new": content, "two": b"", "two/moved": content}
