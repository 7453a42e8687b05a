"""Offsets of directories mean the same whatever happened to the directory meanwhile."""

import errno
import itertools
import random

import pytest

from unionfs.layers.layer import Layer
from unionfs.layers.whiteouts import INO_SHIFT
from unionfs.view import listings as module
from unionfs.view.known import Known
from unionfs.view.listings import Listings

BATCH = 7


class Directory:
    def __init__(self, number, names=()):
        self.ino = number
        self.parent = None
        self.names = {name: number << INO_SHIFT | 8 for number, name in enumerate(names, 10)}


class Layers:
    """Stands for the union: tells what a directory shows, and counts how often it is asked."""

    def __init__(self):
        self.asked = 0
        self.known = Known()

    def listing(self, node):
        self.asked += 1
        return dict(node.names)


@pytest.fixture
def layers():
    return Layers()


@pytest.fixture
def listings(layers):
    return Listings(layers)


def batch(listings, directory, start, most=BATCH):
    """Return the names of one request and the offset that follows."""
    names = []
    for name, _, _, after in listings.read_names(directory, start):
        if len(names) == most:
            break
        names.append(name)
        start = after
    return names, start


def rest(listings, directory, start):
    """Return all names from an offset on, request by request."""
    names = []
    while True:
        some, start = batch(listings, directory, start)
        if not some:
            return names
        names += some


def names(count):
    return [b"name %d" % number for number in range(count)]


def test_all_names_are_shown_once_and_the_layers_are_asked_once(listings, layers):
    directory = Directory(1, names(100))
    shown = rest(listings, directory, 0)
    assert shown[:2] == [b".", b".."]
    assert sorted(shown[2:]) == sorted(names(100))
    assert layers.asked == 1


@pytest.mark.parametrize("kept", [64, 1], ids=["kept", "not kept"])
def test_what_stays_is_shown_once_while_others_come_and_go(listings, monkeypatch, kept):
    monkeypatch.setattr(module, "_MOST_KEPT", kept)
    monkeypatch.setattr(module, "_SURE_SECONDS", 0.0)
    directory = Directory(1, names(200))
    seen, start = batch(listings, directory, 0, 80)
    gone = set(seen[10:40]) | set(names(200)[::5])
    for name in gone:
        directory.names.pop(name, None)
    directory.names |= {b"new %d" % number: 500 + number << INO_SHIFT | 8 for number in range(50)}
    listings.union.known.revision += 1
    rest(listings, directory, 0)  # another reader, from the start
    rest(listings, Directory(2, names(3)), 0)
    seen += rest(listings, directory, start)
    stayed = [name for name in names(200) if name not in gone]
    assert {name: seen.count(name) for name in stayed} == dict.fromkeys(stayed, 1)
    assert len(seen) == len(set(seen))


def test_reading_from_the_start_again_lists_anew(listings):
    directory = Directory(1, names(20))
    batch(listings, directory, 0)
    directory.names[b"new"] = 99 << INO_SHIFT | 8
    listings.union.known.revision += 1
    assert b"new" in rest(listings, directory, 0)


def test_offsets_fit_into_those_of_programs(listings):
    directory = Directory(1, names(10_000))
    offsets = [entry[3] for entry in listings.read_names(directory, 0)]
    assert offsets == sorted(set(offsets))
    assert offsets[0] > 0
    assert offsets[-1] < 1 << 63


@pytest.fixture
def clock(monkeypatch):
    """Let time pass only as the test says."""
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def half_read(listings, count):
    directories = [Directory(number, names(400)) for number in range(count)]
    return directories, [batch(listings, directory, 0)[1] for directory in directories]


def test_many_that_are_read_at_once_are_all_kept(listings, layers, monkeypatch, clock):
    monkeypatch.setattr(module, "_MOST_NAMES", 1000)
    directories, starts = half_read(listings, 5)
    for turn in range(3):
        clock[0] += 1
        starts = [batch(listings, *pair)[1] for pair in zip(directories, starts, strict=True)]
        assert layers.asked == 5, turn


def test_of_many_those_used_lately_are_kept(listings, layers, monkeypatch, clock):
    monkeypatch.setattr(module, "_MOST_NAMES", 1000)
    directories, starts = half_read(listings, 5)
    clock[0] += 5
    for index, expected in ((4, 5), (0, 6)):
        batch(listings, directories[index], starts[index])
        assert layers.asked == expected


def test_few_are_kept_for_a_while(listings, layers, clock):
    (directory, _), (start, _) = half_read(listings, 2)
    for seconds, lists_anew in ((10, False), (50, True)):
        clock[0] += seconds
        batch(listings, Directory(9), 0)  # what is too old goes when another is kept
        before = layers.asked
        batch(listings, directory, start)
        assert layers.asked == before + lists_anew


class Reader:
    """Reads as the kernel does, a buffer at a time, and counts what it is given."""

    ROOM = 400  # entries in its buffer

    def __init__(self, listings, directory):
        self.listings = listings
        self.directory = directory
        self.given = 0

    def read(self, start):
        """Return the names of one reply, and the offset that follows."""
        most = self.listings.most(self.directory, start)
        entries = self.listings.read_names(self.directory, start)
        entries = list(itertools.islice(entries, min(most, self.ROOM)))
        after = entries[-1][3] if entries else 0
        self.listings.sent(self.directory, start, after, most)
        self.given += len(entries)
        return [entry[0] for entry in entries], after

    def all(self, start=0):
        """Return the names of all replies."""
        replies = []
        while True:
            some, start = self.read(start)
            if not some:
                return replies
            replies.append(some)


def test_who_seeks_for_each_name_is_given_few_and_makes_no_new_listing(listings, layers):
    directory = Directory(1, names(5000))
    reader = Reader(listings, directory)
    order = list(itertools.chain.from_iterable(reader.all()))
    ends = [entry[3] for entry in listings.read_names(directory, 0)]
    offsets = dict(zip(order[1:], ends[:-1], strict=True))  # each is where the one before it ends
    asked, reader.given = layers.asked, 0
    for name in random.Random(1).sample(order[1:], 500):
        assert reader.read(offsets[name])[0][0] == name
    assert layers.asked <= asked + 1
    assert reader.given <= 500 * 16  # by chance some go on where others ended
    reader.read(offsets[order[-1]])
    reader.read(offsets[order[-1]])
    assert layers.asked <= asked + 1, "the listing is kept though it was read to its end"


def test_who_goes_on_after_a_seek_soon_gets_full_replies(listings):
    directory = Directory(1, names(5000))
    reader = Reader(listings, directory)
    first, after = reader.read(0)
    sizes = [len(some) for some in reader.all(after - 1)]  # where its last name is
    assert sizes[:4] == [8, 64, 400, 400]
    assert sum(sizes) == 5002 - len(first) + 1


def test_two_readers_in_turn_both_get_full_replies(listings):
    directory = Directory(1, names(3000))
    pair = [Reader(listings, directory) for _ in range(2)]
    starts = [0, 0]
    while any(start is not None for start in starts):
        for index, reader in enumerate(pair):
            if starts[index] is not None:
                some, after = reader.read(starts[index])
                starts[index] = after if some else None
                assert len(some) in (400, 3002 % 400, 0), index
    assert [reader.given for reader in pair] == [3002, 3002]


def test_who_begins_again_and_again_is_given_few(listings, layers):
    directory = Directory(1, names(5000))
    reader = Reader(listings, directory)
    sizes = [len(reader.read(0)[0]) for _ in range(8)]
    assert sizes == [400, 400, 400, 64, 8, 8, 8, 8]
    assert layers.asked == 1
    assert sum(map(len, reader.all())) == 5002
    assert len(reader.read(0)[0]) == 400, "it had gone on"


def test_a_name_that_cannot_be_looked_at_is_listed_as_the_others(union, monkeypatch):
    """Else who copies a tree, and deletes what is gone there, would delete the copy."""
    u = union({}, {"d": {"bad": "x", "good": "x"}})
    real = Layer.find

    def find(layer, path):
        if path.endswith(b"bad"):
            raise OSError(errno.EIO, "bad sector")
        return real(layer, path)

    with monkeypatch.context() as patch:
        patch.setattr(Layer, "find", find)
        listings, d = Listings(u.union), u.node("d")
        listed = list(listings.read(d, 0))
        bare = [name for name, _, st, _ in listed if st is None]
        told = [name for name, *_ in listings.read_names(d, 0)]
    assert sorted(name for name, *_ in listed) == [b".", b"..", b"bad", b"good"]
    assert bare == [b".", b"..", b"bad"]
    assert sorted(told) == [b".", b"..", b"bad", b"good"]
    u.node("d/good")
