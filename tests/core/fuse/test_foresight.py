"""What is made ready is what would have been found, or it is not used."""

import errno
import os

import pytest

from tests.trees import Same
from unionfs.changes.changes import ROOT
from unionfs.fuse.foresight import Foresight
from unionfs.view.listings import Listings

TREE = {
    "a": {"f": "1", "g": "22", "sub": {"deep": "x"}},
    "b": {"h": "333"},
    "c": {},
}


class Eye:
    """A foresight, used as the handlers use it."""

    def __init__(self, driver):
        self.driver = driver
        self.listings = Listings(driver.union)
        nodes = driver.union.nodes
        self.foresight = Foresight(driver.union, self.listings, nodes.forget)

    def prepare(self):
        """Let it do all that it has to do; return in how many steps."""
        steps = 0
        while self.foresight.step():
            steps += 1
        return steps

    def list(self, node):
        """List a directory as READDIRPLUS does; return what is shown, and whether it was ready."""
        ready = self.foresight.listing(node)
        entries = list(self.listings.read(node, 0) if ready is None else ready)
        for _, found, st, _ in entries:
            found.lookups += st is not None
        self.foresight.listed(node, entries)
        shown = [(name, found.ino, st and st.st_size, after) for name, found, st, after in entries]
        return shown, ready is not None


@pytest.fixture
def eye(union):
    return Eye(union({}, TREE))


def listed_plainly(driver, node):
    found = []
    for name, child, st, after in Listings(driver.union).read(node, 0):
        child.lookups += st is not None
        found.append((name, child.ino, st and st.st_size, after))
    return found


def test_who_walks_finds_the_next_directory_ready(eye):
    union = eye.driver.union
    found, ready = eye.list(union.root)
    assert not ready
    order = [name for name, *_ in found[2:]]
    for name in order:
        eye.prepare()
        node = eye.driver.node(os.fsdecode(name))
        plain = listed_plainly(eye.driver, node)
        assert eye.list(node) == (plain, True)
        if name == b"a":  # its directories come first now
            eye.prepare()
            sub = eye.driver.node("a/sub")
            assert eye.list(sub) == (listed_plainly(eye.driver, sub), True)


def test_what_is_half_ready_is_completed(eye):
    eye.list(eye.driver.union.root)
    first = eye.foresight._next[-1]  # noqa: SLF001
    eye.foresight.step()
    eye.foresight.step()
    assert eye.list(first) == (listed_plainly(eye.driver, first), True)


CHANGES = {
    "create": lambda u: u.create("b/new", "x"),
    "unlink": lambda u: u.unlink("b/h"),
    "rename": lambda u: u.rename("b/h", "b/i"),
    "copy up": lambda u: u.append("b/h", "x"),
    "chmod of the directory": lambda u: u.change("b", mode=0o700),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_after_a_change_nothing_is_used_that_it_concerns(eye, change, name):
    eye.list(eye.driver.union.root)
    eye.prepare()
    prepared = eye.foresight._prepared.node  # noqa: SLF001
    CHANGES[change](eye.driver)
    node = eye.driver.node(name)
    right = listed_plainly(eye.driver, node)
    assert eye.list(node) == (right, node is prepared and name != "b")


def test_a_name_of_a_file_that_was_copied_up_by_another_is_as_it_is_now(union):
    u = union({}, {"d": {"f": "1"}, "e": {"g": Same("d/f")}})
    eye, directory = Eye(u), u.node("d")
    u.node("e/g")  # by this name it is copied up, and by d/f it is not
    eye.foresight._next.append(directory)  # noqa: SLF001
    eye.prepare()
    u.append("e/g", "234")
    assert not directory.upper
    assert eye.list(directory) == (listed_plainly(u, directory), True)
    assert u.node("d/f") is u.node("e/g")


def test_a_name_that_has_another_node_by_now_is_not_used(union):
    u = union({}, {"d": {"f": "1"}, "e": {"g": Same("d/f")}})
    eye, directory = Eye(u), u.node("d")
    eye.foresight._next.append(directory)  # noqa: SLF001
    eye.prepare()
    node = u.node("e/g")
    u.append("e/g", "234")
    u.union.supersede(node)  # as with passthrough=all, for the sake of its readers
    assert eye.list(directory) == (listed_plainly(u, directory), False)
    assert u.node("d/f") is not node


def test_of_files_in_upper_the_size_is_that_of_now(union):
    u = union({"d": {"f": "1"}}, {})
    eye, directory = Eye(u), u.node("d")
    eye.list(directory)
    with open(u.upper / "d" / "f", "w", encoding="ascii") as file:  # as by passthrough
        file.write("much more")
    found, ready = eye.list(directory)
    assert ready
    assert [size for name, _, size, _ in found if name == b"f"] == [9]


def test_a_directory_in_upper_is_not_read_unasked(union):
    u = union({"d": {"f": "1"}}, {"d": {"g": "2"}})
    eye = Eye(u)
    eye.list(u.union.root)
    assert eye.prepare() == 0


def test_what_is_out_of_date_is_let_go_of_in_idle_time(union):
    u = union({}, {"d": {"f": "1", "g": "2"}})
    eye = Eye(u)
    eye.list(u.union.root)
    eye.prepare()
    assert len(u.union.nodes) == 4
    u.create("d/new")
    eye.prepare()
    assert len(u.union.nodes) == 3


def test_a_directory_asked_for_twice_is_looked_up_once(eye, monkeypatch):
    node = eye.driver.node("a")
    first, _ = eye.list(node)
    monkeypatch.setattr(eye.listings, "read", None)
    assert eye.list(node) == (first, True)


def test_what_the_kernel_forgot_is_looked_up_again(eye):
    node, file = eye.driver.node("a"), eye.driver.node("a/f")
    first, _ = eye.list(node)
    eye.driver.union.nodes.forget(file.ino, file.lookups)
    assert eye.list(node) == (first, False)
    assert eye.driver.node("a/f") is not file


def test_where_it_was_wrong_it_stops_and_where_it_would_have_been_right_it_begins_again(eye):
    union = eye.driver.union
    for number in range(3):
        eye.list(union.root)
        eye.prepare()
        eye.driver.create(f"new{number}")
        eye.prepare()
    eye.list(union.root)
    assert eye.prepare() == 0
    eye.list(eye.foresight._next[-1])  # noqa: SLF001
    assert eye.prepare() > 0


@pytest.mark.parametrize(("entries", "steps"), [(10, 14), (300, 0)])
def test_a_large_directory_is_not_listed_unasked(union, tmp_path, entries, steps):
    u = union({}, {"d": {f"a rather long name {number}": "x" for number in range(entries)}})
    eye = Eye(u)
    eye.list(u.union.root)
    assert (os.stat(tmp_path / "lower0" / "d").st_size > 4096) == (steps == 0)
    assert eye.prepare() == steps


def test_an_error_is_told_to_who_asks(eye, monkeypatch):
    eye.list(eye.driver.union.root)
    first = eye.foresight._next[-1]  # noqa: SLF001

    def fail(_node):
        raise OSError(errno.EIO, "bad sector")

    with monkeypatch.context() as patch:
        patch.setattr(eye.driver.union, "listing", fail)
        assert eye.prepare() <= 1
        with pytest.raises(OSError, match="bad sector"):
            eye.list(first)
    assert eye.list(first)[0] == listed_plainly(eye.driver, first)


def test_after_a_change_the_attributes_of_its_directory_are_ready(eye, monkeypatch):
    union, directory = eye.driver.union, eye.driver.node("c")
    union.nodes.root.lookups += 1
    eye.driver.create("c/new", "x")
    assert eye.prepare() == 1
    right = union.attributes(directory)
    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", None)
        assert eye.foresight.attributes(directory) == right
    assert eye.foresight.attributes(directory) == right  # once: now it is asked for


@pytest.mark.parametrize(
    "change",
    [
        lambda eye: eye.driver.create("c/other", "x"),
        lambda eye: eye.driver.change("c", mode=0o700),
        lambda eye: eye.driver.attributes.set(eye.driver.node("c"), b"user.a", b"b"),
        lambda eye: eye.driver.rename("c", "d"),
    ],
    ids=["names", "mode", "extended attributes", "its own name"],
)
def test_attributes_that_changed_since_are_asked_for(eye, change):
    directory = eye.driver.node("c")
    eye.driver.changes.mkdir(directory, b"new", 0o755, ROOT)[0].lookups += 1
    eye.prepare()
    change(eye)
    assert eye.foresight.attributes(directory) == eye.driver.union.attributes(directory)
