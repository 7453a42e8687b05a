"""Two writable sides as a user mounts them: what persists, what is lost, and how that is said."""

import json
import os
import shutil
import subprocess

import pytest

from tests.commands.conftest import kill

STATE = "--state state --persist /etc/passwd --persist /srv"


@pytest.fixture
def sides(bench):
    """Layers for two sides; all that is mounted is unmounted."""
    os.makedirs(bench.at("lower/etc"))
    os.mkdir(bench.at("state"))
    bench.write("lower/etc/passwd", "root\n")
    bench.write("lower/etc/hosts", "local\n")
    yield bench
    subprocess.run(["umount", "-l", bench.at("mnt")], capture_output=True, check=False)


def status(bench):
    return json.loads(bench.unionfs("status --json mnt").out)


def die(bench):
    """End the daemon as a power cut does, but for what is on disk."""
    kill(status(bench)["pid"])
    bench.run(["umount", "-l", bench.at("mnt")])


def change(bench):
    bench.write("mnt/etc/passwd", "ann\n")
    bench.write("mnt/etc/hosts", "other\n")
    os.mkdir(bench.at("mnt/srv"))
    bench.write("mnt/srv/data", "d\n")
    bench.write("mnt/junk", "j\n")


def shown(bench):
    found = {}
    for directory, _, files in os.walk(bench.at("mnt")):
        for name in files:
            path = os.path.join(directory, name)
            with open(path) as file:
                found[os.path.relpath(path, bench.at("mnt"))] = file.read()
    return found


KEPT = {"file": "lower\n", "etc/passwd": "ann\n", "etc/hosts": "local\n", "srv/data": "d\n"}
LEFT = {"file": "lower\n", "etc/passwd": "root\n", "etc/hosts": "local\n"}


@pytest.mark.parametrize("scratch", ["--ram", "--upper upper --work work"])
def test_what_persists_is_there_again_after_the_daemon_was_killed(sides, scratch):
    mount = f"mount --lower lower {scratch} {STATE} mnt"
    assert sides.unionfs(mount) == (0, "", "")
    change(sides)
    die(sides)
    assert sides.unionfs(mount) == (0, "", "")
    assert shown(sides) == KEPT
    assert sides.unionfs("umount mnt").status == 0
    assert sides.ls("state") == [".unionfs-work", "etc", "srv"]
    assert sides.ls("state/etc") == ["passwd"]


def test_the_words_of_o_do_the_same(sides):
    os.mkdir(sides.at("elsewhere"))
    words = "lowerdir=lower,ram,statedir=state,stateworkdir=elsewhere,persist=/etc/passwd:/srv"
    assert sides.unionfs(f"mount -o {words} mnt") == (0, "", "")
    change(sides)
    assert sides.unionfs("umount mnt").status == 0
    assert (sides.ls("state"), sides.ls("elsewhere")) == (["etc", "srv"], ["unionfs", "work"])


def test_a_scratch_directory_that_is_not_ours_is_refused(sides):
    sides.write("upper/precious", "p")
    result = sides.unionfs(f"mount --lower lower --upper upper --work work {STATE} mnt")
    assert (result.status, result.out) == (2, "")
    assert "is not empty, and no scratch of a former mount" in result.err
    assert sides.read("upper/precious") == "p"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--ram --persist /etc", "add --state DIR"),
        ("--ram --state state", "add --persist PATH"),
        ("--state state --persist /etc", "add --ram"),
        ("--ram --state state --persist etc", "bad rule 'etc'"),
        ("--ram --state state --persist /etc -o whiteout=aufs", "exclude each other"),
        ("--ram --state state --persist /etc -o passthrough=all", "exclude each other"),
        ("--upper state/u --work state/w --state state --persist /etc", "keep them apart"),
        ("--upper u --work w --state u/s --persist /etc", "keep them apart"),
        ("--ram --state lower/etc --persist /a --lower lower/etc", "it would change with it"),
        ("--ram --state nowhere --persist /etc --state-required", "does not exist"),
    ],
)
def test_what_makes_no_sense_is_refused(sides, options, words):
    for name in ("state/u", "state/w", "u/s", "w"):
        os.makedirs(sides.at(name))
    result = sides.unionfs(f"mount --lower lower {options} mnt")
    assert (result.status, result.out) == (2, "")
    assert words in result.err
    assert not os.path.ismount(sides.at("mnt"))


def _missing(bench):
    shutil.rmtree(bench.at("state"))


def _file(bench):
    shutil.rmtree(bench.at("state"))
    bench.write("state", "")


def _read_only(bench):
    for options in (["--bind"], ["-o", "remount,bind,ro"]):
        bench.run(["mount", *options, bench.at("state"), bench.at("state")])


def _in_the_way(bench):
    bench.write("state/etc", "")


@pytest.mark.parametrize("harm", [_missing, _file, _read_only, _in_the_way])
def test_a_lost_state_is_said_and_the_mount_comes_up(sides, harm):
    harm(sides)
    try:
        line = f"mount --lower lower --ram {STATE}"
        result = sides.unionfs(f"{line} mnt")
        assert (result.status, result.out) == (0, "")
        assert "NOTHING PERSISTS" in result.err
        change(sides)
        document = status(sides)
        assert "state" in document["state_lost"]
        assert document["layers"]["state"] is None
        said = sides.unionfs("status mnt")
        assert said.status == 1
        assert f"nothing persists: {document['state_lost']}" in said.out
        assert sides.unionfs("umount mnt").status == 0
        required = sides.unionfs(f"{line} --state-required mnt")
        assert (required.status, required.out) == (2, "")
        assert document["state_lost"] in required.err
    finally:
        sides.run(["umount", "-l", sides.at("state")])


def test_status_shows_both_sides(sides):
    assert sides.unionfs(f"mount --lower lower --ram {STATE} mnt").status == 0
    lines = sides.unionfs("status mnt").out.splitlines()
    rows = {line[:12].strip(): line[12:].strip() for line in lines}
    assert rows["state"] == sides.at("state")
    assert rows["state work"] == sides.at("state/.unionfs-work")
    assert "persist=/etc/passwd:/srv" in rows["options"]
    layers = status(sides)["layers"]
    assert layers["state"]["place"] == sides.at("state")
    assert layers["state"]["room"]["size"] > 0
    assert sides.unionfs("umount mnt").status == 0


def test_figures_are_of_the_side_of_a_path(sides):
    assert sides.unionfs(f"mount --lower lower --ram 8M {STATE} mnt").status == 0
    os.mkdir(sides.at("mnt/srv"))
    disk, ram = os.statvfs(sides.at("state")), 8 << 20
    for path, blocks in (("etc/passwd", disk.f_blocks * disk.f_frsize), ("etc/hosts", ram),
                         ("srv", disk.f_blocks * disk.f_frsize), ("etc", ram)):  # fmt: skip
        figures = os.statvfs(sides.at(f"mnt/{path}"))
        assert figures.f_blocks * figures.f_frsize == blocks, path
    assert sides.unionfs("umount mnt").status == 0


def test_state_is_an_upper_that_can_be_checked_and_compared(sides):
    mount = f"mount --lower lower --ram {STATE} --persist /etc/keep mnt"
    assert sides.unionfs(mount).status == 0
    change(sides)
    os.link(sides.at("mnt/etc/passwd"), sides.at("mnt/etc/backup"))
    os.rename(sides.at("mnt/etc/hosts"), sides.at("mnt/etc/keep"))
    assert sides.unionfs("umount mnt").status == 0
    checked = sides.unionfs("check state")
    assert (checked.status, checked.err) == (0, "")
    assert "clean" in checked.out
    assert sides.unionfs("diff state").out.splitlines() == [
        "added    /etc/keep",
        "changed  /etc/passwd (content)",
        "added    /srv",
        "added    /srv/data",
    ]
