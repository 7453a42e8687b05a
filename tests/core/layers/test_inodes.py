"""Inode numbers: short where there is room, each given once, and the same for ever."""

import os

import pytest

from tests.trees import Same, plant
from unionfs.layers import inodes
from unionfs.layers.inodes import ROOT_INO, number
from unionfs.layers.layer import Layer
from unionfs.layers.stack import Stack
from unionfs.mounting.opening import open_stack
from unionfs.mounting.options import Options
from unionfs.view.listings import Listings
from unionfs.view.node import Node
from unionfs.view.union import Features, Union

SHORT = 1 << 32
LONG = 1 << 48  # a host's number has less bits, or is told by a hash
INTERESTING = (2, 3, 1000, 1 << 20, 1 << 22, 1 << 23, 1 << 31, SHORT - 1, SHORT, LONG - 1)


@pytest.fixture(autouse=True)
def _return(tmp_path, monkeypatch):
    """Come back to the working directory, as layers are entered."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def lowers(tmp_path):
    """Make lower layers, each on the device that is said: no directory is looked at."""
    fds = []

    def make(*devices):
        layers = []
        for index, device in enumerate(devices):
            fds.append(os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY))
            layers.append(Layer(fds[-1], number=len(devices) - index))
            layers[-1].device = device
        inodes.divide(Stack(None, None, tuple(layers)))
        return layers

    yield make
    for fd in fds:
        os.close(fd)


def _st(layer, ino):
    return os.stat_result((0o100644, ino, layer.device, 1, 0, 0, 0, 0, 0, 0))


def test_layers_on_one_file_system_show_the_numbers_of_the_host(lowers):
    for layer in lowers(7, 7, 7):
        assert [number(layer, _st(layer, ino)) for ino in INTERESTING] == list(INTERESTING)


@pytest.mark.parametrize("devices", [2, 3, 100, 500])
def test_no_number_is_given_twice(lowers, devices):
    layers = lowers(*range(devices))
    given = [number(layer, _st(layer, ino)) for layer in layers for ino in (1, *INTERESTING)]
    assert len(given) == len(set(given))
    assert min(given) > ROOT_INO
    assert max(given) < 1 << 63


@pytest.mark.parametrize(
    ("devices", "first_long"), [(1, SHORT), (2, 1 << 31), (4, 1 << 30), (500, SHORT // 500)]
)
def test_numbers_are_short_as_long_as_the_part_of_a_file_system_goes(
    lowers, monkeypatch, devices, first_long
):
    monkeypatch.setattr(inodes, "_bound", lambda _fd: SHORT)  # nothing is known of them
    for layer in lowers(*range(devices)):
        for ino in (2, first_long // 2, first_long - 2):
            assert number(layer, _st(layer, ino)) < SHORT
        assert number(layer, _st(layer, first_long + 1)) >= SHORT


def test_what_is_known_to_be_small_leaves_room_for_others(lowers, monkeypatch):
    bounds = iter([1 << 20, SHORT, 1 << 24])
    monkeypatch.setattr(inodes, "_bound", lambda _fd: next(bounds))
    top, middle, bottom = lowers(3, 2, 1)
    ends = [(bottom, 1 << 20), (middle, SHORT - (1 << 20) - (1 << 24)), (top, 1 << 24)]
    for layer, end in ends:
        assert number(layer, _st(layer, end - 1)) < SHORT
        assert number(layer, _st(layer, end)) >= SHORT


def test_a_number_does_not_depend_on_what_was_looked_up_before(union):
    u = union({"u": ""}, {"f": "", "d": {"g": ""}}, {"d": {"h": ""}})
    paths = ("u", "f", "d", "d/g", "d/h")
    first = {path: u.node(path).ino for path in paths}
    again = u.remount()
    assert {path: again.node(path).ino for path in reversed(paths)} == first


def test_a_copy_says_which_object_of_which_layer_it_was(union, tmp_path):
    u = union({}, {"f": "f"}, {"g": "g"})
    before = [u.node(name).ino for name in "fg"]
    for name, layer, lower in (("f", 2, "lower0"), ("g", 1, "lower1")):
        u.change(name, mode=0o600)
        told = int(os.getxattr(u.upper / name, "trusted.overlay.unionfs.ino"), 16)
        assert told == layer << 48 | (tmp_path / lower / name).stat().st_ino
    again = u.remount()
    assert [again.node(name).ino for name in "gf"] == before[::-1]


def test_what_was_copied_up_before_numbers_were_short_has_a_short_one(union, tmp_path):
    u = union({"f": "copy", "other": ""}, {"f": "f"})
    ino = (tmp_path / "lower0/f").stat().st_ino
    os.setxattr(u.upper / "f", "trusted.overlay.unionfs.ino", b"%x" % (1 << 48 | ino))
    os.setxattr(u.upper / "other", "trusted.overlay.unionfs.ino", b"%x" % (2 << 48 | ino))
    again = u.remount()
    assert again.node("f").ino == ino
    assert again.node("other").ino == 2 << 48 | ino  # of a layer that is there no more


# Layers that share objects


def _with_links(union, tmp_path):
    """Return a union with two lowers, on one file system, that have names of one file."""
    plant(tmp_path / "lower0", {"f": "old"})
    (tmp_path / "lower1").mkdir()
    os.link(tmp_path / "lower0/f", tmp_path / "lower1/g")
    return union({}, {}, {})


@pytest.mark.parametrize(("first", "second"), [("f", "g"), ("g", "f")])
def test_names_of_one_file_in_two_layers_are_links_of_each_other(union, tmp_path, first, second):
    u = _with_links(union, tmp_path)
    assert u.node(first) is u.node(second)
    assert (u.links("f"), u.links("g")) == (2, 2)
    ino = u.node("f").ino
    u.append(first, " new")
    assert u.read(second) == "old new"
    again = u.remount()
    assert (again.read("f"), again.read("g")) == ("old new", "old new")
    assert again.node("f") is again.node("g")
    assert again.node("f").ino == ino
    again.unlink(second)
    assert again.links(first) == 1
    assert (tmp_path / "lower0/f").read_text() == "old"


def test_an_index_entry_that_is_of_one_layer_only_is_found(union, tmp_path):
    """So it was when each layer had numbers of its own."""
    u = _with_links(union, tmp_path)
    u.append("f", " new")
    (entry,) = (u.work / "unionfs/links").iterdir()
    old = entry.with_name("2" + entry.name.removeprefix("1"))
    assert old != entry
    entry.rename(old)
    os.setxattr(old, "trusted.overlay.unionfs.link", os.fsencode(old.name))
    again = u.remount()
    assert again.read("f") == "old new"
    again.append("f", "er")
    assert (again.read("f"), again.read("g")) == ("old newer", "old")  # as it was made


@pytest.mark.parametrize("told", [True, False])
def test_a_layer_that_lies_within_another_shows_other_objects_than_that(tmp_path, told):
    """Also where nobody could tell that it does, by bind mounts."""
    plant(tmp_path / "l", {"in": {"f": "text", "d": {"g": "", "h": Same("in/d/g")}}})
    stack = open_stack(Options(lowers=(str(tmp_path / "l/in"), str(tmp_path / "l"))))
    try:
        assert stack.within == {stack.lowers[0]}
        union = Union(stack if told else Stack(None, None, stack.lowers), Features())
        nodes = [_node(union, path) for path in ("f", "in/f", "d", "in/d", "in")]
        assert len({node.ino for node in nodes}) == 5
        assert all(node.aliases is None for node in nodes)
        for directory in (union.root, *nodes[2:]) if told else ():
            _check_listing(union, directory)
    finally:
        stack.close()


def _node(union, path):
    node = union.root
    for name in path.split("/"):
        node, _ = union.lookup.node(node, name.encode())
        node.lookups += 1
    return node


def _check_listing(union, directory: Node):
    """See that a directory lists the numbers that its names are looked up with."""
    listings = Listings(union)
    told = {name: ino for name, ino, _, _ in listings.read_names(directory, 0)}
    for name in told.keys() - {b".", b".."}:
        assert union.lookup.node(directory, name)[0].ino == told[name], name


@pytest.mark.parametrize("place", ["upper/u", "upper/w"])
def test_upper_within_a_lower_shows_its_objects_there_with_numbers_of_their_own(tmp_path, place):
    plant(tmp_path / "l", {"upper": {"u": {"f": "text"}, "w": {}}})
    (tmp_path / "w").mkdir()
    within = {"upper/u": "l/upper/u", "upper/w": "l/upper/w"}[place]
    upper, work = (within, "w") if place.endswith("u") else ("u", within)
    (tmp_path / "u").mkdir()
    stack = open_stack(
        Options(
            lowers=(str(tmp_path / "l"),), upper=str(tmp_path / upper), work=str(tmp_path / work)
        )
    )
    try:
        inodes.divide(stack)
        assert stack.within == {stack.upper}
        assert stack.upper.family != stack.lowers[0].family
        assert stack.upper.first == stack.work.first != stack.lowers[0].first
    finally:
        stack.close()
