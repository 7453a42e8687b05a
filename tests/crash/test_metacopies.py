"""A metadata-only copy that a crash left half way shows what it showed before."""

import os

import pytest

from unionfs.markers import MTIME

from .corpus import LONG_AGO
from .trial import Field


def _half(path, *, size, mtime=None):
    """Leave a copy as a power cut may, or as a daemon that was killed while it filled it."""
    os.truncate(path, size)
    if mtime is None:
        os.utime(path, (LONG_AGO, LONG_AGO))
    else:
        os.setxattr(path, MTIME, b"%d" % mtime)


@pytest.mark.parametrize("name", ["big", "h1"])  # h1 is in the hard link index, as h2
@pytest.mark.parametrize(
    "left",
    [{"size": 0}, {"size": 70, "mtime": LONG_AGO * 10**9}, {"size": 0, "mtime": 0}],
    ids=str,
)
def test_it_gets_its_size_and_its_time_back(directory, name, left):
    field = Field(directory)
    field.fresh()
    with field.client() as client:
        client.chmod(name, 0o600)
        expected = client.harvest()
    _half(f"{field.dirs.upper}/{name}", **left)
    for alias in {name, name.replace("1", "2")}:
        time = left.get("mtime", LONG_AGO * 10**9)
        expected[alias] = expected[alias]._replace(mtime=time)
    for _ in range(2):
        with field.client() as client:
            assert client.harvest() == expected
    assert MTIME not in os.listxattr(f"{field.dirs.upper}/{name}")


def test_one_that_is_being_filled_is_left_alone(directory):
    field = Field(directory)
    field.fresh()
    with field.client() as client:
        client.chmod("h1", 0o600)
        node, _ = client.union.lookup(client.union.root, b"h1")
        _half(f"{field.dirs.upper}/h1", size=7, mtime=1)
        for name in (b"h1", b"h2"):
            assert client.union.lookup(client.union.root, name)[1].st_size == 7
        node.lookups = 1
        client.union.nodes.forget(node.ino, 1)
        assert client.union.lookup(client.union.root, b"h1")[1].st_size == len(b"two names" * 99)
