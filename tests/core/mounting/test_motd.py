"""What unions say to who logs in."""

import fcntl
import os

import pytest

from unionfs.host import syscalls
from unionfs.mounting.motd import Motd


@pytest.fixture
def run(tmp_path):
    (tmp_path / "unionfs").mkdir()
    return tmp_path


def test_each_union_has_a_line_of_its_own_and_the_boot_keeps_its(run):
    file = run / "unionfs/motd"
    file.write_text("unionfs: CHANGES WILL BE LOST\n")
    one, other = Motd(str(run)), Motd(str(run))
    assert one.say("/a", "is full")
    assert other.say("/a/b", "is full")
    assert one.say("/a", "is quite full")
    assert file.read_text().splitlines() == [
        "unionfs: CHANGES WILL BE LOST",
        "unionfs: /a/b: is full",
        "unionfs: /a: is quite full",
    ]
    assert one.say("/a", "")
    assert other.say("/a/b", "")
    assert file.read_text() == "unionfs: CHANGES WILL BE LOST\n"
    assert sorted(os.listdir(run / "unionfs")) == ["motd", "motd.lock"]


def test_pam_motd_is_led_to_it_and_without_a_line_there_is_no_file(run):
    motd = Motd(str(run))
    Motd(str(run))
    assert os.readlink(run / "motd.d/unionfs") == "/run/unionfs/motd"
    motd.say("/a", "is full")
    motd.say("/a", "")
    assert os.listdir(run / "unionfs") == ["motd.lock"]


def test_while_another_writes_it_is_told_to_come_again(run):
    one = Motd(str(run))
    with (run / "unionfs/motd.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert not one.say("/a", "is full")
    assert one.say("/a", "is full")


def test_without_a_place_to_write_nothing_is_said(tmp_path):
    assert Motd(f"{tmp_path}/none").say("/a", "is full")
    assert os.listdir(tmp_path) == []


def test_it_is_roots_though_a_request_of_another_user_came_last(run):
    if os.geteuid() != 0:
        pytest.skip("needs root, to act for others")
    motd = Motd(str(run))
    syscalls.keep_capabilities_across_setfsuid()
    syscalls.set_filesystem_ids(1000, 1000)
    try:
        motd.say("/a", "is full")
    finally:
        syscalls.set_filesystem_ids(0, 0)
    st = os.stat(run / "unionfs/motd")
    assert (st.st_uid, st.st_gid, st.st_mode & 0o777) == (0, 0, 0o644)
