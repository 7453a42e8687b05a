"""What each change leaves on disk: upper's tree, whole, with its markers."""

import errno
import os
import stat

import pytest

from tests.trees import WHITEOUT, Link, Opaque, Same, harvest
from unionfs.changes.changes import Caller
from unionfs.host.syscalls import RENAME_EXCHANGE, RENAME_NOREPLACE

REDIRECT = "trusted.overlay.redirect"


def failing(number, call, *args, **kwargs):
    with pytest.raises(OSError) as raised:  # noqa: PT011 (the errno is compared)
        call(*args, **kwargs)
    assert errno.errorcode[raised.value.errno] == errno.errorcode[number]


@pytest.mark.parametrize(
    ("upper", "lower", "after"),
    [
        ({"f": "u"}, {}, {}),
        ({"f": "u"}, {"f": "l"}, {"f": WHITEOUT}),
        ({}, {"f": "l"}, {"f": WHITEOUT}),
        ({}, {"f": Link("x")}, {"f": WHITEOUT}),
    ],
)
def test_unlink_leaves_a_whiteout_exactly_when_something_lies_below(union, upper, lower, after):
    u = union(upper, lower)
    u.unlink("f")
    assert not u.exists("f")
    assert harvest(u.upper) == after


@pytest.mark.parametrize(
    ("upper", "lower", "after"),
    [
        ({"d": {}}, {}, {}),
        ({"d": {}}, {"d": {}}, {"d": WHITEOUT}),
        ({}, {"d": {}}, {"d": WHITEOUT}),
        ({"d": {"x": WHITEOUT}}, {"d": {"x": "1"}}, {"d": WHITEOUT}),
        ({"d": Opaque()}, {"d": {"x": "1"}}, {"d": WHITEOUT}),
    ],
)
def test_rmdir_removes_a_directory_that_shows_nothing(union, upper, lower, after):
    u = union(upper, lower)
    u.rmdir("d")
    assert not u.exists("d")
    assert harvest(u.upper) == after


def test_a_file_without_a_name_becomes_one_as_others_are(union):
    u = union({}, {"d": {"gone": "old"}})
    u.unlink("d/gone")
    before = set(os.listdir("/proc/self/fd"))
    node, st, fd = u.changes.create_unnamed(u.node("d"), os.O_RDWR, 0o600, Caller(0, 0, 0))
    node.lookups += 1
    assert (st.st_nlink, node.orphan, u.list("d")) == (0, True, [])
    os.write(fd, b"new")
    os.close(fd)
    u.changes.link(node, u.node("d"), b"gone")
    assert (node.orphan, node.pin, node.is_unmarked) == (False, -1, True)
    assert (u.node("d/gone"), node.path) == (node, b"d/gone")
    assert set(os.listdir("/proc/self/fd")) == before
    assert harvest(u.upper) == {"d": {"gone": "new"}}


def test_a_file_that_never_gets_a_name_is_forgotten_without_a_trace(union):
    u = union({"d": {}})
    before = set(os.listdir("/proc/self/fd"))
    node, _, fd = u.changes.create_unnamed(u.node("d"), os.O_RDWR, 0o600, Caller(0, 0, 0))
    os.close(fd)
    u.union.nodes.forget(node.ino, 0)
    assert node.ino not in u.union.nodes
    assert set(os.listdir("/proc/self/fd")) == before


def test_a_file_that_lost_its_name_gets_no_other(union):
    u = union({"f": "text"})
    node = u.node("f")
    u.unlink("f")
    failing(errno.ENOENT, u.changes.link, node, u.union.root, b"g")
    assert harvest(u.upper) == {}


def test_whiteouts_are_names_of_one_device_also_after_a_remount(union):
    names = "abc"
    u = union({}, dict.fromkeys(names, "x"))
    for name in names:
        u.unlink(name)
        u = u.remount()
    devices = [u.work / "unionfs" / "whiteout", *(u.upper / name for name in names)]
    assert len({os.lstat(path).st_ino for path in devices}) == 1


def test_what_is_no_whiteout_is_not_taken_for_one(union):
    u = union({}, {"a": "x"})
    (u.work / "unionfs" / "whiteout").write_text("a file of somebody's")
    u.unlink("a")
    assert harvest(u.upper) == {"a": WHITEOUT}


def test_where_a_whiteout_can_have_no_more_names_a_new_one_is_made(union, monkeypatch):
    u = union({}, {"a": "x", "b": "x"})
    u.unlink("a")

    def fail(*_arguments, **_words):
        raise OSError(errno.EMLINK, "too many links")

    monkeypatch.setattr(os, "link", fail)
    u.unlink("b")
    assert harvest(u.upper) == {"a": WHITEOUT, "b": WHITEOUT}


def test_a_directory_that_was_listed_empty_is_looked_into_again_when_that_may_have_changed(union):
    u = union({}, {"d": {"f": "x"}})
    u.unlink("d/f")
    assert u.list("d") == []
    u.create("d/new", "x")
    failing(errno.ENOTEMPTY, u.rmdir, "d")
    u.unlink("d/new")
    assert u.list("d") == []
    u.rmdir("d")
    assert harvest(u.upper) == {"d": WHITEOUT}


@pytest.mark.parametrize(
    ("verb", "args", "number"),
    [
        ("rmdir", ["d"], errno.ENOTEMPTY),
        ("rmdir", ["f"], errno.ENOTDIR),
        ("unlink", ["d"], errno.EISDIR),
        ("unlink", ["none"], errno.ENOENT),
        ("mkdir", ["f"], errno.EEXIST),
        ("create", ["d"], errno.EEXIST),
        ("symlink", ["f", "x"], errno.EEXIST),
        ("link", ["f", "d"], errno.EEXIST),
        ("mknod", ["new", stat.S_IFCHR, 0], errno.EPERM),
        ("rename", ["f", "d"], errno.EISDIR),
        ("rename", ["d", "f"], errno.ENOTDIR),
        ("rename", ["e", "d"], errno.ENOTEMPTY),
        ("rename", ["none", "f"], errno.ENOENT),
        ("rename", ["f", "g", RENAME_NOREPLACE], errno.EEXIST),
        ("rename", ["f", "none", RENAME_EXCHANGE], errno.ENOENT),
        ("rename", ["f", "g", 4], errno.EINVAL),
    ],
)
def test_what_posix_refuses_changes_nothing(union, verb, args, number):
    u = union({}, {"d": {"x": ""}, "e": {}, "f": "f", "g": "g"})
    failing(number, getattr(u, verb), *args)
    assert harvest(u.upper) in ({}, {"d": {}})
    assert u.tree() == {"d": {"x": ""}, "e": {}, "f": "f", "g": "g"}


@pytest.mark.parametrize(
    ("verb", "args"),
    [
        ("unlink", ["f"]),
        ("create", ["n"]),
        ("mkdir", ["n"]),
        ("change", ["f"]),
        ("rename", ["f", "n"]),
        ("link", ["f", "n"]),
        ("open_to_write", ["f"]),
    ],
)
def test_without_an_upper_every_change_is_erofs(union, verb, args):
    failing(errno.EROFS, getattr(union(None, {"f": "x"}), verb), *args)


def test_a_directory_made_over_a_deleted_one_is_opaque(union):
    u = union({}, {"d": {"x": "1"}})
    u.unlink("d/x")
    u.rmdir("d")
    u.mkdir("d")
    assert u.tree() == {"d": {}}
    assert harvest(u.upper) == {"d": Opaque()}


def test_a_file_made_over_a_deleted_one_replaces_the_whiteout(union):
    u = union({}, {"f": "old"})
    u.unlink("f")
    u.create("f", "new", mode=0o640)
    assert harvest(u.upper) == {"f": "new"}
    assert u.stat("f").st_mode & 0o777 == 0o640


def test_new_objects_belong_to_the_caller_and_get_its_umask(union):
    u = union({}, {"gone": "", "d": {}})
    u.unlink("gone")
    caller = Caller(1000, 1001, 0o027)
    u.create("gone", mode=0o666, caller=caller)
    u.create("d/new", mode=0o666, caller=caller)
    u.mkdir("dir", mode=0o777, caller=caller)
    found = [(u.stat(p).st_uid, u.stat(p).st_gid, u.stat(p).st_mode & 0o777)
             for p in ("gone", "d/new", "dir")]  # fmt: skip
    assert found == [(1000, 1001, 0o640), (1000, 1001, 0o640), (1000, 1001, 0o750)]


def test_set_gid_directories_pass_their_group_on_even_over_a_whiteout(union):
    u = union({}, {"d": {"x": "", "y": {}}})
    u.change("d", uid=0, gid=777)
    u.change("d", mode=0o2775)
    u.unlink("d/x")
    u.rmdir("d/y")
    caller = Caller(1000, 1000, 0)
    u.create("d/x", caller=caller)
    u.mkdir("d/y", caller=caller)
    assert (u.stat("d/x").st_gid, u.stat("d/y").st_gid) == (777, 777)
    assert u.stat("d/y").st_mode & stat.S_ISGID


# Renames of files

FILES = {"upper": ({"f": "u"}, {}), "lower": ({}, {"f": "l"}), "both": ({"f": "u"}, {"f": "l"})}
TARGETS = {
    "nothing": ({}, {}),
    "upper": ({"t": "old"}, {}),
    "lower": ({}, {"t": "old"}),
    "both": ({"t": "old"}, {"t": "older"}),
    "whiteout": ({"t": WHITEOUT}, {"t": "hidden"}),
}


@pytest.mark.parametrize("source", FILES)
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("metacopy", [True, False])
def test_a_file_is_renamed_onto_anything(union, source, target, metacopy):
    upper = {**FILES[source][0], **TARGETS[target][0]}
    lower = {**FILES[source][1], **TARGETS[target][1]}
    u = union(upper, lower, metacopy=metacopy, redirect_dir=metacopy)
    text = u.read("f")
    ino = u.node("f").ino
    u.rename("f", "t")
    assert u.tree() == {"t": text}
    assert u.node("t").ino == ino
    assert u.remount().tree() == {"t": text}
    expected = {"f": WHITEOUT} if source != "upper" else {}
    assert set(harvest(u.upper)) == {"t", *expected}


DIRS = {
    "upper": ({"d": {"a": "u"}}, {}),
    "lower": ({}, {"d": {"b": "l"}}),
    "merged": ({"d": {"a": "u"}}, {"d": {"b": "l", "a": "under"}}),
    "opaque": ({"d": Opaque({"a": "u"})}, {"d": {"b": "l"}}),
}
DIR_TARGETS = {
    "nothing": ({}, {}),
    "upper": ({"t": {}}, {}),
    "lower": ({}, {"t": {}}),
    "emptied": ({"t": {"x": WHITEOUT}}, {"t": {"x": "hidden"}}),
    "whiteout": ({"t": WHITEOUT}, {"t": {"x": "hidden"}}),
    "whiteout of a file": ({"t": WHITEOUT}, {"t": "hidden"}),
}


@pytest.mark.parametrize("source", DIRS)
@pytest.mark.parametrize("target", DIR_TARGETS)
@pytest.mark.parametrize("redirect", [True, False])
@pytest.mark.parametrize("new", ["t", "sub/t"])
def test_a_directory_is_renamed_onto_anything(union, source, target, redirect, new):
    upper, lower = {**DIRS[source][0]}, {**DIRS[source][1]}
    (upper if new == "t" else upper.setdefault("sub", {})).update(DIR_TARGETS[target][0])
    (lower if new == "t" else lower.setdefault("sub", {})).update(DIR_TARGETS[target][1])
    u = union(upper, lower, redirect_dir=redirect, metacopy=redirect)
    content = u.tree("d")
    ino = u.node("d").ino
    u.rename("d", new)
    assert u.tree(new) == content
    assert not u.exists("d")
    assert u.node(new).ino == ino
    again = u.remount()
    assert again.tree(new) == content
    assert not again.exists("d")
    if not redirect:
        assert not any(REDIRECT in os.listxattr(path) for path in u.upper.rglob("*"))


def test_a_renamed_lower_directory_is_not_read(union):
    u = union({}, {"d": {str(n): "x" for n in range(50)}})
    u.rename("d", "e")
    assert harvest(u.upper) == {"d": WHITEOUT, "e": {}}
    assert os.getxattr(u.upper / "e", REDIRECT) == b"d"
    assert len(u.list("e")) == 50


def test_directories_renamed_many_times_find_their_lower_parts_again(union):
    u = union({}, {"a": {"b": {"c": {"f": "1"}}}, "z": {}})
    u.rename("a/b", "z/b")
    u.rename("z/b/c", "z/b/cc")
    u.rename("z", "y")
    u.rename("y/b", "b")
    u.rename("b/cc", "cc")
    u.rename("cc/f", "f")
    assert u.tree() == {"a": {}, "b": {}, "cc": {}, "f": "1", "y": {}}
    assert u.remount().tree() == {"a": {}, "b": {}, "cc": {}, "f": "1", "y": {}}


@pytest.mark.parametrize("one", [{"x": "1"}, {"x": {"a": "1"}}])
@pytest.mark.parametrize("two", [{"y": "2"}, {"y": {"b": "2"}}])
@pytest.mark.parametrize("side", ["lower", "upper", "mixed"])
def test_two_names_are_exchanged(union, one, two, side):
    layers = {
        "lower": ({}, {**one, **two}),
        "upper": ({**one, **two}, {}),
        "mixed": (one, two),
    }[side]
    u = union(*layers)
    before = u.tree()
    inos = u.node("x").ino, u.node("y").ino
    u.rename("x", "y", RENAME_EXCHANGE)
    expected = {"x": before["y"], "y": before["x"]}
    assert u.tree() == expected
    assert (u.node("y").ino, u.node("x").ino) == inos
    assert u.remount().tree() == expected


def test_onto_a_link_of_itself_nothing_happens(union):
    u = union({}, {"f": "1", "g": Same("f")})
    u.rename("f", "g")
    assert u.tree() == {"f": "1", "g": "1"}


# Hard links


def test_links_inside_a_lower_stay_links_after_a_change(union):
    u = union({}, {"f": "old", "d": {"g": Same("f")}})
    u.append("f", "+new")
    assert u.tree() == {"d": {"g": "old+new"}, "f": "old+new"}
    assert (u.links("f"), u.links("d/g")) == (2, 2)
    assert u.remount().tree() == {"d": {"g": "old+new"}, "f": "old+new"}
    u.append("d/g", "!")
    assert u.read("f") == "old+new!"


def test_link_counts_follow_every_change_of_names(union):
    u = union({}, {"f": "x", "g": Same("f"), "h": Same("f")})
    assert u.links("f") == 3
    u.unlink("g")
    assert u.links("f") == 2
    u.link("h", "new")
    assert u.links("f") == 3
    u.rename("h", "moved")
    assert u.links("moved") == 3
    assert u.remount().links("f") == 3
    for name in ("f", "moved", "new"):
        u.unlink(name)
    assert u.tree() == {}
    assert os.listdir(u.work / "unionfs" / "links") == []


def test_link_of_a_lower_file_makes_one_file_of_two_names(union):
    u = union({}, {"f": "x", "gone": ""})
    u.unlink("gone")
    u.link("f", "g")
    u.link("f", "gone")
    assert u.links("f") == 3
    u.append("g", "y")
    assert u.tree() == {"f": "xy", "g": "xy", "gone": "xy"}
    assert u.node("f") is u.node("gone")


def test_aufs_markers_are_written_in_place_of_whiteouts(union):
    lower = {"f": "1", "d": {"x": "1"}, "r": "1"}
    u = union({}, lower, whiteout="aufs", redirect_dir=False, metacopy=False)
    u.unlink("f")
    u.unlink("d/x")
    u.rmdir("d")
    u.mkdir("d")
    u.rename("r", "n")
    assert u.tree() == {"d": {}, "n": "1"}
    upper = harvest(u.upper)
    assert upper == {".wh.f": "", ".wh.r": "", "d": {".wh..wh..opq": ""}, "n": "1"}
    u.create("f", "2")
    assert u.remount().tree() == {"d": {}, "f": "2", "n": "1"}
