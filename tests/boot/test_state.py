"""A root with two sides, booted on this machine's kernel: what stays, and what is without state."""

import contextlib
import os
import subprocess

import pytest

from . import namespaces
from .image import make_ext4
from .test_namespaces import values

TOML = """\
persist = ["/etc/passwd", "/etc/shadow", "/etc/group", "/etc/gshadow", "/etc/ssh"]
empty = ["/etc/skel"]
[scratch]
ram = "40%"
[state]
disk = "{state}"
"""
LOST = "WHAT SHOULD PERSIST GOES TO SCRATCH AND WILL BE LOST: no disk for state can be used"


@pytest.fixture
def loops(tmp_path):
    """Make disks; each is a loop device."""
    with contextlib.ExitStack() as undo:

        def make(name, size="32M", *, options=(), tree=None):
            file = make_ext4(str(tmp_path / f"{name}.ext4"), name, size, *([tree] if tree else []))
            said = subprocess.run(
                ["losetup", "-f", "--show", *options, file], capture_output=True, check=True
            )
            device = said.stdout.decode().strip()
            undo.callback(subprocess.run, ["losetup", "-d", device], check=True)
            return device

        yield make


@pytest.fixture
def boot(image, tmp_path):
    """Boot a root with more files in it, again and again, and return what became of it."""
    root, count = str(tmp_path / "root.ext4"), 0
    subprocess.run(["cp", "--sparse=always", "--reflink=auto", image.ext4, root], check=True)

    def write(path, text):
        (tmp_path / "text").write_text(text)
        above = "/"
        commands = []
        for name in os.path.dirname(path).strip("/").split("/"):
            above = os.path.join(above, name)
            commands.append(f"mkdir {above}")
        commands += [f"rm {path}", f"write {tmp_path / 'text'} {path}"]
        script = "\n".join(commands) + "\n"
        subprocess.run(
            ["debugfs", "-w", root], input=script.encode(), check=True, capture_output=True
        )

    def booted(script, *disks):
        nonlocal count
        count += 1
        (tmp_path / f"boot{count}").mkdir()
        words, disk = "unionfs=state unionfs.wait=1", " ".join(disks) or None
        return namespaces.boot(root, tmp_path / f"boot{count}", words, script, disk=disk)

    booted.write = write
    return booted


SHOWN = """
echo mode=$(cat /run/unionfs/mode)
echo root=$(findmnt -no FSTYPE /)
echo state=$(findmnt -no FSTYPE /rw/state),$(stat -c %a /rw/state 2>&-)
echo writable=$(touch /etc/new /etc/ssh/new && echo yes)
"""
CHANGE = """
useradd -m anna && echo anna:secret | chpasswd && usermod -c Anna anna
rm /etc/ssh/ssh_host_*; ssh-keygen -qA
echo new >/etc/other
"""
LEFT = """
echo anna=$(getent passwd anna | cut -d: -f5),$(getent shadow anna | cut -c -7)
echo home=$(ls -d /home/anna /etc/other 2>&-)
echo skel=$(ls -A /etc/skel)
echo key=$(md5sum </etc/ssh/ssh_host_ed25519_key.pub)
echo status=$(unionfs status / | grep -c '^state  ')
"""


def test_accounts_and_host_keys_stay_and_all_else_is_gone(boot, loops):
    state = loops("state")
    boot.write("/etc/unionfs.toml", TOML.format(state=state))
    first = boot(SHOWN + CHANGE + LEFT, state)
    said = values(first)
    assert said == {
        "mode": f"RAM upper, state {state}",
        "root": "fuse.pyunionfs",
        "state": "ext4,700",
        "writable": "yes",
        "anna": "Anna,anna:$y",
        "home": "/etc/other /home/anna",
        "skel": "",
        "key": said["key"],
        "status": "1",
    }
    assert "warning" not in first.log
    second = values(boot(LEFT, state))
    assert second == {
        "anna": "Anna,anna:$y", "home": "", "skel": "", "key": said["key"], "status": "1",
    }  # fmt: skip


def test_scratch_on_a_disk_is_emptied(boot, loops):
    state, scratch = loops("state"), loops("scratch", "64M")
    toml = TOML.format(state=state).replace('ram = "40%"', f'disk = "{scratch}"')
    boot.write("/etc/unionfs.toml", toml)
    first = values(boot(SHOWN + CHANGE + LEFT, state, scratch))
    assert first["mode"] == f"disk upper {scratch}, state {state}"
    assert first["home"] == "/etc/other /home/anna"
    second = values(boot(LEFT + "echo rw=$(findmnt -no FSTYPE /rw)", state, scratch))
    assert second == {
        "anna": "Anna,anna:$y", "home": "", "skel": "", "key": first["key"], "status": "1",
        "rw": "ext4",
    }  # fmt: skip


WITHOUT = {
    "mode": "RAM upper, state lost",
    "root": "fuse.pyunionfs",
    "state": ",",
    "writable": "yes",
}


def test_a_missing_state_disk_is_said_and_the_machine_comes_up(boot):
    boot.write("/etc/unionfs.toml", TOML.format(state="LABEL=none"))
    ended = boot(SHOWN + "cat /run/motd.d/unionfs; unionfs status / | grep persists")
    assert values(ended) == WITHOUT
    for told in (ended.log, ended.console):
        assert LOST in told
    assert "the disk LABEL=none did not appear within 1 seconds" in ended.log
    assert "nothing persists: state 'LABEL=none' does not exist" in ended.console


def test_a_damaged_state_disk_is_said_and_the_machine_comes_up(boot, loops):
    state = loops("state")
    subprocess.run(["dd", "if=/dev/zero", f"of={state}", "bs=1M", "count=30"], check=True)
    boot.write("/etc/unionfs.toml", TOML.format(state=state))
    ended = boot(SHOWN, state)
    assert values(ended) == WITHOUT
    assert LOST in ended.log


def test_a_read_only_state_disk_is_said_and_the_machine_comes_up(boot, loops):
    state = loops("state", options=["-r"])
    boot.write("/etc/unionfs.toml", TOML.format(state=state))
    ended = boot(SHOWN, state)
    assert values(ended)["writable"] == "yes"
    assert values(ended)["root"] == "fuse.pyunionfs"
    assert "NOTHING PERSISTS, all goes to scratch" in ended.log or LOST in ended.log


def test_a_full_state_disk_lets_the_machine_come_up(boot, loops, tmp_path):
    full = tmp_path / "full"
    full.mkdir()
    with open(full / "file", "wb") as file:
        file.write(b"x" * (24 << 20))
    state = loops("state", "32M", tree=str(full))
    boot.write("/etc/unionfs.toml", TOML.format(state=state))
    fill = "cat /dev/zero >/etc/ssh/fill 2>&-\n"
    boot(fill, state)
    ended = boot(SHOWN + "echo full=$(sh -c 'head -c 1M /dev/zero >/etc/ssh/more' 2>&1)", state)
    said = values(ended)
    assert (said["root"], said["state"]) == ("fuse.pyunionfs", "ext4,700")
    assert "No space left on device" in said["full"]


def test_state_that_is_required_and_missing_leaves_the_root_read_only(boot):
    boot.write("/etc/unionfs.toml", TOML.format(state="LABEL=none") + "required = true\n")
    ended = boot(SHOWN)
    assert values(ended) == {
        "mode": "read-only root", "root": "ext4", "state": ",", "writable": "",
    }  # fmt: skip
    assert "STATE IS REQUIRED, AND CANNOT BE HAD: there is no union" in ended.log


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        (None, "there is neither /etc/unionfs.toml nor /etc/sysconfig/readonly-root"),
        (
            "persists = []\n",
            "/etc/unionfs.toml, line 1: 'persists' is unknown: did you mean persist?",
        ),
    ],
)
def test_without_a_configuration_that_is_right_changes_are_in_ram(boot, toml, said):
    if toml:
        boot.write("/etc/unionfs.toml", toml)
    ended = boot(SHOWN)
    assert values(ended) == {**WITHOUT, "mode": "RAM upper"}
    assert (
        f"CHANGES ARE KEPT IN RAM AND WILL BE LOST: no configuration: unionfs: {said}" in ended.log
    )


def test_a_machine_of_fedoras_readonly_root_moves_over_as_it_is(boot, loops, tmp_path):
    by_hand = tmp_path / "byhand"
    (by_hand / "etc/ssh").mkdir(parents=True)
    (by_hand / "etc/ssh/ssh_host_rsa_key.pub").write_text("the old key\n")
    (by_hand / "files").write_text("/etc/more\n")
    state = loops("state", tree=str(by_hand))
    boot.write("/etc/sysconfig/readonly-root", "READONLY=yes\nSTATE_OPTIONS='-o nodev'\n")
    boot.write("/etc/fstab", f"{state} /var/lib/stateless/state ext4 noauto 0 0\n")
    boot.write("/etc/statetab", "/etc/ssh/ssh_host_rsa_key.pub\n/etc/passwd\n")
    boot.write("/etc/rwtab", "empty /etc/skel\ndirs /var/log\nfiles /etc/adjtime\n")
    script = """
    echo key=$(cat /etc/ssh/ssh_host_rsa_key.pub)
    echo nodev=$(findmnt -no OPTIONS /rw/state | grep -c nodev)
    echo skel=$(ls -A /etc/skel)
    echo logs=$(find /var/log -type f)
    echo masked=$(readlink /run/systemd/system/readonly-root.service)
    echo more=$(cat /etc/more 2>&-)
    echo anna=$(id -un anna 2>&-)
    useradd anna
    echo kept >/etc/more
    """
    shown = {"key": "the old key", "nodev": "1", "skel": "", "logs": "", "masked": "/dev/null"}
    assert values(boot(script, state)) == {**shown, "more": "", "anna": ""}
    assert values(boot(script, state)) == {**shown, "more": "kept", "anna": "anna"}
