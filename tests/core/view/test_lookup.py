"""Which objects show through, and as what."""

import errno
import os

import pytest

from tests.trees import WHITEOUT, File, Link, Opaque, Same

REDIRECT = "trusted.overlay.redirect"


@pytest.mark.parametrize(
    ("upper", "lowers", "shown"),
    [
        ({"f": "u"}, [{"f": "l"}], {"f": "u"}),
        ({}, [{"f": "1"}, {"f": "2"}], {"f": "1"}),
        ({"f": WHITEOUT}, [{"f": "l"}], {}),
        ({}, [{"f": WHITEOUT}, {"f": "2"}], {}),
        ({"d": {"a": "u"}}, [{"d": {"b": "l"}}], {"d": {"a": "u", "b": "l"}}),
        ({"d": Opaque({"a": "u"})}, [{"d": {"b": "l"}}], {"d": {"a": "u"}}),
        ({"d": {}}, [{"d": Opaque({"b": "1"})}, {"d": {"c": "2"}}], {"d": {"b": "1"}}),
        ({"d": "file"}, [{"d": {"b": "l"}}], {"d": "file"}),
        ({"d": {}}, [{"d": "file"}, {"d": {"b": "2"}}], {"d": {}}),
        ({}, [{"s": Link("f"), "f": "x"}], {"s": "-> f", "f": "x"}),
        (None, [{"a": "1"}, {"b": "2"}], {"a": "1", "b": "2"}),
    ],
)
def test_the_union_shows_what_the_layers_say(union, upper, lowers, shown):
    assert union(upper, *lowers).tree() == shown


def test_a_redirect_merges_a_directory_with_the_lower_one_it_names(union):
    u = union({"new": {}}, {"old": {"x": "1"}, "new": {"y": "2"}})
    os.setxattr(u.upper / "new", REDIRECT, b"/old")
    assert u.tree("new") == {"x": "1"}


def test_a_redirect_of_a_middle_layer_changes_the_path_below_it(union, tmp_path):
    u = union({}, {"a": {"1": "m"}}, {"b": {"2": "l"}, "c": {"b": {"3": "l"}}})
    os.setxattr(tmp_path / "lower0" / "a", REDIRECT, b"b")
    assert u.tree("a") == {"1": "m", "2": "l"}
    os.setxattr(tmp_path / "lower0" / "a", REDIRECT, b"/c/b")
    assert u.remount().tree("a") == {"1": "m", "3": "l"}


@pytest.mark.parametrize("redirect", [b"", b"/", b"..", b"a/b", b"/a/../b", b"/a//b", b"/a/."])
def test_an_illegal_redirect_is_eio_and_named_in_the_log(union, caplog, redirect):
    u = union({"d": {}, "f": "fine"}, {"a": {"b": {}}})
    os.setxattr(u.upper / "d", REDIRECT, redirect)
    with pytest.raises(OSError) as raised:  # noqa: PT011 (the errno is compared)
        u.tree("d")
    assert raised.value.errno == errno.EIO
    assert "upper: d: illegal redirect" in caplog.text
    assert u.read("f") == "fine"
    os.removexattr(u.upper / "d", REDIRECT)


def test_a_metadata_copy_without_content_below_is_eio(union, caplog):
    u = union({"f": ""}, {})
    os.setxattr(u.upper / "f", "trusted.overlay.metacopy", b"")
    with pytest.raises(OSError) as raised:  # noqa: PT011 (the errno is compared)
        u.stat("f")
    assert raised.value.errno == errno.EIO
    assert "upper: f: " in caplog.text


def test_whiteouts_that_are_files_count_only_in_a_directory_marked_so(union, tmp_path):
    lowers = {"d": {"a": "", "b": ""}, "e": {"a": ""}}, {"d": {"a": "2"}, "e": {"a": "2"}}
    u = union({}, *lowers)
    for path in ("d/a", "e/a"):
        os.setxattr(tmp_path / "lower0" / path, "trusted.overlay.whiteout", b"y")
    os.setxattr(tmp_path / "lower0" / "d", "trusted.overlay.opaque", b"x")
    assert u.tree() == {"d": {"b": ""}, "e": {"a": ""}}


def test_names_longer_than_255_bytes_are_enametoolong(union):
    u = union({}, {})
    with pytest.raises(OSError) as raised:  # noqa: PT011 (the errno is compared)
        u.union.lookup.find(u.union.root, b"x" * 256)
    assert raised.value.errno == errno.ENAMETOOLONG


def test_numbers_are_stable_over_copy_up_and_a_new_mount(union):
    u = union({"u": "x"}, {"d": {"f": "1", "g": Same("d/f")}, "f": "2", "s": Link("f")})
    names = ["u", "d", "d/f", "d/g", "f", "s"]
    before = {name: u.node(name).ino for name in names}
    assert before["d/f"] == before["d/g"]
    u.change("d", mode=0o700)
    u.append("d/f", "more")
    u.change("s", uid=1, gid=1)
    u.rename("f", "d/moved")
    before["d/moved"] = before.pop("f")
    assert {name: u.node(name).ino for name in before} == before
    again = u.remount()
    assert {name: again.node(name).ino for name in before} == before


def test_two_upper_files_with_one_remembered_number_get_different_ones(union):
    u = union({"a": "1", "b": "2"}, {})
    for name in "ab":
        os.setxattr(u.upper / name, "trusted.overlay.unionfs.ino", b"123456")
    assert u.node("a").ino != u.node("b").ino
    assert u.node("b").ino == u.node("b").ino


def test_marks_of_users_are_kept_escaped_and_shown_as_given(union):
    u = union({"f": "x"}, {})
    u.attributes.set(u.node("f"), b"trusted.overlay.opaque", b"mine")
    stored = os.getxattr(u.upper / "f", "trusted.overlay.overlay.opaque")
    assert stored == b"mine"
    assert u.attributes.names(u.node("f")) == [b"trusted.overlay.opaque"]
    assert u.attributes.get(u.node("f"), b"trusted.overlay.opaque") == b"mine"


def test_aufs_names_hide_and_are_not_shown(union):
    lower0 = {".wh.a": "", "d": {".wh..wh..opq": "", "n": "1"}, ".wh.e": "", "e": {"new": "1"}}
    lower1 = {"a": "2", "b": "2", "d": {"o": "2"}, "e": {"old": "2"}}
    u = union({}, lower0, lower1, whiteout="aufs")
    assert u.tree() == {"b": "2", "d": {"n": "1"}, "e": {"new": "1"}}


def test_a_file_keeps_its_mode_and_attributes_through_a_copy_up(union):
    u = union({}, {"f": File("text", 0o640, (("user.a", b"1"), ("trusted.b", b"2")))})
    u.append("f", "!")
    node = u.node("f")
    assert u.stat("f").st_mode & 0o7777 == 0o640
    assert {name: u.attributes.get(node, name) for name in u.attributes.names(node)} == {
        b"user.a": b"1",
        b"trusted.b": b"2",
    }
