"""Power cuts at native speed: what a disk holds at some moment is what the next boot finds.

The disk is a file on a file system with reflinks: cloned at once, it holds what was written to the
disk until then, and nothing of what was only in memory.
"""

import os
import random
import subprocess
import time

import pytest

from . import namespaces
from .image import make_ext4
from .scripts import CHECK, WRITE
from .test_endurance import ROUNDS
from .test_namespaces import values


@pytest.fixture
def cloning(tmp_path):
    """A directory where files can be cloned."""
    file, place = str(tmp_path / "clones.xfs"), str(tmp_path / "clones")
    with open(file, "wb") as made:
        made.truncate(2 << 30)
    subprocess.run(["mkfs.xfs", "-q", "-m", "reflink=1", file], check=True)
    os.mkdir(place)
    subprocess.run(["mount", "-o", "loop", file, place], check=True)
    yield place
    subprocess.run(["umount", place], check=True)


def until_synced(running):
    deadline = time.monotonic() + namespaces.SECONDS
    while "synced=" not in running.console():
        assert running.process.poll() is None, running.console()
        assert time.monotonic() < deadline, running.console()
        time.sleep(0.05)


def loop_device(file):
    said = subprocess.run(["losetup", "-f", "--show", file], capture_output=True, check=True)
    return said.stdout.decode().strip()


def free(device):
    """Let go of a loop device, when the last mount of it has gone."""
    subprocess.run(["losetup", "-d", device], check=True)
    deadline = time.monotonic() + 120
    while os.path.exists(f"/sys/block/{device.removeprefix('/dev/')}/loop"):
        assert time.monotonic() < deadline, f"{device} is in use"
        time.sleep(0.05)


def said_by(running):
    """Return the values of whole lines: it may be at work on one."""
    return values(namespaces.Ended(0, "", running.console().rpartition("\n")[0]))


def test_twenty_power_cuts_in_a_row_lose_nothing_that_was_synced(image, tmp_path, cloning):
    disk = make_ext4(f"{cloning}/upper", "changes", "256M")
    chance = random.Random(0)
    seen, synced = [], 0
    for turn in range(ROUNDS):
        path = tmp_path / f"turn{turn}"
        path.mkdir()
        device = loop_device(disk)
        running = namespaces.start(
            image.ext4, path, f"unionfs={device}", CHECK + WRITE, disk=device
        )
        try:
            until_synced(running)
            time.sleep(chance.uniform(0, 2))
            said = said_by(running)
            clone = f"{cloning}/turn{turn}"
            subprocess.run(["cp", "--reflink=always", disk, clone], check=True)
        finally:
            running.end()
            free(device)
        os.rename(clone, disk)
        seen.append((int(said["kept"]) >= synced, said.get("torn")))
        synced = int(said["synced"])
    assert seen == [(True, None)] * ROUNDS
    checked = subprocess.run(["e2fsck", "-fp", disk], check=False)
    assert checked.returncode in {0, 1}  # 1: the journal was played back
