"""Machines whose root has two sides: each keeps what persists on a disk of its own."""

import pytest

from .guest import Disk, Guest
from .image import make_ext4
from .scripts import BARE, RAM, STATE, UP, WRAPPER
from .test_boot import is_clean

TOML = """\
persist = [
    "/etc/passwd", "/etc/shadow", "/etc/group", "/etc/gshadow", "/etc/ssh", "/etc/machine-id",
    "/etc/hostname", "/var/lib/dbus",
]

[state]
disk = "LABEL=state"
"""
CHANGE = """
passwd -d root >/dev/null
useradd -m {name} && echo {name}:secret | chpasswd && usermod -c Somebody {name}
echo {name} >/etc/hostname
rm /etc/ssh/ssh_host_*; ssh-keygen -qA
systemd-machine-id-setup >/dev/null
echo new >/etc/other
"""
LEFT = """
echo people=$(getent passwd anna bert | cut -d: -f1,5)
echo name=$(cat /etc/hostname)
echo key=$(cut -d' ' -f2 /etc/ssh/ssh_host_ed25519_key.pub)
echo gone=$(ls -d /home/* /etc/other 2>/dev/null)
echo state=$(findmnt -no FSTYPE /rw/state)
"""
LOST = "WHAT SHOULD PERSIST GOES TO SCRATCH AND WILL BE LOST: no disk for state can be used"


@pytest.fixture
def root(image, tmp_path):
    """The image, with a configuration in it."""
    path = image.altered(str(tmp_path / "root.ext4"), {"/etc/unionfs.toml": TOML})
    return Disk(path, "root", writable=False)


def test_two_machines_from_one_image_each_keep_accounts_and_host_keys(image, root, tmp_path):
    machines = {}
    for name in ("anna", "bert"):
        disk = make_ext4(str(tmp_path / f"{name}.ext4"), "state", "64M")
        (tmp_path / name).mkdir()
        machines[name] = Guest(image, tmp_path / name, root=root, disks=[Disk(disk, "state")]), disk
    keys = set()
    for name, (guest, disk) in machines.items():
        first = guest.boot("unionfs=state", STATE + CHANGE.format(name=name) + LEFT)
        said = first.values()
        keys.add(said["key"])
        left = {"people": f"{name}:Somebody", "name": name, "key": said["key"], "state": "ext4"}
        up = {**UP, "mode": "RAM upper, state LABEL=state", "rw": "tmpfs"}
        assert said == {**up, **left, "gone": f"/etc/other /home/{name}"}
        assert (first.status, first.down) == (0, "Power down")
        assert is_clean(disk)
        second = guest.boot(f"{WRAPPER} unionfs=state", STATE + LEFT)
        assert (second.values(), second.down) == ({**up, **left, "gone": ""}, "Power down")
        assert is_clean(disk)
    assert len(keys) == len(machines)


@pytest.mark.parametrize("trouble", ["missing", "damaged"])
def test_without_its_state_disk_a_machine_comes_up_and_says_so(image, root, tmp_path, trouble):
    disks = []
    if trouble == "damaged":
        path = make_ext4(str(tmp_path / "state.ext4"), "state", "64M")
        with open(path, "r+b") as file:
            file.seek(4096)
            file.write(bytes(32 << 20))  # the groups' tables, the root directory, the journal
        disks = [Disk(path, "state")]
    guest = Guest(image, tmp_path, root=root, disks=disks)
    ended = guest.boot(f"{BARE} unionfs=state unionfs.wait=5", STATE + LEFT)
    said = ended.values()
    assert (said["mode"], said["root"]) == ("RAM upper, state lost", RAM["root"])
    assert (said["people"], said["state"], ended.status) == ("", "", 0)
    assert LOST in said["motd"]
    assert LOST in ended.console
