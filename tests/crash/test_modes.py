"""What the modes of `-o fsync` sync before a copy is published."""

import tempfile

import pytest

from unionfs.view.union import Features

from .corpus import Case
from .trial import Field, count

_WITH_CONTENT = Case("append big", lambda v: v.append("big", b"more"))
_METADATA = Case("chmod big", lambda v: v.chmod("big", 0o600))
_DIRECTORY = Case("chmod d", lambda v: v.chmod("d", 0o700))


@pytest.mark.parametrize(
    ("fsync", "case", "synced"),
    [
        ("auto", _WITH_CONTENT, True),
        ("auto", _METADATA, False),
        ("auto", _DIRECTORY, False),
        ("strict", _WITH_CONTENT, True),
        ("strict", _METADATA, True),
        ("strict", _DIRECTORY, True),
        ("off", _WITH_CONTENT, False),
        ("off", _METADATA, False),
        ("off", _DIRECTORY, False),
    ],
)
def test_a_copy_is_synced_before_it_is_published_as_the_mode_says(disk, fsync, case, synced):
    gate = count(Field(disk, Features(fsync=fsync)), case, reading=False)
    names = [call.name for call in gate.calls]
    published = names.index("rename")
    assert ("fsync" in names[:published]) == synced
    assert "fsync" not in names[published:]


def test_a_tmpfs_is_not_waited_for():
    with tempfile.TemporaryDirectory(dir="/dev/shm") as ram:
        calls = count(Field(ram, Features(fsync="auto")), _WITH_CONTENT, reading=False).calls
    assert {"rename", "fsync"} & {call.name for call in calls} == {"rename"}
