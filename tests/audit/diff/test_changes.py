"""What `diff` says of literal trees: upper and lowers in, lines out."""

import errno
import os
import stat
import subprocess

import pytest

from tests.trees import WHITEOUT, File, Link, Opaque, Same, plant
from unionfs.audit.comparison import changes
from unionfs.layers.layer import Layer, WritableLayer
from unionfs.layers.stack import Stack

REDIRECT = "trusted.overlay.redirect"
METACOPY = "trusted.overlay.metacopy"
OPAQUE = "trusted.overlay.opaque"


@pytest.fixture(autouse=True)
def _same_directory():
    cwd = os.getcwd()
    yield
    os.chdir(cwd)


def at(mtime, root):
    for directory, _, files in os.walk(root):
        for name in files:
            os.utime(os.path.join(directory, name), (mtime, mtime), follow_symlinks=False)


def opened(path):
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY)


def lines(tmp_path, upper, *lowers, marks=None, whiteout="overlay"):
    """Return what `changes` yields, as lines; *marks* are attributes in upper by path."""
    top = plant(tmp_path / "upper", upper)
    layers = []
    for index, tree in enumerate(lowers):
        path = plant(tmp_path / f"lower{index}", tree)
        at(1000, path)
        layers.append(Layer(opened(path), number=len(lowers) - index, name=str(path)))
    at(1000, top)
    for path, attributes in (marks or {}).items():
        for name, value in attributes.items():
            os.setxattr(top / path, name, value, follow_symlinks=False)
    stack = Stack(WritableLayer(opened(top), name="upper"), None, tuple(layers))
    try:
        return [
            f"{change.kind} {os.fsdecode(change.path)}" + detail(change)
            for change in changes(stack, whiteout)
        ]
    finally:
        stack.close()


def detail(change):
    return f": {change.detail}" if change.detail else ""


LOWER = {"f": "old", "d": {"a": "1", "b": "2", "s": {"x": ""}}, "l": Link("there")}


@pytest.mark.parametrize(
    ("upper", "expected"),
    [
        ({}, []),
        ({"n": "new"}, ["added n"]),
        ({"n": {"m": "new"}}, ["added n", "added n/m"]),
        ({"f": "new"}, ["changed f: content"]),
        ({"f": "longer"}, ["changed f: content"]),
        ({"f": "old"}, []),
        ({"f": File("old", mode=0o600)}, ["changed f: mode 0644 -> 0600"]),
        ({"f": File("old", xattrs=(("user.a", b"1"),))}, ["changed f: attributes user.a"]),
        (
            {"f": File("new", mode=0o755, xattrs=(("trusted.a", b"1"),))},
            ["changed f: content, mode 0644 -> 0755, attributes trusted.a"],
        ),
        ({"f": {"in": ""}}, ["changed f: file -> directory", "added f/in"]),
        ({"d": "file"}, ["changed d: directory -> file"]),
        ({"l": Link("there")}, []),
        ({"l": Link("elsewhere")}, ["changed l: target"]),
        ({"f": WHITEOUT}, ["deleted f"]),
        ({"d": WHITEOUT}, ["deleted d"]),
        ({"no": WHITEOUT}, []),
        ({"d": {}}, []),
        ({"d": {"a": WHITEOUT}}, ["deleted d/a"]),
        ({"d": {"n": "", "a": "1"}}, ["added d/n"]),
        ({"d": Opaque()}, ["deleted d/a", "deleted d/b", "deleted d/s"]),
        (
            {"d": Opaque({"a": "1", "b": "3", "s": {"y": ""}})},
            ["changed d/b: content", "deleted d/s/x", "added d/s/y"],
        ),
        ({"n": {"w": WHITEOUT}}, ["added n"]),
        ({"one": "1", "two": Same("one")}, ["added one", "added two"]),
    ],
)
def test_every_kind_of_change_is_one_line(tmp_path, upper, expected):
    assert lines(tmp_path, upper, LOWER) == expected


def test_what_a_lower_hides_was_not_there_before(tmp_path):
    lowers = {"d": Opaque({"a": "1"}), "w": WHITEOUT}, {"d": {"b": "2"}, "w": "w"}
    upper = {"d": {"b": "2"}, "w": "w"}
    assert lines(tmp_path, upper, *lowers) == ["added d/b", "added w"]


def test_touching_a_file_is_a_change_of_its_time_but_of_no_directory(tmp_path):
    plant(tmp_path / "lower0", {"d": {"f": ""}})
    top = plant(tmp_path / "upper", {"d": {"f": ""}})
    at(1000, tmp_path / "lower0")
    at(2000, top)
    os.utime(top / "d", (3, 3))
    stack = Stack(
        WritableLayer(opened(top), name="upper"),
        None,
        (Layer(opened(tmp_path / "lower0"), number=1, name="lower0"),),
    )
    assert [(change.path, change.detail) for change in changes(stack)] == [(b"d/f", "mtime")]
    stack.close()


def test_owner_and_device_number_are_compared(tmp_path):
    plant(tmp_path / "lower0", {"f": "x"})
    top = plant(tmp_path / "upper", {"f": "x"})
    os.mknod(tmp_path / "lower0" / "null", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    os.mknod(top / "null", stat.S_IFCHR | 0o600, os.makedev(1, 5))
    os.chown(top / "f", 1, 2)
    assert lines(tmp_path, {}, {}) == [
        "changed f: owner 0:0 -> 1:2",
        "changed null: device number",
    ]


def test_flags_are_compared_and_those_that_protect_are_marks_in_upper(tmp_path):
    marks = {"f": {"trusted.overlay.protattr": b"ai"}, "n": {"trusted.overlay.protattr": b"i"}}
    lower, upper = {"f": "old", "d": {"a": "1"}}, {"f": "old", "d": {}, "n": ""}
    plant(tmp_path / "upper", upper)
    subprocess.run(["chattr", "+A", tmp_path / "upper" / "d"], check=True)
    plant(tmp_path / "lower0", lower)
    subprocess.run(["chattr", "+dA", tmp_path / "lower0" / "f"], check=True)
    assert lines(tmp_path, upper, lower, marks=marks) == [
        "changed d: flags +A",
        "changed f: flags +ia -dA",
        "added n",
    ]


def test_metadata_only_copies_are_not_read(tmp_path):
    upper = {"f": File("\0\0\0", mode=0o600)}
    marks = {"f": {METACOPY: b"", REDIRECT: b"/f"}}
    assert lines(tmp_path, upper, LOWER, marks=marks) == ["changed f: mode 0644 -> 0600"]


def test_a_renamed_directory_says_where_it_was_and_what_changed_in_it(tmp_path):
    upper = {"d": WHITEOUT, "e": {"a": WHITEOUT, "b": "3", "c": ""}}
    assert lines(tmp_path, upper, LOWER, marks={"e": {REDIRECT: b"/d"}}) == [
        "deleted d: renamed to /e",
        "added e: renamed from /d",
        "deleted e/a",
        "changed e/b: content",
        "added e/c",
    ]


def test_a_redirect_within_a_renamed_directory_is_found(tmp_path):
    upper = {"d": WHITEOUT, "e": {"s": WHITEOUT, "t": {}}}
    marks = {"e": {REDIRECT: b"d"}, "e/t": {REDIRECT: b"s"}}
    assert lines(tmp_path, upper, LOWER, marks=marks) == [
        "deleted d: renamed to /e",
        "added e: renamed from /d",
        "deleted e/s: renamed to /e/t",
        "added e/t: renamed from /d/s",
    ]


def test_two_exchanged_directories_are_both_renamed(tmp_path):
    marks = {"a": {REDIRECT: b"b"}, "b": {REDIRECT: b"a"}}
    lower = {"a": {"1": ""}, "b": {"2": ""}}
    assert lines(tmp_path, {"a": {}, "b": {}}, lower, marks=marks) == [
        "changed a: renamed from /b",
        "changed b: renamed from /a",
    ]


def test_a_renamed_file_and_a_linked_one(tmp_path):
    lower = {"a": "1", "b": "2"}
    upper = {"a": WHITEOUT, "c": "\0", "d": "\0"}
    marks = {"c": {METACOPY: b"", REDIRECT: b"/a"}, "d": {METACOPY: b"", REDIRECT: b"/b"}}
    assert lines(tmp_path, upper, lower, marks=marks) == [
        "deleted a: renamed to /c",
        "added c: renamed from /a",
        "added d: linked to /b",
    ]


def test_what_is_damaged_is_said_and_the_rest_compared(tmp_path, caplog):
    upper = {"d": {"a": "new"}, "n": ""}
    assert lines(tmp_path, upper, LOWER, marks={"d": {REDIRECT: b"../x"}}) == [
        "changed d: damaged: see unionfs check",
        "added n",
    ]
    assert "illegal redirect" in caplog.text


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.ENOTCONN])
def test_what_a_lower_does_not_give_is_no_damage_of_ours(tmp_path, monkeypatch, number):
    def fail(layer, path, flags):
        if layer.name.endswith("lower0") and path == b"d/a":
            raise OSError(number, os.strerror(number))
        return opening(layer, path, flags)

    opening = Layer.open
    monkeypatch.setattr(Layer, "open", fail)
    upper = {"d": {"a": "x"}, "n": ""}
    assert lines(tmp_path, upper, LOWER) == [f"changed d/a: {os.strerror(number)}", "added n"]


def test_names_of_aufs_are_read_when_asked_for(tmp_path):
    upper = {".wh.f": "", "d": {".wh..wh..opq": "", "a": "1"}, ".wh.no": "", "n": ""}
    assert lines(tmp_path, upper, LOWER, whiteout="aufs") == [
        "deleted d/b",
        "deleted d/s",
        "deleted f",
        "added n",
    ]


def test_whiteouts_that_are_files_count_in_lowers_only(tmp_path):
    hiding = {"d": {"a": File("", xattrs=(("trusted.overlay.whiteout", b"y"),))}}
    plant(tmp_path / "lower0", hiding)
    os.setxattr(tmp_path / "lower0" / "d", OPAQUE, b"x")
    upper = {"d": {"a": ""}}
    assert lines(tmp_path, upper, hiding, LOWER, marks={"d": {OPAQUE: b"x"}}) == ["added d/a"]


def test_the_root_itself_can_be_changed(tmp_path):
    plant(tmp_path / "upper", {}).chmod(0o700)
    plant(tmp_path / "lower0", {}).chmod(0o755)
    assert lines(tmp_path, {}, {}) == ["changed : mode 0755 -> 0700"]


def test_a_tree_deeper_than_the_recursion_limit(tmp_path):
    lower = plant(tmp_path / "lower0", {})
    upper = plant(tmp_path / "upper", {})
    os.chdir(upper)
    for _ in range(1500):
        os.mkdir("d")
        os.chdir("d")
    layers = (Layer(opened(lower), number=1, name="lower0"),)
    stack = Stack(WritableLayer(opened(upper), name="upper"), None, layers)
    try:
        assert len(list(changes(stack))) == 1500
    finally:
        stack.close()
        subprocess.run(["rm", "-rf", upper], check=True)
