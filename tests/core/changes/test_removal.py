"""Removing trees: what is known of directories that were listed, and what is left for later."""

import os

import pytest

from tests.core.changes.test_changes import failing
from unionfs.host.syscalls import RENAME_EXCHANGE
from unionfs.layers import staging


@pytest.fixture
def listed(union):
    """A directory `d` of both layers, and of both its files and directories, that was listed."""
    u = union({"d": {"b": "2"}, "x": "x"}, {"d": {"a": "1", "sub": {}}, "e": {}})
    u.list("d")
    return u


def clear(u):
    u.unlink("d/a")
    u.unlink("d/b")
    u.rmdir("d/sub")


def never(*_arguments):
    raise AssertionError("a directory is listed")


def test_who_removed_all_that_was_listed_need_not_list_again(listed, monkeypatch):
    listed.list("d/sub")
    clear(listed)
    with monkeypatch.context() as patch:
        patch.setattr(listed.union.whiteouts, "listing", never)
        listed.rmdir("d")
    assert listed.list() == ["e", "x"]


ADDITIONS = {
    "create": lambda u: u.create("d/new"),
    "the same name again": lambda u: u.create("d/a"),
    "mkdir": lambda u: u.mkdir("d/new"),
    "symlink": lambda u: u.symlink("d/new", "x"),
    "mknod": lambda u: u.mknod("d/new"),
    "link": lambda u: u.link("x", "d/new"),
    "rename": lambda u: u.rename("x", "d/new"),
    "rename of a directory": lambda u: u.rename("e", "d/new"),
}


@pytest.mark.parametrize("add", ADDITIONS)
@pytest.mark.parametrize("when", ["before", "after"])
def test_what_was_added_since_is_seen(listed, add, when):
    if when == "before" and add != "the same name again":  # which is taken
        ADDITIONS[add](listed)
        clear(listed)
    else:
        clear(listed)
        ADDITIONS[add](listed)
    failing(39, listed.rmdir, "d")  # ENOTEMPTY
    assert len(listed.list("d")) == 1


def test_an_exchange_is_seen(listed):
    listed.rename("d/a", "e", RENAME_EXCHANGE)
    listed.unlink("d/b")
    listed.rmdir("d/sub")
    failing(39, listed.rmdir, "d")
    listed.rmdir("d/a")
    listed.rmdir("d")


def test_a_name_that_was_moved_away_is_gone(listed):
    listed.rename("d/a", "y")
    listed.unlink("d/b")
    listed.rmdir("d/sub")
    listed.rmdir("d")
    assert listed.list() == ["e", "x", "y"]


def test_a_directory_that_took_the_name_of_another_is_not_taken_for_it(listed):
    clear(listed)
    listed.rename("d", "old")
    listed.mkdir("d")
    listed.create("d/f")
    failing(39, listed.rmdir, "d")
    listed.rmdir("old")


@pytest.fixture
def patient(union):
    """A directory of 20 files, all removed, over a union that tidies up when it has time."""
    u = union({}, {"d": {f"f{number}": "x" for number in range(20)}})
    u.union.upper.staging.defer_removals()
    for number in range(20):
        u.unlink(f"d/f{number}")
    yield u
    while u.union.upper.staging.tidy():
        pass


def left(u):
    return sum(len(files) for _, _, files in os.walk(u.work / "work"))


def test_whiteouts_of_a_removed_directory_go_one_by_one(patient):
    patient.rmdir("d")
    assert patient.list() == []
    assert left(patient) == 20
    for number in range(20):
        assert patient.union.upper.staging.tidy()
        assert left(patient) == 19 - number
    assert patient.union.upper.staging.tidy()
    assert os.listdir(patient.work / "work") == []
    assert not patient.union.upper.staging.tidy()


def test_there_is_a_limit_to_what_is_left(patient, monkeypatch):
    monkeypatch.setattr(staging, "_MOST_LEFT", 19)
    patient.rmdir("d")
    assert os.listdir(patient.work / "work") == []
    assert not patient.union.upper.staging.tidy()


def test_what_was_left_is_gone_with_the_next_mount(patient):
    patient.rmdir("d")
    patient.union.upper.staging.tidy()
    again = patient.remount()
    assert os.listdir(patient.work / "work") == []
    assert again.list() == []
    patient.union.upper.staging._left.clear()  # noqa: SLF001 - that daemon was killed


def test_what_cannot_be_removed_is_told_and_left(patient, monkeypatch, caplog):
    patient.rmdir("d")

    def fail(*_arguments, **_words):
        raise OSError(5, os.strerror(5))

    with monkeypatch.context() as failing_disk:
        failing_disk.setattr(os, "unlink", fail)
        patient.union.upper.staging.tidy()
    assert "is left in work until the next mount" in caplog.text
    while patient.union.upper.staging.tidy():
        pass
    assert left(patient) == 1
    patient.remount()


@pytest.mark.parametrize("deferred", [False, True])
def test_a_removed_directory_that_is_open_keeps_its_times(union, deferred):
    """It moved away from its lower, so the whiteouts in it go with it."""
    u = union({}, {"d": {"a": "", "sub": {}}})
    if deferred:
        u.union.upper.defer_removals()
    u.unlink("d/a")
    u.rmdir("d/sub")
    u.rename("d", "e")
    u.change("e", mtime_ns=10**18)
    node = u.node("e")
    u.rmdir("e")
    while u.union.upper.tidy():
        pass
    assert u.union.attributes(node).st_mtime_ns == 10**18
