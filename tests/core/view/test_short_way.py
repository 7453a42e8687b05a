"""The short way to a name tells what the long one does, over all columns of three layers."""

import itertools
import os
import shutil

import pytest

OVERLAY = "trusted.overlay."


def _write(path):
    path.write_text("text")


def _mark(path, **marks):
    for name, value in marks.items():
        os.setxattr(path, OVERLAY + name, value)


def _metacopy(path):
    path.write_text("meta")
    _mark(path, metacopy=b"")


def _moved_file(path):
    _metacopy(path)
    _mark(path, redirect=b"/old")


def _directory(path):
    path.mkdir()


def _opaque(path):
    path.mkdir()
    _mark(path, opaque=b"y")


def _moved_directory(path):
    path.mkdir()
    _mark(path, redirect=b"/from")


def _beside(path):
    path.mkdir()
    _mark(path, redirect=b"other")


def _whiteout(path):
    os.mknod(path, 0o20000, 0)


def _whiteout_file(path):
    path.write_text("")
    _mark(path, whiteout=b"y")


def _linked(path):
    path.write_text("linked")
    path.with_name(path.name + ".link").hardlink_to(path)


THINGS = {
    "-": lambda _path: None,
    "f": _write,
    "l": _linked,
    "m": _metacopy,
    "r": _moved_file,
    "d": _directory,
    "o": _opaque,
    "a": _moved_directory,
    "b": _beside,
    "w": _whiteout,
    "x": _whiteout_file,
}
COLUMNS = ["".join(column) for column in itertools.product(THINGS, THINGS, "-fld")]


def _plant(layers):
    """Make a name for each column, which says what the layers hold under it."""
    for name in COLUMNS:
        for kind, layer in zip(name, layers, strict=True):
            THINGS[kind](layer / "d" / name)


def _seen(look):
    """Return all that a result says of the layers, in a form to be compared."""
    try:
        result = look()
    except OSError as exc:
        return exc.errno
    return result and (*result[:4], result.lowers, *result[6:9])


def _compare(union, parent, names):
    long = {
        name: _seen(lambda name=name: union.lookup._find_in_column(parent, name))  # noqa: SLF001
        for name in names
    }
    assert {
        name: _seen(lambda name=name: union.lookup.find(parent, name)) for name in names
    } == long
    return long


@pytest.mark.parametrize("files", [False, True])
@pytest.mark.parametrize("upper", [False, True])
def test_the_short_way_tells_what_the_long_way_does(union, caplog, tmp_path, upper, files):
    shared = {"old": "o", "from": {"x": "1"}, "d": {"other": {"y": "2"}}}
    lowers = [{"d": {}}, shared] if upper else [{"d": {}}, {"d": {}}, shared]
    u = union({"d": {}} if upper else None, *lowers)
    layers = [tmp_path / "upper"] * upper + sorted(tmp_path.glob("lower*"))
    _plant(layers)
    if files:  # whiteouts that are files count in the middle layer then
        _mark(layers[1] / "d", opaque=b"x")
    parent = u.node("d")
    names = [name.encode() for name in COLUMNS]
    unknown = _compare(u.union, parent, names)
    for name in names:  # so that all that can be known is
        if not isinstance(unknown[name], int) and unknown[name]:
            u.union.lookup.node(parent, name)[0].lookups += 1
    assert _compare(u.union, parent, names) == unknown
    if upper:
        shutil.rmtree(layers[0] / "d")  # whiteouts of nothing, and damage
    caplog.clear()


def test_the_short_way_finds_the_copy_of_a_file_with_several_names(union, tmp_path):
    u = union({"d": {}}, {"d": {}}, {"d": {}})
    for layer in sorted(tmp_path.glob("lower*")):
        _linked(layer / "d" / layer.name)
        _write(layer / "d" / f"{layer.name}.single")
        u.change(f"d/{layer.name}", mode=0o600)
    names = os.listdir(tmp_path / "lower0" / "d") + os.listdir(tmp_path / "lower1" / "d")
    parent = u.node("d")
    seen = _compare(u.union, parent, [name.encode() for name in names])
    assert sum(result[2] for result in seen.values()) == 4  # in upper


def test_the_short_way_tells_what_shows_below(union, caplog, tmp_path):
    u = union({"d": {}}, {"d": {}}, {"d": {}}, {"d": {}, "old": "o", "from": {}})
    _plant([tmp_path / f"lower{number}" for number in range(3)])
    _mark(tmp_path / "lower1" / "d", opaque=b"x")
    parent = u.node("d")
    told = {name: u.union.lookup.shows_below(parent, name.encode()) for name in COLUMNS}
    assert told == {
        name: bool(u.union.columns.shown(parent.lowers, name.encode())) for name in COLUMNS
    }
    caplog.clear()


def test_what_was_listed_is_looked_up_as_before(union, tmp_path):
    lowers = [{"d": {"other": {}}}, {"d": {}}, {"d": {}}, {"d": {"other": {"y": "2"}}, "old": "o"}]
    u = union({"d": {}}, *lowers, {"from": {}})
    _plant([tmp_path / f"lower{number}" for number in range(3)])
    parent = u.node("d")
    names = [name.encode() for name in [*COLUMNS, "other", "none"]]
    before = {name: _seen(lambda name=name: u.union.lookup.find(parent, name)) for name in names}
    below = {name: u.union.lookup.shows_below(parent, name) for name in names}
    u.union.listing(parent)
    _compare(u.union, parent, names)
    assert {
        name: _seen(lambda name=name: u.union.lookup.find(parent, name)) for name in names
    } == before
    assert {name: u.union.lookup.shows_below(parent, name) for name in names} == below
