"""A rename that needs no preparing does what one with it does; and what becomes of directories."""

import errno

import pytest

from tests.trees import WHITEOUT, Link, Opaque, Same, harvest
from unionfs.changes import renames
from unionfs.host import syscalls
from unionfs.layers import markers

NOREPLACE, EXCHANGE = syscalls.RENAME_NOREPLACE, syscalls.RENAME_EXCHANGE

LOWER = {"l": "low", "m": {"l": "low", "k": Same("l")}}

# What upper holds over `LOWER`, old and new name, flags; and what it holds then, or the error.
RENAMES = [
    ({"a": "1"}, "a", "b", 0, {"b": "1"}),
    ({"a": "1", "b": "2"}, "a", "b", 0, {"b": "1"}),
    ({"a": "1", "d": {}}, "a", "d/a", 0, {"d": {"a": "1"}}),
    ({"a": Link("x"), "b": "2"}, "a", "b", 0, {"b": Link("x")}),
    ({"a": "1", "b": Link("x")}, "a", "b", 0, {"b": "1"}),
    ({"a": "1"}, "a", "a", 0, {"a": "1"}),
    ({"a": "1", "b": Same("a")}, "a", "b", 0, {"a": "1", "b": "1"}),
    ({"a": "1", "b": Same("a"), "c": "2"}, "b", "c", 0, {"a": "1", "c": "1"}),
    ({"a": "1", "b": "2", "c": Same("b")}, "a", "b", 0, {"b": "1", "c": "2"}),
    ({"a": "1"}, "a", "b", NOREPLACE, {"b": "1"}),
    ({"a": "1", "b": "2"}, "a", "b", NOREPLACE, errno.EEXIST),
    ({"a": "1", "b": {}}, "a", "b", 0, errno.EISDIR),
    ({"a": {}, "b": "2"}, "a", "b", 0, errno.ENOTDIR),
    ({"b": "2"}, "a", "b", 0, errno.ENOENT),
    ({"a": "1"}, "a", "x" * 256, 0, errno.ENAMETOOLONG),
    ({"a": "1"}, "a", "l", 0, {"l": "1"}),
    ({"l": "1"}, "l", "b", 0, {"l": WHITEOUT, "b": "1"}),
    ({"l": "1", "b": "2"}, "l", "b", 0, {"l": WHITEOUT, "b": "1"}),
    ({"l": WHITEOUT, "a": "1"}, "a", "l", 0, {"l": "1"}),
    ({"l": WHITEOUT, "a": "1"}, "a", "l", NOREPLACE, {"l": "1"}),
    ({"a": "1"}, "a", "m", 0, errno.EISDIR),
    ({"a": "1"}, "a", "m/a", 0, {"m": {"a": "1"}}),
    ({"a": "1", "m": {}}, "a", "m/l", 0, {"m": {"l": "1"}}),
    ({"l": "1", "m": {"l": "2"}}, "l", "m/l", 0, {"l": WHITEOUT, "m": {"l": "1"}}),
]


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("way", ["short", "long"])
@pytest.mark.parametrize(("upper", "old", "new", "flags", "after"), RENAMES)
def test_both_ways(union, monkeypatch, upper, old, new, flags, after, way, known):  # noqa: PLR0917
    if way == "long":
        monkeypatch.setattr(renames, "_is_in_upper", lambda _: False)
    u = union(upper, LOWER)
    before = harvest(u.upper)
    shown = {name for name in upper if upper[name] is not WHITEOUT}
    nodes = [u.node(name) if known and name in shown else None for name in (old, new)]
    if isinstance(after, int):
        with pytest.raises(OSError) as raised:  # noqa: PT011 (the errno is compared)
            u.rename(old, new, flags)
        assert (raised.value.errno, harvest(u.upper)) == (after, before)
        return
    inode = u.stat(old).st_ino
    u.rename(old, new, flags)
    assert harvest(u.upper) == after
    assert u.stat(new).st_ino == inode
    if nodes[0]:
        assert u.node(new) is nodes[0]
        assert u.union.attributes(nodes[0]).st_ino == inode
    if nodes[1] and nodes[1] is not nodes[0]:  # what was replaced is still read
        names = sum(text == "2" for text in after.values())
        assert u.union.shown(nodes[1], u.union.attributes(nodes[1]))[0] == names


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize(("flags", "after"), [(0, {"b": "1"}), (EXCHANGE, {"a": "2", "b": "1"})])
def test_two_files_with_one_number_are_not_one_file(union, flags, after, known):
    """A copy keeps its number, which the host may give to a new file by and by."""
    u = union({"a": "1", "b": "2"})
    markers.set_origin(u.union.upper.layer, b"b", u.stat("a").st_ino)
    assert u.union.lookup.find(u.union.root, b"b").ino == u.stat("a").st_ino
    if known:
        u.tree()
    u.rename("a", "b", flags)
    assert u.tree() == after
    assert harvest(u.upper) == after


@pytest.mark.parametrize("way", ["short", "long"])
def test_a_failed_rename_leaves_all_as_it_was(union, monkeypatch, way):
    if way == "long":
        monkeypatch.setattr(renames, "_is_in_upper", lambda _: False)
    u = union({"a": "1", "b": "2"})
    nodes = [u.node("a"), u.node("b")]

    def fail(*_args, **_options):
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as patch:
        patch.setattr(type(u.union.upper.layer), "move", fail)
        with pytest.raises(OSError, match="no space"):
            u.rename("a", "b")
    assert [u.node("a"), u.node("b")] == nodes
    assert [node.pin for node in nodes] == [-1, -1]
    assert u.tree() == {"a": "1", "b": "2"}


@pytest.mark.parametrize(
    ("upper", "old", "new", "after"),
    [
        ({"a": {"f": "1"}}, "a", "b", {"b": {"f": "1"}}),
        ({"a": {"f": "1"}, "m": WHITEOUT}, "a", "m", {"m": Opaque({"f": "1"})}),
        ({"a": {"f": "1"}, "l": WHITEOUT}, "a", "l", {"l": Opaque({"f": "1"})}),
        (
            {"a": {"f": "1"}, "m": {"l": WHITEOUT, "k": WHITEOUT}},
            "a",
            "m",
            {"m": Opaque({"f": "1"})},
        ),
        ({"a": {"f": "1"}, "b": {}}, "a", "b", {"b": {"f": "1"}}),
        ({"l": WHITEOUT}, "m", "l", {"l": {}, "m": WHITEOUT}),  # with a redirect
        ({"a": {"f": "1"}, "b": {"g": ""}}, "a", "b", errno.ENOTEMPTY),
        ({"a": {"f": "1"}, "m": {"k": WHITEOUT}}, "a", "m", errno.ENOTEMPTY),
    ],
)
def test_a_directory_is_opaque_exactly_where_others_would_show_in_it(union, upper, old, new, after):
    u = union(upper, LOWER)
    before, shown = u.tree(), u.tree(old)
    if isinstance(after, int):
        with pytest.raises(OSError) as raised:  # noqa: PT011 (the errno is compared)
            u.rename(old, new)
        assert (raised.value.errno, u.tree()) == (after, before)
        return
    u.rename(old, new)
    assert harvest(u.upper) == after
    assert u.remount().tree(new) == shown
