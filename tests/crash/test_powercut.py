"""Power fails some dozens of times, in CI hundreds; what was promised is there each time.

UNIONFS_CRASH_CUTS is how many times per file system, UNIONFS_CRASH_SEED which.
"""

import os

import pytest

from . import contender, disks, powercut
from .client import Client, Dirs
from .contender import Place
from .powercut import Rebuilder, Recording, Trial, attempt, choose
from .recorder import Record
from .sample import SEED, USUAL

_CUTS = int(os.environ.get("UNIONFS_CRASH_CUTS") or 100 * USUAL)
_CUTS_TO_FIND_OUT = 50  # of which some break a promise that nothing was done to keep


@pytest.mark.parametrize("kind", disks.KINDS)
def test_what_was_synced_survives_every_power_cut(kind):
    made, broken = attempt(Trial(kind, seed=SEED), _CUTS)
    assert (SEED, made, broken) == (SEED, _CUTS, [])


@pytest.mark.parametrize("kind", disks.KINDS)
@pytest.mark.parametrize("contender", ["blocks", "fill"])
def test_what_was_synced_of_a_file_in_part_survives(kind, contender):
    made, broken = attempt(Trial(kind, contender, seed=SEED), _CUTS // 2)
    assert (SEED, made, broken) == (SEED, _CUTS // 2, [])


def test_fsync_strict_promises_no_less():
    made, broken = attempt(Trial("ext4", fsync="strict", seed=SEED), _CUTS // 2)
    assert (SEED, made, broken) == (SEED, _CUTS // 2, [])


def test_a_union_that_syncs_nothing_is_found_out():
    _, broken = attempt(
        Trial("ext4", fsync="off", seed=SEED, noise=False), _CUTS_TO_FIND_OUT, judged="auto"
    )
    assert broken


@pytest.mark.parametrize("kind", disks.KINDS)
def test_fsync_reaches_the_attributes_of_a_file_whose_content_is_in_the_lower(directory, kind):
    image, after, disk = f"{directory}/image", f"{directory}/after", f"{directory}/disk"
    place = Place(f"{directory}/lower", f"{disk}/upper", f"{disk}/work", f"{directory}/mnt")
    for path in (disk, place.lower, place.mountpoint):
        os.mkdir(path)
    with open(f"{place.lower}/file", "wb") as lower:
        lower.write(b"content")
    disks.make(kind, image)
    with disks.mounted(kind, image, disk):
        os.mkdir(place.upper)
        os.mkdir(place.work)
        with contender.union(place):
            for colour in (b"red", b"blue"):  # the first fsync(2) syncs the name as well
                os.setxattr(f"{place.mountpoint}/file", "user.colour", colour)
                with open(f"{place.mountpoint}/file", "rb") as file:
                    os.fsync(file)
            disks.clone(image, after)
    with (
        disks.mounted(kind, after, disk),
        Client(Dirs((place.lower,), place.upper, place.work)) as client,
    ):
        seen = client.harvest()["file"]
    assert (seen.content, seen.attributes) == (b"content", (("user.colour", b"blue"),))


def test_a_rebuilt_disk_holds_what_was_flushed_and_no_more_than_was_written(directory):
    def block(fill: bytes) -> bytes:
        return fill * disks.SECTOR

    with open(f"{directory}/base", "wb") as base:
        base.truncate(3 * disks.SECTOR)
    records = [
        Record(b"L", 0, b"start"),
        Record(b"W", 0, block(b"a")),
        Record(b"F"),
        Record(b"W", 0, block(b"b")),
        Record(b"W", disks.SECTOR, block(b"c") + block(b"d")),
    ]
    rebuilder = Rebuilder(Recording(f"{directory}/base", records, [], ""), directory)
    seen = set()
    for seed in (None, *range(200)):
        rebuilder.build(powercut.Cut(5, seed), f"{directory}/image")
        with open(f"{directory}/image", "rb") as image:
            seen.add(bytes(image.read()[:: disks.SECTOR]))
    first, rest = (b"a", b"b"), (b"\0\0", b"c\0", b"\0d", b"cd")
    assert seen == {one + others for one in first for others in rest}


def test_of_two_disks_each_holds_what_was_flushed_of_its_own(directory):
    for name in ("base0", "base1"):
        with open(f"{directory}/{name}", "wb") as base:
            base.truncate(disks.SECTOR)
    full = [fill * disks.SECTOR for fill in (b"a", b"b", b"c")]
    records = [
        Record(b"W", 0, full[0], 0),
        Record(b"W", 0, full[1], 1),
        Record(b"F", disk=1),
        Record(b"W", 0, full[2], 1),
        Record(b"F", disk=0),
    ]
    seen = []
    for disk in (0, 1):
        recording = Recording(f"{directory}/base{disk}", records, [], "")
        rebuilder = Rebuilder(recording, directory, disk)
        for at in (3, 5):
            rebuilder.build(powercut.Cut(at, None), f"{directory}/image")
            with open(f"{directory}/image", "rb") as image:
                seen.append(image.read(1))
    assert seen == [b"\0", b"a", b"b", b"b"]


def test_cuts_lie_between_the_start_and_the_end_of_the_script():
    records = [Record(b"W"), Record(b"L", 0, b"start"), Record(b"W"), Record(b"F")] * 1
    cuts = choose(records, 10, SEED)
    assert {cut.at for cut in cuts} == {3, 4}
