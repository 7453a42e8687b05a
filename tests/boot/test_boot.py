"""A Debian machine whose root is a union: what it shows, keeps, forgets, and how it ends."""

import subprocess

import pytest

from .guest import Disk
from .image import Image
from .scripts import CHANGE, CHANGED, LEFT, RAM, STATE, UNCHANGED, UP

WRAPPER = "init=/usr/lib/unionfs/init"


def is_clean(disk):
    """Tell whether a disk needs no recovery of its journal."""
    said = subprocess.run(["dumpe2fs", "-h", disk], capture_output=True, text=True, check=True)
    return "needs_recovery" not in said.stdout


@pytest.mark.parametrize("words", ["", WRAPPER], ids=["initramfs", "init="])
def test_what_is_changed_in_ram_is_gone_after_a_reboot(machine, words):
    guest = machine()
    first = guest.boot(
        f"{words} unionfs=tmpfs", f"{STATE}{CHANGE}{LEFT} echo reboot >/run/payload/action"
    )
    assert (first.values(), first.status, first.down) == (
        {**RAM, **CHANGED}, 0, "Restarting system",
    )  # fmt: skip
    second = guest.boot(f"{words} overlayroot=tmpfs:swap=1", f"{STATE}{LEFT}")
    assert (second.values(), second.status, second.down) == (
        {**RAM, **UNCHANGED}, 0, "Power down",
    )  # fmt: skip


def test_an_initramfs_by_dracut_boots_on_a_union(machine):
    ended = machine(image=Image(maker="dracut")).boot("unionfs=tmpfs", f"{STATE}{CHANGE}{LEFT}")
    assert (ended.values(), ended.status, ended.down) == ({**RAM, **CHANGED}, 0, "Power down")


@pytest.mark.parametrize("words", ["", WRAPPER], ids=["initramfs", "init="])
def test_what_is_changed_on_a_disk_stays_and_the_disk_is_left_clean(machine, upper, words):
    guest = machine(upper=upper)
    expected = {**UP, "mode": "disk upper LABEL=changes", "rw": "ext4"}
    first = guest.boot(f"{words} unionfs=LABEL=changes", f"{STATE}{CHANGE}{LEFT}")
    assert (first.values(), first.status, first.down) == (
        {**expected, **CHANGED}, 0, "Power down",
    )  # fmt: skip
    assert is_clean(upper)
    second = guest.boot(f"{words} unionfs=LABEL=changes", f"{STATE}{LEFT}")
    assert (second.values(), second.down) == ({**expected, **CHANGED}, "Power down")
    assert is_clean(upper)


def test_a_machine_comes_up_after_its_power_was_cut_while_it_wrote(machine, upper):
    guest = machine(upper=upper)
    write = "i=0; while :; do i=$((i+1)); cp /etc/passwd /root/f$i; mv /root/f$i /etc/copy; "
    write += "[ $i != 300 ] || echo @@CUT; done"
    guest.boot(f"{WRAPPER} unionfs=LABEL=changes", CHANGE + "sync\n" + write, until="@@CUT")
    after = guest.boot(
        f"{WRAPPER} unionfs=LABEL=changes", f"{STATE}{LEFT} cmp /etc/copy /etc/passwd"
    )
    expected = {**UP, "mode": "disk upper LABEL=changes", "rw": "ext4", **CHANGED}
    assert (after.values(), after.status, after.down) == (expected, 0, "Power down")


@pytest.mark.parametrize("word", ["unionfs=disabled", "overlayroot=disabled"])
def test_disabled_leaves_the_root_as_it_was(machine, word):
    ended = machine().boot(
        f"{WRAPPER} {word}", "echo root=$(findmnt -no FSTYPE,OPTIONS / | cut -c-7)"
    )
    assert (ended.values(), ended.down) == ({"root": "ext4 ro"}, "Power down")


def test_shutdown_with_everything_stopped_and_nothing_cached_comes_to_its_end(machine):
    words = f"{WRAPPER} unionfs=tmpfs unionfs.init=/usr/lib/systemd/systemd-shutdown poweroff"
    ended = machine().boot(words, seconds=240)
    assert ended.down == "Power down"


@pytest.mark.parametrize(
    ("dead", "down"),
    [("reboot", "Restarting system"), ("halt", "System halted")],
)
def test_a_machine_whose_daemon_died_says_so_and_does_what_it_was_told(machine, upper, dead, down):
    script = "touch /etc/x; pkill -9 -f '^@unionfs$'; sleep 60"
    ended = machine(upper=upper).boot(
        f"unionfs=LABEL=changes unionfs.dead={dead}", script, seconds=400
    )
    assert "unionfs: the daemon of / died (killed by SIGKILL)" in ended.console
    assert ended.down == down


@pytest.mark.parametrize(
    ("missing", "mode", "root", "writable"),
    [
        ("fuse", "overlayfs instead of the union", "overlay", "yes"),
        ("fuse,overlay", "read-only root", "ext4", ""),
    ],
)
def test_a_kernel_without_fuse_still_comes_up_reachable(machine, missing, mode, root, writable):
    script = """
    echo mode=$(cat /run/unionfs/mode)
    echo root=$(findmnt -no FSTYPE /)
    echo ssh=$(systemctl is-active ssh)
    echo writable=$(touch /etc/new 2>&- && echo yes)
    echo motd=$(grep -c 'the daemon cannot serve' /run/motd.d/unionfs)
    echo journal=$(journalctl -b | grep -c 'unionfs: the daemon cannot serve')
    """
    ended = machine().boot(f"unionfs=tmpfs module_blacklist={missing}", script)
    assert ended.values() == {
        "mode": mode, "root": root, "ssh": "active", "writable": writable,
        "motd": "1", "journal": "1",
    }  # fmt: skip
    assert "unionfs: the daemon cannot serve" in ended.console
    assert ended.down == "Power down"


def test_the_true_root_can_be_changed_and_is_after_a_reboot(machine, image, tmp_path):
    guest = machine(root=Disk(image.altered(str(tmp_path / "root.ext4"), {}), "root"))
    change = "mount -o remount,rw /ro && echo kept >/ro/etc/kept && mount -o remount,ro /ro"
    first = guest.boot("unionfs=tmpfs", change)
    assert (first.status, first.down) == (0, "Power down")
    second = guest.boot("unionfs=tmpfs", "echo kept=$(cat /etc/kept)")
    assert second.values() == {"kept": "kept"}
