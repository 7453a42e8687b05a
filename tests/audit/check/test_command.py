"""`unionfs check` as a user runs it: exit status, JSON, and what it refuses."""

import json
import os

import pytest

from tests.audit.check.conftest import mark
from tests.commands.conftest import Result

MOUNT = "mount --lower lower --upper upper --work work mnt"


def used(bench):
    """Make an upper in order, which knows what it was mounted with."""
    assert bench.unionfs(MOUNT).status == 0
    os.chmod(bench.at("mnt/file"), 0o600)
    assert bench.unionfs("umount mnt").status == 0
    return bench


def test_a_used_upper_is_clean(bench):
    upper = used(bench).at("upper")
    assert bench.unionfs("check upper") == Result(0, f"{upper}: clean, 1 objects looked at\n", "")


def test_the_exit_status_is_that_of_fsck(bench):
    used(bench)
    mark(bench.at("upper/file"), opaque=b"y")
    assert bench.unionfs("check upper").status == 4
    assert bench.unionfs("check upper --repair").status == 1
    assert bench.unionfs("check upper --repair").status == 0
    mark(bench.at("upper/file"), opaque=b"y", redirect=b"..")
    assert bench.unionfs("check upper --repair").status == 4


def test_a_clean_umount_is_not_needed_to_be_clean_after_repair(bench):
    used(bench)
    bench.write("work/work/#0", "")
    result = bench.unionfs("check upper --repair --json")
    document = json.loads(result.out)
    assert (result.status, result.err) == (1, "")
    assert document["problems"] == [
        {
            "where": "work",
            "path": "/work",
            "kind": "leftover",
            "words": "1 leftover(s) of interrupted changes, which the next mount removes",
            "repairable": True,
            "repaired": True,
        }
    ]
    assert (document["work"], document["lowers"]) == (bench.at("work"), [bench.at("lower")])


def test_a_mounted_upper_is_refused(bench):
    assert bench.unionfs(MOUNT).status == 0
    try:
        result = bench.unionfs("check upper --repair")
        assert (result.status, result.out) == (2, "")
        assert "in use by another union" in result.err
    finally:
        assert bench.unionfs("umount mnt").status == 0


def test_what_is_not_known_is_said(plain):
    result = plain.unionfs("check upper")
    assert result.status == 0
    assert "--lower DIR" in result.err
    assert "--work DIR" in result.err
    assert plain.unionfs("check upper --lower lower --work work").err == ""


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("check nowhere", "upper 'nowhere' does not exist"),
        ("check upper --work nowhere", "work 'nowhere' does not exist"),
        ("check upper --work upper", "are the same directory"),
        ("check upper --lower nowhere", "lower 'nowhere' does not exist"),
    ],
)
def test_bad_input_is_refused(plain, line, message):
    result = plain.unionfs(line)
    assert (result.status, result.out) == (2, "")
    assert message in result.err
