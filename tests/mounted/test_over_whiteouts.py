"""Names that were deleted and are made again, on upper's disk."""

import contextlib
import os
import subprocess

import pytest

from tests.mounted import disks
from tests.mounted.mount import Mount, wait_until
from tests.trees import WHITEOUT, harvest, plant

GROUP = 1234


@contextlib.contextmanager
def union(base, disk):
    """Yield a union over a few files, with upper on *disk*."""
    lower = plant(base / "lower", {"d": {"f": "1", "g": "2", "sub": {}}})
    for path in (lower / "d", *(lower / "d").iterdir()):
        os.chown(path, 0, GROUP)
    for name in ("upper", "work"):
        (disk / name).mkdir()
    mount = Mount(base, lowers=[lower], upper=disk / "upper", work=disk / "work")
    try:
        yield mount.start()
        mount.stop()
    finally:
        mount.kill()


def test_what_was_deleted_and_made_again_lets_upper_become_read_only(base):
    with disks.writable("ext4", base) as disk, union(base, disk) as mount:
        for name in ("f", "g"):
            (mount.path / "d" / name).unlink()
            (mount.path / "d" / name).write_text("new")
        read_only = ["mount", "-o", "remount,ro", disk]  # EBUSY until the last file is released
        wait_until(lambda: not subprocess.run(read_only, check=False, stderr=-3).returncode)


@pytest.mark.parametrize("options", ["grpid", "nogrpid"])
def test_the_group_is_the_one_that_upper_gives_to_any_new_object(base, options):
    with disks.writable("ext4", base) as disk:
        subprocess.run(["mount", "-o", f"remount,{options}", disk], check=True)
        with union(base, disk) as mount:
            directory = mount.path / "d"
            (directory / "f").unlink()
            (directory / "sub").rmdir()
            for name in ("f", "other"):
                (directory / name).write_text("new")
            (directory / "sub").mkdir()
            groups = {name: (directory / name).stat().st_gid for name in ("f", "other", "sub")}
    assert groups == dict.fromkeys(groups, GROUP if options == "grpid" else 0)


def test_whiteouts_are_names_of_one_device_until_it_can_have_no_more(base):
    names = [str(number) for number in range(300)]
    with disks.writable("ext4", base, mib=64) as disk:
        for name in ("upper", "work", "others"):
            (disk / name).mkdir()
        lower = base / "lower"
        lower.mkdir()
        for name in names:
            (lower / name).touch()
        mount = Mount(base, lowers=[lower], upper=disk / "upper", work=disk / "work")
        try:
            mount.start()
            (mount.path / names[0]).unlink()
            device = disk / "upper" / names[0]
            for number in range(64_900 - device.lstat().st_nlink):  # ext4 has at most 65,000
                os.link(device, disk / "others" / str(number))
            for name in names[1:]:
                (mount.path / name).unlink()
            assert os.listdir(mount.path) == []
            numbers = {os.lstat(disk / "upper" / name).st_ino for name in names}
            mount.stop()
            assert len(numbers) == 3  # the device, the whiteout that found that, the next device
            assert harvest(disk / "upper") == dict.fromkeys(names, WHITEOUT)
        finally:
            mount.kill()
