"""Trees deeper than a path is long, than Python recurses, and than a marker can say."""

import os
import subprocess

import pytest

from tests.core.driver import Driver
from tests.layers import opened
from tests.trees import plant
from unionfs.host import syscalls
from unionfs.layers import markers
from unionfs.layers.layer import Layer, LayerPath, WritableLayer
from unionfs.layers.stack import Stack
from unionfs.layers.staging import DIRECTORY, Staging
from unionfs.view.lookup_result import LookupResult
from unionfs.view.node import Node, NodeTable
from unionfs.view.union import Features

DEPTH = 1100  # more than Python recurses
NAME = b"deep"  # 5,500 bytes: more than a path is long


def dig(top, depth=DEPTH):
    """Make directories one in the other, and return a descriptor of the last."""
    at = os.open(top, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(NAME, dir_fd=at)
        below = os.open(NAME, os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    return at


def write(directory, name, text):
    fd = os.open(name, os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=directory)
    os.write(fd, text)
    os.close(fd)


@pytest.fixture
def ground(tmp_path):
    """Make the directories of a union's layers, and remove them, however deep they have become."""
    for name in ("upper", "work", "lower0"):
        (tmp_path / name).mkdir()
    cwd, umask = os.getcwd(), os.umask(0o22)
    yield tmp_path
    os.chdir(cwd)
    os.umask(umask)
    syscalls.set_filesystem_ids(0, 0)
    subprocess.run(["rm", "-rf", *tmp_path.iterdir()], check=True)


@pytest.fixture
def deep(ground):
    """Return a union whose lower holds a file far down, and the node of its directory."""
    fd = dig(ground / "lower0")
    write(fd, "f", b"text")
    os.mkdir("d", dir_fd=fd)
    os.close(fd)
    made = []

    def build(**features):
        fds = opened(ground / "upper", ground / "work")
        upper, work = WritableLayer(fds[0], name="upper"), WritableLayer(fds[1], name="work")
        lowers = (Layer(*opened(ground / "lower0"), number=1, name="lower0"),)
        driver = Driver(Stack(upper, work, lowers), Features(fsync="off", **features), ground)
        made.append(driver)
        return driver, walk(driver)

    yield build
    for driver in made:
        driver.close()


def walk(driver, names=(NAME,) * DEPTH):
    node = driver.union.root
    for name in names:
        node = driver.union.lookup.node(node, name)[0]
        node.lookups += 1
    return node


def child(driver, parent, name):
    node = driver.union.lookup.node(parent, name)[0]
    node.lookups += 1
    return node


def content(driver, node):
    fd = driver.union.open_to_read(node)
    driver.open_fds[fd] = None
    return os.pread(fd, 99, 0)


def test_a_path_of_any_depth_is_told(deep):
    driver, last = deep()
    assert last.path == b"/".join([NAME] * DEPTH)
    assert last.lower_path == b"/" + last.path
    assert driver.union.attributes(last).st_nlink == 3


def test_what_lies_deep_is_copied_up_renamed_and_removed(deep):
    driver, last = deep()
    file = child(driver, last, b"f")
    driver.copyup.metadata(file)
    assert file.upper
    assert content(driver, file) == b"text"
    driver.changes.rename(last, b"f", driver.union.root, b"here", 0)
    assert content(driver, file) == b"text"
    driver.changes.rename(driver.union.root, b"here", last, b"d2", 0)
    driver.changes.rename(last, b"d", last, b"e", 0)
    assert sorted(driver.union.listing(last)) == [b"d2", b"e"]
    driver.changes.unlink(last, b"d2")
    driver.changes.rmdir(last, b"e")
    assert not driver.union.listing(last)


def test_a_deep_tree_is_copied_up_whole_for_want_of_redirects(deep):
    driver, last = deep(redirect_dir=False, metacopy=False)
    driver.changes.rename(driver.union.root, NAME, driver.union.root, b"new", 0)
    file = child(driver, last, b"f")
    assert content(driver, file) == b"text"
    assert driver.union.lookup.node(driver.union.root, NAME) is None
    at = os.open(driver.upper / "new", os.O_RDONLY)
    for _ in range(DEPTH - 1):
        assert os.getxattr(at, markers.OPAQUE) == b"y"
        below = os.open(NAME, os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    assert sorted(os.listdir(at)) == ["d", "f"]
    os.close(at)


def _leave_behind(directory):
    """Put leftovers of all sorts into a directory, with names that are given to new ones."""
    for name in ("#0", "#2"):
        (directory / name).mkdir()
        os.close(dig(directory / name))
    plant(directory / "#1", {"f": "x", "#0": {"f": "x"}, "#3": {"#3": {}}})
    (directory / "#a").write_text("x")
    (directory / "index").mkdir()


def test_what_a_killed_daemon_left_is_removed_however_deep(ground):
    (ground / "work/work").mkdir()
    _leave_behind(ground / "work/work")
    (fd,) = opened(ground / "work")
    work = WritableLayer(fd)
    Staging(work)
    assert os.listdir(ground / "work/work") == []
    work.close()


def test_a_staged_tree_is_discarded_however_deep(ground):
    (fd,) = opened(ground / "work")
    work = WritableLayer(fd)
    work.mkdir(DIRECTORY, 0o700)
    staging = Staging(work)
    staged = staging.name()
    work.mkdir(staged, 0o700)
    os.close(dig(ground / "work" / os.fsdecode(staged)))
    staging.discard(staged)
    assert os.listdir(ground / "work/work") == []
    work.close()


# Many layers


def test_a_directory_that_was_renamed_in_each_of_many_layers_is_followed(ground):
    many = 500
    for number in range(many):
        directory = plant(ground / f"l{number}", {f"d{number}": {f"f{number}": ""}})
        os.setxattr(directory / f"d{number}", markers.REDIRECT, b"d%d" % (number + 1))
    lowers = [Layer(*opened(ground / f"l{number}"), number=many - number) for number in range(many)]
    driver = Driver(Stack(None, None, tuple(lowers)), Features(), ground)
    assert driver.list("d0") == sorted(f"f{number}" for number in range(many))
    driver.close()


# Many names


def test_the_names_of_one_file_are_not_compared_with_each_other():
    class Name(bytes):
        __slots__ = ()
        compared = 0
        __hash__ = bytes.__hash__

        def __eq__(self, other):
            Name.compared += 1
            return bytes.__eq__(self, other)

    many = 300
    root = Node(1, 0o040000, 1, None, b"", upper=False, below=())
    nodes = NodeTable(root)
    st = os.stat_result((0o100644, 5, 1, many, 0, 0, 0, 0, 0, 0))
    result = LookupResult(5, st, upper=False, named=False, below=(LayerPath(None, b"file"),))
    for number in range(many):
        nodes.adopt(root, Name(b"%d" % number), result)
    assert Name.compared < 3 * many
    assert root.children == many
