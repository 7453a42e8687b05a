"""A metadata-only copy that a crash left half way shows what it showed before."""

import errno
import os

import pytest

from unionfs.layers.markers import CAPABILITY, KEPT_CAPABILITY, MTIME

from .corpus import LONG_AGO, Case
from .faulty import failed
from .trial import ERRNOS, Field, count, faults, killed, kills


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
        node, _ = client.union.lookup.node(client.union.root, b"h1")
        _half(f"{field.dirs.upper}/h1", size=7, mtime=1)
        for name in (b"h1", b"h2"):
            assert client.union.lookup.node(client.union.root, name)[1].st_size == 7
        node.lookups = 1
        client.union.nodes.forget(node.ino, 1)
        assert client.union.lookup.node(client.union.root, b"h1")[1].st_size == len(
            b"two names" * 99
        )


# cap_net_raw=ep: capabilities(7), struct vfs_cap_data
_CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")


def _prepare(verbs):
    verbs.setxattr("h1", CAPABILITY, _CAPABILITY)
    verbs.utime("h1", LONG_AGO * 10**9)


# Content comes, and nothing that is seen changes.
_FILL = Case("open h1 for writing", lambda verbs: verbs.append("h1", b""), _prepare)


@pytest.fixture
def field(directory):
    field = Field(directory)
    yield field
    assert field.unchanged()


def test_a_fill_in_place_takes_nothing_from_the_file_wherever_the_daemon_dies(field):
    expected = field.expect(_FILL)
    assert expected.old == expected.new
    calls = len(count(field, _FILL, reading=False).calls)
    assert calls > 8
    wrong = {
        moment: words
        for moment, gate in kills(calls)
        if (words := killed(field, _FILL, expected, gate))
    }
    assert wrong == {}


def test_a_fill_in_place_takes_nothing_from_the_file_whatever_fails(field):
    expected = field.expect(_FILL)
    calls = count(field, _FILL, reading=True).calls
    wrong = {
        f"{moment}: {calls[gate.at - 1]}": words
        for moment, gate in faults(len(calls), ERRNOS)
        if (words := failed(field, _FILL, expected, gate))
    }
    assert wrong == {}


def test_a_fill_in_place_that_fails_gives_its_room_back(field, monkeypatch):
    field.fresh()

    def half(_source, target, _count, _start, at):
        os.pwrite(target, b"half", at)
        raise OSError(errno.ENOSPC, "the disk is full")

    with field.client() as client:
        _prepare(client)
        before = client.harvest()
        with monkeypatch.context() as patch:
            patch.setattr(os, "copy_file_range", half)
            with pytest.raises(OSError, match="No space left"):
                client.append("h1", b"more")
        assert client.harvest() == before
        assert os.stat(f"{field.dirs.upper}/h1").st_blocks == 0
        names = os.listxattr(f"{field.dirs.upper}/h1")
        assert {MTIME, KEPT_CAPABILITY}.isdisjoint(names)
