"""A directory is empty exactly when it lists no name."""

import itertools

import pytest

from tests.trees import WHITEOUT
from unionfs.layers.layer import Layer
from unionfs.layers.rules import merged

HELD = ({}, {"x": "text"}, {"x": WHITEOUT}, {"y": {}}, {"x": WHITEOUT, "y": WHITEOUT})
IN_AUFS = ({}, {"x": "text"}, {".wh.x": ""}, {"y": {}}, {".wh.x": "", ".wh..wh.opq": ""})


@pytest.mark.parametrize(("whiteout", "held"), [("overlay", HELD), ("aufs", IN_AUFS)])
def test_emptiness_and_listing_agree(union, whiteout, held):
    stacks = list(itertools.product(held, repeat=3))
    layers = [
        {f"d{number}": stack[layer] for number, stack in enumerate(stacks)} for layer in range(3)
    ]
    u = union(None, *layers, whiteout=whiteout)
    whiteouts = u.union.whiteouts
    for number, stack in enumerate(stacks):
        path = f"d{number}".encode()
        places = u.union.lookup.require(u.union.root, path).lowers
        empty = not merged([whiteouts.listing(place) for place in places])
        assert whiteouts.show_none(places) == empty, stack
        assert whiteouts.show_none(places, places[0].layer.scan(path)) == empty, stack


def test_no_layer_below_one_that_shows_a_name_is_read(union, monkeypatch):
    u = union({"d": {"x": "text"}}, {"d": {"y": "text"}}, {"d": {"z": "text"}})
    found, read, scan = u.union.lookup.require(u.union.root, b"d"), [], Layer.scan
    with monkeypatch.context() as patch:
        patch.setattr(Layer, "scan", lambda *call: read.append(call[0]) or scan(*call))
        assert not u.union.is_empty(found, None, b"d")
        assert read == [u.stack.upper]
        assert not u.union.is_empty(found, None, b"d", [])
        assert read == [u.stack.upper, u.stack.lowers[0]]


def test_what_upper_holds_says_nothing_of_a_directory_that_it_has_not(union):
    u = union({}, {"d": {"x": "text"}})
    found = u.union.lookup.require(u.union.root, b"d")
    assert not u.union.is_empty(found, None, b"d", [])
