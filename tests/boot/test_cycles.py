"""Boots of all of Debian, and shutdowns, in namespaces: what takes QEMU minutes, in seconds."""

import contextlib
import os
import subprocess

import pytest

from . import namespaces
from .image import Image, make_ext4
from .scripts import BUSY, CHANGE, CHANGED, LEFT
from .test_boot import is_clean
from .test_cuts import free, loop_device
from .test_endurance import ROUNDS
from .test_namespaces import values

POWER_OFF = 130  # PID 1's status: by reboot(2)


def with_systemd(script):
    """Return a script that becomes systemd, and runs *script* when all is up."""
    return f"""
    mkdir -p /run/systemd/system/graphical.target.wants /run/payload
    ln -s /dev/null /run/systemd/system/console-getty.service # the console is a file
    cat >/run/systemd/system/payload.service <<-END
	[Unit]
	After=multi-user.target
	[Service]
	ExecStart=/bin/bash /run/payload/run
	StandardOutput=append:/dev/console
	StandardError=append:/dev/console
	TimeoutStopSec=2
	END
    ln -s ../payload.service /run/systemd/system/graphical.target.wants/
    cat >/run/payload/run <<'END_OF_SCRIPT'
{script}
echo state=$(systemctl is-system-running --wait)
echo failed=$(systemctl --failed --no-legend --plain)
systemctl --no-block poweroff
END_OF_SCRIPT
    exec /sbin/init
    """


@pytest.fixture
def group():
    """A control group, and what is below it."""
    with open("/proc/mounts") as mounts:
        top = next(line.split()[1] for line in mounts if line.split()[2] == "cgroup2")
    path = f"{top}/union-boot-{os.getpid()}"
    os.mkdir(path)
    yield path
    for directory, _, _ in os.walk(path, topdown=False):
        os.rmdir(directory)


@contextlib.contextmanager
def attached(file):
    device = loop_device(file)
    try:
        yield device
    finally:
        free(device)


@pytest.mark.parametrize("release", ["bookworm", "trixie"])
@pytest.mark.parametrize("kind", ["ext4", "squashfs"])
def test_all_of_debian_comes_up_takes_changes_and_powers_off(tmp_path, group, release, kind):
    image = Image(release)
    root = image.ext4 if kind == "ext4" else image.make_squashfs()
    script = with_systemd("echo ro=$(findmnt -no FSTYPE /ro)\n" + CHANGE + LEFT)
    ended = namespaces.boot(root, tmp_path, "unionfs=tmpfs", script, group=group)
    assert (ended.status, values(ended)) == (
        POWER_OFF, {**CHANGED, "ro": kind, "state": "running", "failed": ""},
    )  # fmt: skip


def test_twenty_boots_and_shutdowns_in_a_row_with_all_processes_busy(image, tmp_path, group):
    disk = make_ext4(str(tmp_path / "upper.ext4"), "changes", "512M")
    for turn in range(ROUNDS):
        path = tmp_path / f"turn{turn}"
        path.mkdir()
        with attached(disk) as device:
            words = f"unionfs={device if turn % 2 else 'tmpfs'}"
            script = with_systemd(BUSY)
            ended = namespaces.boot(image.ext4, path, words, script, disk=device, group=group)
        said = values(ended)
        assert (ended.status, said["state"], said["failed"]) == (POWER_OFF, "running", ""), turn
        assert int(said["busy"]) >= 4
        assert is_clean(disk)


def test_debian_with_two_sides_keeps_what_persists_and_leaves_the_disk_clean(
    image, tmp_path, group
):
    toml = tmp_path / "unionfs.toml"
    disk = make_ext4(str(tmp_path / "state.ext4"), "state", "64M")
    root = str(tmp_path / "root.ext4")
    subprocess.run(["cp", "--sparse=always", "--reflink=auto", image.ext4, root], check=True)
    for name in ("first", "second"):
        with attached(disk) as device:
            toml.write_text(
                'persist = ["/etc/passwd", "/etc/shadow", "/etc/group", "/etc/gshadow",'
                f' "/etc/machine-id", "/var/log/journal"]\nstate.disk = "{device}"\n'
            )
            words = f"rm /etc/unionfs.toml\nwrite {toml} /etc/unionfs.toml\n"
            subprocess.run(["debugfs", "-w", root], input=words.encode(), check=True)
            script = with_systemd(
                "echo was=$(id -un anna 2>&-)\nuseradd anna\nmkdir -p /var/log/journal\n"
                "journalctl --flush\necho marks=$(journalctl -q -t mark | wc -l)\n"
                "logger -t mark now\n"
                "echo mode=$(cat /run/unionfs/mode)"
            )
            (tmp_path / name).mkdir()
            ended = namespaces.boot(
                root, tmp_path / name, "unionfs=state", script, disk=device, group=group
            )
            expected = (
                {"was": "", "marks": "0"} if name == "first" else {"was": "anna", "marks": "1"}
            )
            mode = f"RAM upper, state {device}"
            assert (ended.status, values(ended)) == (
                POWER_OFF, {**expected, "mode": mode, "state": "running", "failed": ""},
            )  # fmt: skip
        assert is_clean(disk)
