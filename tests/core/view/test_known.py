"""What is known to be absent, until which event, how much of it, and of which file systems."""

import os

import pytest

from unionfs.layers.layer import Layer, LayerPath
from unionfs.view import known as module
from unionfs.view.known import FirstHolders, Known, lists_all


class Directory:
    def __init__(self, *lowers):
        self.lowers = lowers


@pytest.fixture(autouse=True)
def faithful(request, monkeypatch):
    """Let the directories of most tests, which are words, list all their names."""
    if "layer" not in request.fixturenames:
        monkeypatch.setattr(module, "lists_all", lambda _place, _names: True)


def removal(known, directory):
    known.names_change(directory)
    known.name_removed(directory, b"listed")


@pytest.mark.parametrize(
    ("event", "stays"),
    [
        (lambda known, _: known.names_change(Directory()), {"not below", "no holder", "empty"}),
        (lambda known, _: known.names_change(), {"not below", "no holder", "empty"}),
        (lambda known, directory: known.names_change(directory), {"not below", "no holder"}),
        (removal, {"not below", "no holder", "empty"}),
        (lambda known, _: known.lowers_change(), set()),
    ],
    ids=["a change elsewhere", "a change of an object", "a change here", "a removal", "lowers"],
)
def test_what_is_known_ends_with_its_event_alone(event, stays):
    known, directory = Known(), Directory("top", "bottom")

    def told():
        holders = known.first_holders.narrow(directory, b"none", directory.lowers)
        facts = {
            "not found": known.is_absent(directory, b"none"),
            "not below": (directory, b"none") in known.not_below,
            "no holder": holders == (),
            "empty": known.is_empty(directory),
        }
        return {fact for fact, known in facts.items() if known}

    assert told() == set()
    known.first_holders.keep(directory, [[], []])
    known.note_listing(directory, {b"listed": 1})
    removal(known, directory)
    known.note_not_below(directory, b"none")
    known.not_found = directory, b"none"
    assert told() == {"not found", "not below", "no holder", "empty"}
    revision = known.revision
    event(known, directory)
    assert told() == stays
    assert known.revision == revision + 1


def test_a_name_is_asked_from_its_first_holder_on():
    holders, directory = FirstHolders(), Directory("top", "middle", "bottom")
    holders.keep(directory, [[b"a"], [b"a", b"b"], [b"b", b"c"]])
    held = {name: holders.narrow(directory, name, directory.lowers) for name in (b"a", b"c", b"d")}
    assert held == {b"a": ("top", "middle", "bottom"), b"c": ("bottom",), b"d": ()}


def test_without_a_listing_all_are_asked():
    holders, directory = FirstHolders(), Directory("top", "bottom")
    assert holders.narrow(directory, b"a", directory.lowers) == ("top", "bottom")
    holders.keep(directory, [[], []])
    changed = ("top",)
    assert holders.narrow(directory, b"a", changed) == changed


def test_the_oldest_are_let_go_of():
    holders = FirstHolders(names=8)
    directories = [Directory("top", "bottom") for _ in range(3)]
    for directory in directories:
        holders.keep(directory, [[b"a"], [b"b"]])
    holders.keep(directories[-1], [[b"a"], [b"b"]])
    kept = [not holders.narrow(one, b"none", one.lowers) for one in directories]
    assert kept == [False, True, True]
    holders.keep(directories[0], [[b"%d" % number for number in range(8)], []])
    assert all(holders.narrow(one, b"none", one.lowers) for one in directories)


class Caseless(Layer):
    """A directory that does not care for case, as FAT."""

    def find(self, path):
        for name in os.listdir(self.fd):
            if os.fsencode(name).lower() == path.lower():
                return super().find(os.fsencode(name))
        return None


@pytest.fixture
def layer(tmp_path):
    """A function that opens a directory of these names as a layer of that kind."""

    def build(kind, *names):
        for name in names:
            (tmp_path / name).touch()
        return kind(os.open(tmp_path, os.O_RDONLY))

    return build


@pytest.mark.parametrize(("kind", "faithful"), [(Layer, True), (Caseless, False)])
def test_a_directory_that_does_not_care_for_case_is_found_out(layer, kind, faithful):
    assert lists_all(LayerPath(layer(kind, "1", "Name"), b"."), [b"1", b"Name"]) == faithful


def test_file_systems_that_may_hide_names_are_not_relied_on(layer):
    assert layer is not None
    proc = Layer(os.open("/proc", os.O_RDONLY))
    assert not lists_all(LayerPath(proc, b"."), [b"1"])
