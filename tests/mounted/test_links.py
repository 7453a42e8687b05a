"""Hard links and the identity of files."""

import os

import pytest

from tests.mounted.witness import failure
from tests.trees import Same, harvest

LINKED = {"a": "text", "b": Same("a"), "d": {"c": Same("a")}}


def numbers(tree, *names):
    return {(tree / name).lstat().st_ino for name in names}


@pytest.mark.tree(LINKED)
def test_links_are_one_file(tree):
    assert len(numbers(tree, "a", "b", "d/c")) == 1
    assert {(tree / name).stat().st_nlink for name in ("a", "b", "d/c")} == {3}


@pytest.mark.tree(LINKED)
@pytest.mark.parametrize("name", ["a", "b", "d/c"])
def test_a_write_through_one_name_shows_under_all(tree, name):
    (tree / name).write_text("new")
    assert harvest(tree) == {"a": "new", "b": "new", "d": {"c": "new"}}
    assert len(numbers(tree, "a", "b", "d/c")) == 1
    assert (tree / "a").stat().st_nlink == 3


@pytest.mark.tree(LINKED)
def test_a_chmod_through_one_name_shows_under_all(tree):
    (tree / "b").chmod(0o600)
    assert {(tree / name).stat().st_mode & 0o777 for name in ("a", "b", "d/c")} == {0o600}
    assert harvest(tree) == {"a": "text", "b": "text", "d": {"c": "text"}}


@pytest.mark.tree(LINKED)
def test_each_unlink_takes_one_link(tree):
    (tree / "a").unlink()
    assert (tree / "b").stat().st_nlink == 2
    (tree / "b").write_text("new")
    assert (tree / "d/c").read_text() == "new"
    assert (tree / "d/c").stat().st_nlink == 2
    (tree / "b").unlink()
    assert (tree / "d/c").stat().st_nlink == 1
    assert harvest(tree) == {"d": {"c": "new"}}


@pytest.mark.tree(LINKED)
def test_a_link_that_was_renamed_is_a_link(tree):
    (tree / "a").rename(tree / "d/new")
    (tree / "d/new").write_text("changed")
    assert harvest(tree) == {"b": "changed", "d": {"c": "changed", "new": "changed"}}
    assert (tree / "b").stat().st_nlink == 3


@pytest.mark.tree(LINKED)
def test_link_adds_a_name_to_a_file(tree):
    os.link(tree / "d/c", tree / "new")
    assert (tree / "a").stat().st_nlink == 4
    (tree / "new").write_text("changed")
    assert harvest(tree) == {
        "a": "changed",
        "b": "changed",
        "d": {"c": "changed"},
        "new": "changed",
    }
    assert len(numbers(tree, "a", "b", "d/c", "new")) == 1


@pytest.mark.tree({"f": "text", "d": {}})
def test_the_lock_file_of_shadow_has_two_links_at_once(tree):
    (tree / "f").stat()
    os.link(tree / "f", tree / "f.lock")
    assert [(tree / name).stat().st_nlink for name in ("f", "f.lock")] == [2, 2]
    (tree / "f").unlink()
    assert (tree / "f.lock").stat().st_nlink == 1


@pytest.mark.tree({"f": "text", "d": {}, "g": "other"})
def test_link_refuses_what_link_2_refuses(tree):
    assert failure(os.link, tree / "f", tree / "g") == "EEXIST"
    assert failure(os.link, tree / "d", tree / "e") == "EPERM"
    assert failure(os.link, tree / "none", tree / "e") == "ENOENT"
    assert failure(os.link, tree / "f", tree / "none/e") == "ENOENT"


@pytest.mark.tree({"f": "text"})
def test_a_symlink_and_a_fifo_have_links_too(tree):
    (tree / "s").symlink_to("f")
    os.mkfifo(tree / "p")
    os.link(tree / "s", tree / "s2", follow_symlinks=False)
    os.link(tree / "p", tree / "p2")
    assert [(tree / name).lstat().st_nlink for name in ("s", "s2", "p", "p2")] == [2] * 4
    assert os.readlink(tree / "s2") == "f"


@pytest.mark.tree({"f": "text"})
def test_an_open_file_without_a_name_is_not_linked_again(tree):
    fd = os.open(tree / "f", os.O_RDONLY)
    (tree / "f").unlink()
    assert failure(os.link, f"/proc/self/fd/{fd}", tree / "g") in ("ENOENT", "EXDEV")
    os.close(fd)


@pytest.mark.tree({"f": "text", "d": {"g": "text"}, "s": "x"})
def test_the_inode_number_stays_through_every_change(tree):
    before = numbers(tree, "f", "d", "d/g", ".")
    for name in ("f", "d/g"):
        (tree / name).chmod(0o600)
        (tree / name).write_text("new")
        os.utime(tree / name)
        os.truncate(tree / name, 1)
        os.setxattr(tree / name, "user.a", b"1")
    (tree / "d").chmod(0o700)
    assert numbers(tree, "f", "d", "d/g", ".") == before
    (tree / "d").rename(tree / "e")
    (tree / "f").rename(tree / "e/f")
    assert numbers(tree, "e/f", "e", "e/g", ".") == before


@pytest.mark.tree({"f": "text", "d": {"g": "text", "e": {}}})
def test_listings_and_stat_tell_the_same_numbers_and_one_device(tree):
    (tree / "d/new").write_text("")
    (tree / "d/g").chmod(0o600)
    for top, _, _ in os.walk(tree):
        with os.scandir(top) as entries:
            for entry in entries:
                st = os.lstat(entry.path)
                assert (entry.inode(), st.st_dev) == (st.st_ino, tree.stat().st_dev)


@pytest.mark.tree({f"f{n}": "" for n in range(100)})
def test_different_files_have_different_numbers(tree):
    for n in range(100, 200):
        (tree / f"f{n}").write_text("")
    for n in range(0, 100, 2):
        (tree / f"f{n}").write_text("new")
    assert len(numbers(tree, *os.listdir(tree))) == 200
