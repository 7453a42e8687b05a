"""Mounts by a configuration: the file's, or Fedora's, with real disks; and `diff --state`."""

import contextlib
import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.commands.conftest import kill
from tests.trees import harvest, plant

TOML = """\
lower = "{bench}/lower"
persist = ["/etc/passwd", "/etc/ssh"]
empty = ["/tmp"]
options = "noatime"
[scratch]
{scratch}
[state]
{state}
"""
LOWER = {"etc": {"passwd": "root\n", "ssh": {}, "hosts": ""}, "tmp": {"old": ""}}


@pytest.fixture
def sides(bench):
    """A lower, and what is mounted is unmounted."""
    plant(bench_path(bench, "lower"), LOWER)
    yield bench
    subprocess.run(["umount", "-l", bench.at("mnt")], capture_output=True, check=False)


def bench_path(bench, name):
    return Path(bench.at(name))


@pytest.fixture
def disk(bench):
    """Make disks, each with a label of its own; those that are mounted are unmounted."""
    with contextlib.ExitStack() as undo:

        def make(name, tree=None):
            file, label = bench.at(f"{name}.ext4"), f"{name}-{os.getpid()}"
            content = ["-d", str(plant(bench_path(bench, f"{name}.tree"), tree))] if tree else []
            subprocess.run(
                ["mke2fs", "-qFt", "ext4", "-L", label, *content, file, "16M"], check=True
            )
            done = subprocess.run(
                ["losetup", "-f", "--show", file], check=True, capture_output=True, text=True
            )
            device = done.stdout.strip()
            undo.callback(subprocess.run, ["losetup", "-d", device], check=True)
            place = f"/run/unionfs/disks/{device.replace('/', '-').strip('-')}"
            undo.callback(subprocess.run, ["rmdir", place], capture_output=True, check=False)
            undo.callback(subprocess.run, ["umount", device], capture_output=True, check=False)
            return device

        yield make


def configure(bench, *, scratch="", state):
    bench.write("u.toml", TOML.format(bench=bench.path, scratch=scratch, state=state))


def mount(bench, line="mount --config u.toml mnt"):
    assert bench.unionfs(line) == (0, "", "")


def status(bench):
    return json.loads(bench.unionfs("status --json mnt").out)


def change(bench):
    bench.write("mnt/etc/new", "new\n")
    os.rename(bench.at("mnt/etc/new"), bench.at("mnt/etc/hosts"))
    bench.write("mnt/etc/passwd", "anna\n")
    bench.write("mnt/etc/ssh/key", "key\n")


KEPT = {"etc": {"passwd": "anna\n", "ssh": {"key": "key\n"}}}


def content(path):
    """Return what a side holds, without what is the union's own or the disk's."""
    tree = harvest(Path(path))
    return {
        name: what for name, what in tree.items() if name not in {".unionfs-work", "lost+found"}
    }


def test_sides_in_directories(sides):
    for name in ("scratch", "state"):
        os.mkdir(sides.at(name))
    configure(
        sides,
        scratch=f'directory = "{sides.at("scratch")}"',
        state=f'directory = "{sides.at("state")}"',
    )
    mount(sides)
    change(sides)
    assert sides.ls("mnt/tmp") == []
    assert status(sides)["options"]["config"] == sides.at("u.toml")
    assert "noatime" in next(mount[3] for mount in sides.mounts())
    assert sides.unionfs("umount mnt").status == 0
    assert content(bench_path(sides, "state")) == KEPT
    assert sides.ls("scratch") == ["upper", "work"]
    assert sides.ls("scratch/upper/etc") == ["hosts"]
    mount(sides)
    assert (sides.read("mnt/etc/passwd"), sides.read("mnt/etc/hosts")) == ("anna\n", "")
    assert sides.ls("scratch/upper") == ["tmp"]


def place_of(device):
    """Return where a disk is mounted out of sight."""
    return f"/run/unionfs/disks/{device.replace('/', '-').strip('-')}"


def on_disk(bench, device):
    """Return what a disk holds that is not mounted."""
    at = bench_path(bench, "look")
    at.mkdir(exist_ok=True)
    subprocess.run(["mount", "-o", "ro", device, at], check=True)
    try:
        return content(at)
    finally:
        subprocess.run(["umount", at], check=True)


def is_mounted(device):
    with open("/proc/self/mounts") as lines:
        return any(line.split()[0] == device for line in lines)


def test_state_on_a_disk_is_mounted_out_of_sight_and_taken_where_it_is_mounted(sides, disk):
    device = disk("state")
    configure(sides, state=f'disk = "{device}"\nmount_options = "nodev"')
    mount(sides)
    change(sides)
    place = place_of(device)
    assert status(sides)["layers"]["state"]["place"] == place
    assert os.stat("/run/unionfs/disks").st_mode & 0o777 == 0o700
    with open("/proc/self/mounts") as lines:
        assert [line.split()[3].startswith("rw,nodev") for line in lines if place in line] == [True]
    assert sides.unionfs("umount mnt").status == 0
    assert not is_mounted(device)
    assert not os.path.exists(place)
    assert on_disk(sides, device) == KEPT
    os.mkdir(sides.at("here"))
    subprocess.run(["mount", device, sides.at("here")], check=True)
    mount(sides)
    assert status(sides)["layers"]["state"]["place"] == sides.at("here")
    assert sides.read("mnt/etc/passwd") == "anna\n"
    assert sides.unionfs("umount mnt").status == 0
    assert is_mounted(device)


def test_a_disk_that_a_killed_daemon_has_left_mounted_goes_with_the_next_union(sides, disk):
    device = disk("state")
    configure(sides, state=f'disk = "{device}"')
    mount(sides)
    change(sides)
    kill(status(sides)["pid"])
    subprocess.run(["umount", "-l", sides.at("mnt")], check=True)
    assert is_mounted(device)
    mount(sides)
    assert sides.read("mnt/etc/passwd") == "anna\n"
    assert sides.unionfs("umount mnt").status == 0
    assert not is_mounted(device)


def test_a_disk_that_two_unions_have_stays_until_the_last_goes(sides, disk):
    device = disk("both")
    os.mkdir(sides.at("state"))
    configure(sides, scratch=f'disk = "{device}"', state=f'directory = "{sides.at("state")}"')
    mount(sides)
    os.mkdir(sides.at("other"))
    sides.write("other.toml", sides.read("u.toml").replace("[scratch]", "[state]", 1).replace(
        f'[state]\ndirectory = "{sides.at("state")}"', '[scratch]\nram = "10%"'))  # fmt: skip
    mount(sides, "mount --config other.toml other")
    assert sides.unionfs("umount mnt").status == 0
    still = is_mounted(device)
    assert sides.unionfs("umount other").status == 0
    assert still
    assert not is_mounted(device)


def test_a_disk_that_fsck_cannot_repair_is_no_state(sides, disk):
    device = disk("state")
    for words in ("clri <2>", "ssv state 0"):
        subprocess.run(["debugfs", "-w", "-R", words, device], check=True, capture_output=True)
    configure(sides, state=f'disk = "{device}"')
    status_, _, err = sides.unionfs("mount --config u.toml mnt")
    assert status_ == 0
    assert f"fsck left errors on the disk {device}: repair it by hand (fsck {device})" in err
    assert "NOTHING PERSISTS" in err
    assert not is_mounted(device)
    assert sides.unionfs("umount mnt").status == 0


def test_what_fsck_corrects_is_said(sides, disk):
    device = disk("state")
    for words in ("ssv free_blocks_count 7", "ssv state 0"):
        subprocess.run(["debugfs", "-w", "-R", words, device], check=True, capture_output=True)
    configure(sides, state=f'disk = "{device}"')
    status_, _, err = sides.unionfs("mount --config u.toml mnt")
    assert status_ == 0
    assert f"fsck has corrected the disk {device}" in err
    assert sides.unionfs("umount mnt").status == 0


def test_a_mount_that_is_refused_leaves_no_disk_mounted(sides, disk):
    device = disk("state")
    configure(sides, state=f'disk = "{device}"')
    for line in ("mount -o passthrough=all --config u.toml mnt", "mount --config u.toml nowhere"):
        assert sides.unionfs(line).status == 2
        assert not is_mounted(device)


@pytest.mark.parametrize("line", ["mount --config u.toml mnt", "unionfs mnt -o config=u.toml"])
def test_what_is_said_on_the_command_line_wins(sides, line):
    os.mkdir(sides.at("state"))
    configure(sides, state='disk = "LABEL=none-there"')
    more = ",".join(["fsync=off", "atime", f"statedir={sides.at('state')}"])
    line = line.replace("--config", f"-o {more} --config").replace("-o config", f"-o {more},config")
    mount(sides, line)
    said = status(sides)
    assert said["options"]["fsync"] == "off"
    assert said["layers"]["state"]["name"] == sides.at("state")
    assert "noatime" not in next(mount[3] for mount in sides.mounts())


def test_a_missing_disk_is_said_and_all_goes_to_scratch(sides):
    configure(sides, state='disk = "LABEL=none-there"')
    status_, _, err = sides.unionfs("mount --config u.toml mnt")
    assert status_ == 0
    assert "unionfs: warning: the disk LABEL=none-there is not there\n" in err
    assert "NOTHING PERSISTS, all goes to scratch" in err
    change(sides)
    assert sides.unionfs("status mnt").status == 1


def test_a_missing_disk_is_refused_where_it_is_required(sides):
    configure(sides, state='disk = "LABEL=none-there"\nrequired = true')
    status_, _, err = sides.unionfs("mount --config u.toml mnt")
    assert status_ == 2
    assert "the disk LABEL=none-there is not there" in err
    assert sides.mounts() == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("mount --config none.toml mnt", "none.toml does not exist: 'unionfs config --suggest'"),
        ("mount --config u.toml --readonly-root x mnt", "--config and --readonly-root exclude"),
        ("mount --readonly-root none mnt", "none does not exist"),
    ],
)
def test_what_cannot_be_is_refused(sides, line, said):
    configure(sides, state='disk = "LABEL=none-there"')
    status_, _, err = sides.unionfs(line)
    assert (status_, sides.mounts()) == (2, [])
    assert said in err


def test_fedoras_files_with_a_state_that_was_copied_by_hand(sides, disk):
    """The tables are this machine's own, /etc/statetab, so the rules are those on the disk."""
    device = disk("state", {"files": "/etc/passwd\n/etc/ssh\n", "etc": {"passwd": "by hand\n"}})
    place = sides.at("there")
    sides.write("ro", f"READONLY=no\nSTATE_MOUNT={place}\nSTATE_LABEL=state-{os.getpid()}\n")
    mount(sides, "mount --readonly-root ro --lower lower mnt")
    assert status(sides)["layers"]["state"]["place"] == place
    assert sides.read("mnt/etc/passwd") == "by hand\n"
    change(sides)
    assert sides.unionfs("umount mnt").status == 0
    assert not is_mounted(device)
    assert on_disk(sides, device) == {**KEPT, "files": "/etc/passwd\n/etc/ssh\n"}


# diff --state


def test_diff_tells_what_persists_and_what_it_hides(sides):
    os.mkdir(sides.at("state"))
    line = "mount --lower lower --ram --state state --persist /etc/passwd --persist /etc/ssh mnt"
    mount(sides, line)
    change(sides)
    expected = "changed  /etc/passwd (content)\nadded    /etc/ssh/key; only here\n"
    assert sides.unionfs("diff --state mnt") == (0, expected, "")
    assert sides.unionfs("umount mnt").status == 0
    sides.write("lower/etc/passwd", "upgraded\n")
    mount(sides, line)
    expected = expected.replace("(content)", "(content); differs from the new lower")
    assert sides.unionfs("diff --state mnt") == (0, expected, "")
    document = json.loads(sides.unionfs("diff --state --json mnt").out)
    assert document == {
        "state": sides.at("state"),
        "lowers": [sides.at("lower")],
        "changes": [
            {"path": "/etc/passwd", "kind": "changed", "detail": "content", "lower": "new"},
            {"path": "/etc/ssh/key", "kind": "added", "detail": "", "lower": "nothing"},
        ],
    }


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("diff --state mnt", "is mounted without a state side: nothing persists"),
        ("diff --state lower", "no union is mounted at 'lower'"),
        ("diff --state --lower lower mnt", "--state is for a mounted union"),
    ],
)
def test_diff_refuses_what_has_no_state(sides, line, said):
    mount(sides, "mount --lower lower --ram mnt")
    status_, out, err = sides.unionfs(line)
    assert (status_, out) == (2, "")
    assert said in err
