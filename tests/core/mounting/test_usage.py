"""How full an upper is, and what is said of it."""

import logging
import os

import pytest

from tests.mounted import disks
from unionfs.audit import usage
from unionfs.audit.usage import Large, Room
from unionfs.layers.layer import Layer
from unionfs.mounting.guard import Guard, Nurse
from unionfs.mounting.motd import Motd


@pytest.mark.parametrize(
    ("room", "percent", "level"),
    [
        (Room(1000, 0, 0, 0), 0, 0),
        (Room(1000, 799, 0, 0), 79, 0),
        (Room(1000, 800, 0, 0), 80, 80),
        (Room(1000, 10, 100, 95), 95, 95),
        (Room(0, 0, 0, 0), 0, 0),
    ],
)
def test_a_file_system_is_as_full_as_the_scarcer_of_bytes_and_inodes(room, percent, level):
    assert (room.percent, room.level) == (percent, level)


@pytest.mark.parametrize(
    ("room", "words", "trouble"),
    [
        (Room(2048, 1024, 0, 0), "1.0K of 2.0K used (50 %)", "upper is 50 % full, 1.0K of 2.0K"),
        (
            Room(2048, 1024, 10, 9),
            "1.0K of 2.0K used (50 %), 9 of 10 inodes (90 %)",
            "upper is 90 % full, 9 of 10 inodes",
        ),
    ],
)
def test_words_name_what_is_scarce(room, words, trouble):
    assert (room.words(), room.trouble()) == (words, trouble)


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0B"), (1023, "1023B"), (1536, "1.5K"), (10 << 20, "10M"), (3 << 30, "3.0G")],
)
def test_bytes_are_shown_as_df_does(count, shown):
    assert usage.shown(count) == shown


def test_the_largest_files_are_found_once_each(tmp_path):
    (tmp_path / "a/b").mkdir(parents=True)
    for name, size in (("a/b/big", 3 << 20), ("a/middle", 2 << 20), ("small", 1 << 20)):
        (tmp_path / name).write_bytes(b"x" * size)
    os.link(tmp_path / "a/b/big", tmp_path / "again")
    with (tmp_path / "hole").open("wb") as hole:
        hole.truncate(1 << 30)
    fd = os.open(tmp_path, os.O_RDONLY)
    here = os.getcwd()
    try:
        found = usage.contents(Layer(fd), 2)
    finally:
        os.chdir(here)  # not in the layer
        os.close(fd)
    blocks = sum(
        os.stat(tmp_path / name).st_blocks
        for name in ("a", "a/b", "a/b/big", "a/middle", "small", "hole")
    )
    assert (found.inodes, found.size) == (6, blocks * 512)
    assert [large.size for large in found.largest] == [3 << 20, 2 << 20]
    assert {found.largest[0].path} <= {b"a/b/big", b"again"}
    assert found.largest[1] == Large(2 << 20, b"a/middle")


@pytest.fixture
def disk(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount")
    place = tmp_path / "disk"
    place.mkdir()
    with disks.mounted(place, "-t", "tmpfs", "-o", "size=1m", "tmpfs"):
        yield place


def test_the_guard_says_each_level_once_until_it_is_left(disk, tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    fd = os.open(disk, os.O_RDONLY)
    guard = Guard(fd, "/union", Motd(str(tmp_path)))
    message = tmp_path / "unionfs/motd"

    def fill(percent):
        (disk / "f").write_bytes(b"x" * ((1 << 20) * percent // 100))
        guard.look()
        return [record.message.split(" full")[0] for record in caplog.records]

    try:
        assert fill(50) == []
        assert not message.exists()
        assert fill(82) == ["/union: upper is 82 %"]
        assert message.read_text().startswith("unionfs: /union: upper is 82 % full, 840K of 1.0M: ")
        assert len(fill(90)) == 1
        assert len(fill(96)) == 2
        assert len(fill(93)) == 2  # not left by much
        assert len(fill(96)) == 2
        assert len(fill(85)) == 2
        assert "85 %" in message.read_text()
        assert len(fill(96)) == 3
        assert len(fill(10)) == 3
        assert not message.exists()
        fill(96)
        assert message.exists()
        guard.leave()
        assert not message.exists()
    finally:
        os.close(fd)


def test_a_disk_that_does_not_tell_its_figures_ends_no_daemon(tmp_path):
    fd = os.open(tmp_path, os.O_RDONLY)
    guard = Guard(fd, "/union", None)
    os.close(fd)
    guard.look()


def test_who_logs_in_reads_that_an_upper_takes_no_changes_until_it_does(disk, tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    fd = os.open(disk, os.O_RDONLY)
    nurse = Nurse(fd, "/union", Motd(str(tmp_path)), "state")
    message = tmp_path / "unionfs/motd"
    try:
        nurse.look()
        assert not message.exists()
        disks.run("mount", "-o", "remount,ro", disk)
        nurse.look()
        nurse.look()
        words = "state TAKES NO CHANGES: its file system is read-only"
        assert message.read_text() == f"unionfs: /union (disk of state): {words}\n"
        disks.run("mount", "-o", "remount,rw", disk)
        nurse.look()
        assert not message.exists()
        assert [record.message for record in caplog.records] == [
            f"/union: {words}",
            "/union: state takes changes again",
        ]
    finally:
        nurse.leave()
        os.close(fd)
