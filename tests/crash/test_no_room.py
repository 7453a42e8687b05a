"""Upper's file system itself runs out of inodes, blocks or quota in the middle of an operation.

On a small ext4, and on btrfs with a quota group, which counts for root as well.
It is not one step that fails then, but all that take room, perhaps also some of
those that undo.
"""

import contextlib
import functools
import os
import re
from collections.abc import Iterator

import pytest

from . import corpus, disks
from .faulty import failed
from .sample import SEED, chosen
from .trial import Field, features

_BLOCK = 4096  # bytes, of the small ext4
_NODE = 16384  # bytes of metadata that btrfs takes at once
_MOST_LEFT = 6  # of these, for which there is room still


class Shortage:
    """A full disk, while an operation is under way, but for what a few steps take."""

    at = 0
    more = 0.0
    tidying = False

    def __init__(self, disk: str, left: int) -> None:
        self.disk = disk
        self.left = left


class Inodes(Shortage):
    """A disk of few inodes."""

    @contextlib.contextmanager
    def armed(self) -> Iterator[None]:
        """Leave just some inodes meanwhile."""
        names = []
        with contextlib.suppress(OSError):
            while True:
                name = f"{self.disk}/ballast/{len(names)}"
                os.mknod(name)
                names.append(name)
        for name in names[: self.left]:
            os.unlink(name)
        try:
            yield
        finally:
            for name in names[self.left :]:
                os.unlink(name)


class Blocks(Shortage):
    """A disk of few blocks."""

    @contextlib.contextmanager
    def armed(self) -> Iterator[None]:
        """Leave just some blocks meanwhile."""
        with open(f"{self.disk}/ballast/blocks", "wb", buffering=0) as ballast:
            size, step = 0, 1 << 20
            while step >= _BLOCK:
                try:
                    os.posix_fallocate(ballast.fileno(), size, step)
                    size += step
                except OSError:
                    step //= 2
            ballast.truncate(size - self.left * _BLOCK)
            os.fsync(ballast.fileno())
            try:
                yield
            finally:
                ballast.truncate(0)
                os.fsync(ballast.fileno())


class Quota(Shortage):
    """A subvolume of btrfs with a quota."""

    @contextlib.contextmanager
    def armed(self) -> Iterator[None]:
        """Leave just some room below the quota meanwhile."""
        disks.run("btrfs", "filesystem", "sync", self.disk)
        group, used, _, _ = disks.run("btrfs", "qgroup", "show", "--raw", "-f", self.disk).split()[
            -4:
        ]
        top = os.path.dirname(self.disk)  # in the group itself even the limit cannot be changed
        disks.run("btrfs", "qgroup", "limit", str(int(used) + self.left * _NODE), group, top)
        try:
            yield
        finally:
            disks.run("btrfs", "qgroup", "limit", "none", group, top)


@pytest.fixture
def small(directory):
    """Return a directory on an ext4 of few blocks and inodes."""
    place = f"{directory}/small"
    os.mkdir(place)
    with open(f"{directory}/image", "wb") as image:
        image.truncate(8 * disks.MIB)
    options = ("-b", str(_BLOCK), "-N", "192", "-m", "0", "-E", "nodiscard")
    disks.run("mkfs.ext4", "-q", *options, f"{directory}/image")
    with disks.mounted("ext4", f"{directory}/image", place):
        os.mkdir(f"{place}/ballast")
        yield place


@pytest.fixture
def limited(directory):
    """Return a subvolume of a btrfs with quotas."""
    place = f"{directory}/btrfs"
    os.mkdir(place)
    disks.make("btrfs", f"{directory}/image")
    with disks.mounted("btrfs", f"{directory}/image", place):
        disks.run("btrfs", "quota", "enable", place)
        disks.run("btrfs", "subvolume", "create", f"{place}/top")
        yield f"{place}/top"


# btrfs itself says EDQUOT of these, and does them: its inode in memory is changed before it finds
# that the tree has no room (fs/btrfs/inode.c, btrfs_setattr); and of a write that it has no room
# for it changes the times (fs/btrfs/file.c, btrfs_write_check).  After a truncate(2) that it
# refuses it shows zeros behind the new end, as long as the page is cached.
_CHANGED_ALL_THE_SAME = re.compile(r"\b(chmod|chown|utime|append|overwrite|truncate)\b")

_SHORTAGES = {Inodes: "small", Blocks: "small", Quota: "limited"}


@pytest.mark.parametrize("whiteout", ["overlay", "aufs"])
@pytest.mark.parametrize("kind", _SHORTAGES, ids=lambda kind: kind.__name__)
def test_what_finds_no_room_changes_nothing(directory, request, kind, whiteout):
    disk = request.getfixturevalue(_SHORTAGES[kind])
    field = Field(directory, features(whiteout), disk)
    expected, wrong = functools.cache(field.expect), {}
    trials = [(case, left) for case in corpus.all_cases() for left in range(_MOST_LEFT)]
    for case, left in chosen(trials, share=0.02):
        if kind is Quota and _CHANGED_ALL_THE_SAME.search(case.name):
            continue
        words = failed(field, case, expected(case), kind(disk, left))
        if words:
            wrong[f"{case.name}, {left} left"] = words
    print(f"of {len(trials)} trials")  # noqa: T201 - shown by pytest -rP
    assert (SEED, wrong) == (SEED, {})
    assert field.unchanged()
