"""Blocks of files in part that a crash took: their marks have reached the disk, they have not."""

import contextlib
import os
import random
import subprocess

import pytest

from tests.mounted import disks
from tests.mounted.mount import PATIENCE, Mount
from tests.mounted.witness import failure
from unionfs.host.syscalls import KEEP_SIZE, fallocate
from unionfs.layers.blockmap import BlockMap
from unionfs.layers.markers import BLOCKS, METACOPY

BLOCK, PAGE = 64 << 10, 4096
SIZE = 4 * BLOCK + 100

# What makes room in a file, or makes it longer.
GROWTH = {
    "reserved": lambda fd: fallocate(fd, 0, 2 * BLOCK + 5, BLOCK),
    "reserved, then written": lambda fd: (
        fallocate(fd, 0, 2 * BLOCK, 8 * PAGE),
        os.pwrite(fd, b"n" * PAGE, 2 * BLOCK + 2 * PAGE),
    ),
    "reserved, and the size kept": lambda fd: fallocate(fd, KEEP_SIZE, BLOCK - 1, 9 * BLOCK),
    "reserved from the end on": lambda fd: fallocate(fd, 0, SIZE, BLOCK),
    "reserved behind the end": lambda fd: fallocate(fd, 0, SIZE + BLOCK, BLOCK),
    "longer": lambda fd: os.ftruncate(fd, SIZE + BLOCK),
    "longer by a little": lambda fd: os.ftruncate(fd, SIZE + 1),
    "shorter, then longer": lambda fd: (os.ftruncate(fd, SIZE - 50), os.ftruncate(fd, SIZE)),
    "written behind the end": lambda fd: os.pwrite(fd, b"more", SIZE + BLOCK),
    "written near the end": lambda fd: os.pwrite(fd, b"more", SIZE + 10),
    "copied to": lambda fd: os.copy_file_range(fd, fd, 10, 5, SIZE + BLOCK),
}


def grow(paths):
    """Write a page to each file, for which it is in part, and then make it grow."""
    for path, change in zip(paths, GROWTH.values(), strict=True):
        fd = os.open(path, os.O_RDWR)
        os.pwrite(fd, b"new", 7)
        change(fd)
        os.fsync(fd)
        os.close(fd)


def lose(path):
    """Leave a file as if it had been written to everywhere, and no block had reached the disk.

    Of some there is the room that the file system had reserved.  All is read then, as by a backup.
    """
    found = BlockMap.decoded(os.getxattr(path, BLOCKS), path.stat().st_size)
    os.setxattr(path, BLOCKS, found.marked(0, found.limit).encoded())
    fd = os.open(path, os.O_RDWR)
    fallocate(fd, KEEP_SIZE, BLOCK, PAGE)
    os.close(fd)
    path.read_bytes()


@pytest.mark.without("far=all")  # which copies files as a whole
@pytest.mark.parametrize("kind", ["ext4", "ext4-at-once", "xfs", "btrfs"])
def test_a_lost_block_shows_the_lower_also_in_a_file_that_grew(base, kind):
    """An ext4 that does not delay writes zeros to the room beside what is written."""
    lower, plain = base / "lower1", base / "plain"
    for top in (lower, plain):
        top.mkdir()
        for name in GROWTH:
            (top / name).write_bytes(random.Random(name).randbytes(SIZE))
    grow([plain / name for name in GROWTH])
    with disks.writable(kind, base, 400) as root, _union(lower, root) as union:
        grow([union.path / name for name in GROWTH])
        union.kill()
        for name in GROWTH:
            assert METACOPY in os.listxattr(union.upper / name)
            lose(union.upper / name)
        subprocess.run(["sync", "-f", root], check=True)
        union.start()
        shown = {name: (union.path / name).read_bytes() for name in GROWTH}
        assert shown == {name: (plain / name).read_bytes() for name in GROWTH}
        union.stop()
        assert {name: (union.upper / name).read_bytes() for name in GROWTH} == shown


@pytest.mark.without("far=all")
def test_a_block_is_no_smaller_than_those_of_the_file_system(base):
    """There a write of a page writes zeros beside it, which would show where the rest is lost."""
    (base / "lower1").mkdir()
    (base / "lower1/f").write_bytes(random.Random(1).randbytes(SIZE))
    with _large_blocks(base, 4 * PAGE) as root, _union(base / "lower1", root) as union:
        before = (union.path / "f").read_bytes()
        with (union.path / "f").open("r+b", buffering=0) as file:
            file.write(bytes(PAGE))
        union.kill()
        lose(union.upper / "f")
        union.start()
        assert (union.path / "f").read_bytes() == bytes(PAGE) + before[PAGE:]


@contextlib.contextmanager
def _union(lower, root):
    for name in ("upper", "work"):
        (root / name).mkdir()
    layers = {"upper": root / "upper", "work": root / "work"}
    mount = Mount(lower.parent, lowers=[lower], options=("copyup=blocks",), **layers)
    try:
        yield mount.start()
    finally:
        mount.kill()


def _large_blocks(base, size):
    """Mount a file system with blocks larger than a page, where the kernel can: Linux 6.12."""
    image, point = base / "image", base / "large"
    with image.open("wb") as file:
        file.truncate(400 << 20)
    disks.run("mkfs.xfs", "-q", "-b", f"size={size}", image)
    point.mkdir()
    words = ["mount", "-o", "loop", image, point]
    if subprocess.run(words, capture_output=True, check=False).returncode:
        pytest.skip("no blocks larger than a page here")
    subprocess.run(["umount", point], check=True)
    return disks.mounted(point, "-o", "loop", image)


@contextlib.contextmanager
def _deceiving(base):
    """Yield an ext4, and what lets its disk refuse all that has not been written there yet."""
    with disks.mounted(base / "back", "-t", "tmpfs", "-o", "size=24m", "tmpfs") as back:
        image, rest = back / "image", back / "rest"
        image.touch()
        os.truncate(image, 64 << 20)
        disks.run("mkfs.ext4", "-q", "-O", "^has_journal", "-b", PAGE, image)

        def refuse():
            os.sync()
            with contextlib.suppress(OSError), rest.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(PAGE))

        with disks.mounted(base / "ext4", "-o", "loop", image) as root:
            yield root, refuse, rest.unlink


@pytest.mark.without("far=all", "noopen=on")  # all have one descriptor then
def test_all_who_have_a_file_open_hear_that_the_disk_did_not_take_it(base):
    """It is in part afterwards, too: what the disk has not got is the lower's."""
    (base / "lower1").mkdir()
    (base / "lower1" / "f").write_bytes(random.Random("f").randbytes(64 * BLOCK))
    with _deceiving(base) as (root, refuse, give), _union(base / "lower1", root) as union:
        fds = [os.open(union.path / "f", os.O_RDWR) for _ in range(2)]
        os.pwrite(fds[0], b"old", 5)
        os.fsync(fds[0])
        refuse()
        os.pwrite(fds[0], b"n" * 40 * BLOCK, 0)
        assert [failure(os.fsync, fd) for fd in fds] == ["ENOSPC"] * 2
        for fd in fds:
            os.close(fd)
        give()
        subprocess.run(union.command("umount", union.path), check=False, capture_output=True)
        union.process.wait(PATIENCE)
        assert METACOPY in os.listxattr(union.upper / "f")
        assert "the disk did not take all of a file" in union.take_log()
