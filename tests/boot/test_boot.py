"""A Debian machine whose root is a union: what it shows, keeps, forgets, and how it ends."""

import subprocess

import pytest

from .guest import Disk
from .image import make_ext4
from .scripts import (
    AS_EXPECTED,
    CHANGE,
    CHANGED,
    DISK,
    LEFT,
    RAM,
    SHOWN,
    STATE,
    UNCHANGED,
    WRAPPER,
)  # fmt: skip


def is_clean(disk):
    """Tell whether a disk needs no recovery of its journal, and has no errors."""
    said = subprocess.run(["dumpe2fs", "-h", disk], capture_output=True, text=True, check=True)
    checked = subprocess.run(["e2fsck", "-fn", disk], capture_output=True, check=False)
    return "needs_recovery" not in said.stdout and checked.returncode == 0


@pytest.mark.quick
def test_what_is_changed_in_ram_shows_as_on_any_root_and_the_machine_powers_off(machine):
    ended = machine().boot("unionfs=tmpfs", f"{STATE}{SHOWN}{CHANGE}{LEFT}")
    assert (ended.values(), ended.status, ended.down) == (
        {**RAM, **AS_EXPECTED, **CHANGED}, 0, "Power down",
    )  # fmt: skip


def test_what_is_changed_in_ram_is_gone_after_a_reboot(machine):
    first = f"{CHANGE}{LEFT} echo reboot >/run/payload/action"
    second = f"{STATE}{LEFT}"
    guest = machine()
    changed = guest.boot(f"{WRAPPER} overlayroot=tmpfs:swap=1", first)
    assert (changed.values(), changed.status, changed.down) == (CHANGED, 0, "Restarting system")
    assert guest.boot("aufs=tmpfs", second).values() == {**RAM, **UNCHANGED}


def test_what_is_changed_on_a_disk_stays_and_the_disk_is_left_clean(machine, upper):
    guest = machine(upper=upper)
    first = guest.boot("unionfs=LABEL=changes", f"{STATE}{CHANGE}{LEFT}")
    assert (first.values(), first.status, first.down) == ({**DISK, **CHANGED}, 0, "Power down")
    assert is_clean(upper)
    second = guest.boot(f"{WRAPPER} unionfs=LABEL=changes", f"{STATE}{LEFT}")
    assert (second.values(), second.down) == ({**DISK, **CHANGED}, "Power down")
    assert is_clean(upper)


@pytest.mark.parametrize("words", ["unionfs=disabled", f"{WRAPPER} overlayroot=disabled"])
def test_disabled_leaves_the_root_as_it_was(machine, words):
    ended = machine().boot(
        words, "echo root=$(findmnt -no FSTYPE /),$(findmnt -no OPTIONS / | cut -d, -f1)"
    )
    assert (ended.values(), ended.down) == ({"root": "ext4,ro"}, "Power down")


FSTAB = """\
LABEL=rootro / ext4 ro,errors=remount-ro 0 1
LABEL=logs /var/log ext4 defaults 0 2
LABEL=data /data ext4 defaults,nofail 0 2
/swapfile none swap sw 0 0
"""


def test_other_file_systems_in_fstab_are_mounted_and_kept(machine, image, tmp_path):
    root = image.altered(str(tmp_path / "root.ext4"), {"/etc/fstab": FSTAB})
    names = ("logs", "data")
    disks = [Disk(make_ext4(str(tmp_path / f"{name}.ext4"), name, "64M"), name) for name in names]
    guest = machine(root=Disk(root, "root", writable=False), disks=disks)
    script = f"""{STATE}
    for place in /var/log /data; do echo ${{place##*/}}=$(findmnt -no FSTYPE,LABEL $place); done
    echo before=$(cat /var/log/kept /data/kept)
    echo fstab=$(findmnt --verify 2>&1 | grep -c '\\[E\\]')
    echo kept | tee /data/kept >/var/log/kept
    """
    expected = {**RAM, "log": "ext4 logs", "data": "ext4 data"}
    for before in ("", "kept kept"):
        ended = guest.boot("unionfs=tmpfs", script)
        assert (ended.values(), ended.down) == ({**expected, "before": before}, "Power down")
        assert [is_clean(disk.path) for disk in disks] == [True, True]


def test_the_true_root_can_be_changed_and_is_after_a_reboot(machine, image, tmp_path):
    guest = machine(root=Disk(image.altered(str(tmp_path / "root.ext4"), {}), "root"))
    change = "mount -o remount,rw /ro && echo kept >/ro/etc/kept && mount -o remount,ro /ro"
    change += " && unionfs maintain -- sh -c 'echo kept >/etc/kept2'"
    first = guest.boot("unionfs=tmpfs", change)
    assert (first.status, first.down) == (0, "Power down")
    second = guest.boot("unionfs=tmpfs", "echo kept=$(cat /etc/kept /etc/kept2)")
    assert second.values() == {"kept": "kept kept"}
    assert is_clean(str(tmp_path / "root.ext4"))


def test_shutdown_with_everything_stopped_and_nothing_cached_comes_to_its_end(machine):
    words = f"{WRAPPER} unionfs=tmpfs unionfs.init=/usr/lib/systemd/systemd-shutdown poweroff"
    ended = machine().boot(words, seconds=400)
    assert ended.down == "Power down"
