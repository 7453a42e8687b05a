"""rename(2) and its flags, wherever source and target lie: renameat2(2), POSIX rename."""

import ctypes
import os
import threading
import time

import pytest

from tests.mounted.witness import failure
from tests.trees import Link, Same, harvest

NOREPLACE, EXCHANGE, WHITEOUT = 1, 2, 4

_libc = ctypes.CDLL(None, use_errno=True)


def renameat2(old, new, flags):
    result = _libc.renameat2(-100, os.fsencode(old), -100, os.fsencode(new), flags)
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


MANY = {
    "f": "f",
    "g": "g",
    "l": Link("f"),
    "empty": {},
    "full": {"x": "x", "sub": {"y": "y"}},
    "other": {},
}


@pytest.mark.tree(MANY)
@pytest.mark.parametrize(
    ("old", "new", "changes"),
    [
        ("f", "new", {"f": None, "new": "f"}),
        ("f", "g", {"f": None, "g": "f"}),
        ("f", "l", {"f": None, "l": "f"}),
        ("l", "f", {"l": None, "f": Link("f")}),
        ("f", "other/f", {"f": None, "other": {"f": "f"}}),
        ("full", "new", {"full": None, "new": MANY["full"]}),
        ("full", "empty", {"full": None, "empty": MANY["full"]}),
        ("full", "other/full", {"full": None, "other": {"full": MANY["full"]}}),
        ("empty", "new", {"empty": None, "new": {}}),
        ("empty", "other", {"empty": None}),
        ("full/sub", "sub", {"full": {"x": "x"}, "sub": {"y": "y"}}),
        ("full/x", "f", {"full": {"sub": {"y": "y"}}, "f": "x"}),
        ("f", "f", {}),
        ("full", "full", {}),
    ],
)
def test_rename_moves_one_thing_and_no_other(tree, old, new, changes):
    before = (tree / old).lstat().st_ino
    os.rename(tree / old, tree / new)
    after = {name: what for name, what in (MANY | changes).items() if what is not None}
    assert harvest(tree) == after
    assert (tree / new).lstat().st_ino == before


@pytest.mark.tree(MANY)
@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ("empty", "full", "ENOTEMPTY"),
        ("full", "f", "ENOTDIR"),
        ("f", "full", "EISDIR"),
        ("f", "empty", "EISDIR"),
        ("full", "full/sub/new", "EINVAL"),
        ("full", "full/sub", "EINVAL"),
        ("full/sub", "full", "ENOTEMPTY"),
        ("none", "f", "ENOENT"),
        ("f", "none/f", "ENOENT"),
        ("f/x", "g", "ENOTDIR"),
        ("f", "n" * 256, "ENAMETOOLONG"),
    ],
)
def test_rename_refuses_what_posix_refuses_and_changes_nothing(tree, old, new, error):
    assert failure(os.rename, tree / old, tree / new) == error
    assert harvest(tree) == MANY


@pytest.mark.tree(MANY)
@pytest.mark.parametrize(("old", "new"), [("f", "g"), ("f", "full"), ("full", "empty"), ("f", "f")])
def test_noreplace_replaces_nothing(tree, old, new):
    assert failure(renameat2, tree / old, tree / new, NOREPLACE) == "EEXIST"
    assert harvest(tree) == MANY


@pytest.mark.tree(MANY)
@pytest.mark.parametrize("old", ["f", "full", "l"])
def test_noreplace_renames_to_a_free_name(tree, old):
    renameat2(tree / old, tree / "new", NOREPLACE)
    assert harvest(tree) == {n: w for n, w in MANY.items() if n != old} | {"new": MANY[old]}


@pytest.mark.tree({"gone": "text", "f": "f"})
def test_noreplace_renames_to_a_name_that_was_deleted(tree):
    (tree / "gone").unlink()
    renameat2(tree / "f", tree / "gone", NOREPLACE)
    assert harvest(tree) == {"gone": "f"}


@pytest.mark.tree(MANY)
@pytest.mark.parametrize(
    ("one", "two", "changes"),
    [
        ("f", "g", {"f": "g", "g": "f"}),
        ("f", "full", {"f": MANY["full"], "full": "f"}),
        ("full", "l", {"full": Link("f"), "l": MANY["full"]}),
        ("empty", "full", {"empty": MANY["full"], "full": {}}),
        ("full/sub", "empty", {"full": {"x": "x", "sub": {}}, "empty": {"y": "y"}}),
        ("full/x", "g", {"full": {"x": "g", "sub": {"y": "y"}}, "g": "x"}),
    ],
)
def test_exchange_swaps_two_things(tree, one, two, changes):
    inodes = [(tree / name).lstat().st_ino for name in (one, two)]
    renameat2(tree / one, tree / two, EXCHANGE)
    assert harvest(tree) == MANY | changes
    assert [(tree / name).lstat().st_ino for name in (two, one)] == inodes


@pytest.mark.tree(MANY)
@pytest.mark.parametrize(
    ("one", "two", "error"),
    [("f", "none", "ENOENT"), ("none", "f", "ENOENT"), ("full", "full/sub", "EINVAL")],
)
def test_exchange_needs_two_things_of_which_none_lies_in_the_other(tree, one, two, error):
    assert failure(renameat2, tree / one, tree / two, EXCHANGE) == error
    assert harvest(tree) == MANY


@pytest.mark.tree(MANY)
def test_flags_that_exclude_each_other_or_are_unknown_are_refused(tree):
    for flags in (NOREPLACE | EXCHANGE, WHITEOUT | EXCHANGE, 1 << 7):
        assert failure(renameat2, tree / "f", tree / "g", flags) == "EINVAL"
    assert harvest(tree) == MANY


@pytest.mark.tree({"a": {"f": "f"}, "b": {}})
def test_two_merged_directories_exchange_files_and_come_back(tree):
    for _ in range(3):
        renameat2(tree / "a", tree / "b", EXCHANGE)
        (tree / "b" / "f").rename(tree / "a" / "f")
        assert harvest(tree) == {"a": {"f": "f"}, "b": {}}


@pytest.mark.tree({"f": "text", "g": Same("f")})
def test_onto_a_hard_link_of_itself_nothing_happens(tree):
    os.rename(tree / "f", tree / "g")
    assert harvest(tree) == {"f": "text", "g": "text"}
    assert (tree / "f").stat().st_nlink == 2


@pytest.mark.tree({"a": {"b": {"c": {"f": "deep"}}}, "t": {}})
def test_a_directory_moves_with_all_that_was_renamed_in_it(tree):
    (tree / "a/b/c").rename(tree / "a/b/C")
    (tree / "a/b").rename(tree / "t/B")
    (tree / "t/B/C/f").rename(tree / "t/B/C/F")
    (tree / "a").rename(tree / "t/B/A")
    (tree / "t").rename(tree / "T")
    assert harvest(tree) == {"T": {"B": {"C": {"F": "deep"}, "A": {}}}}


@pytest.mark.tree({"d": {"f": "old", "g": "old"}})
def test_a_new_directory_where_one_was_moved_away_is_empty(tree):
    (tree / "d").rename(tree / "e")
    (tree / "d").mkdir()
    assert harvest(tree) == {"d": {}, "e": {"f": "old", "g": "old"}}
    (tree / "d" / "f").write_text("new")
    (tree / "e" / "g").unlink()
    assert harvest(tree) == {"d": {"f": "new"}, "e": {"f": "old"}}


@pytest.mark.tree({"d": {"f": "old"}, "e": {"f": "other", "g": "g"}})
def test_a_directory_renamed_over_a_cleared_one_does_not_merge_with_it(tree):
    (tree / "e/f").unlink()
    (tree / "e/g").unlink()
    (tree / "d").rename(tree / "e")
    assert harvest(tree) == {"e": {"f": "old"}}


@pytest.mark.tree({"d": {"f": "text"}})
def test_an_open_directory_and_file_follow_a_rename(tree):
    directory = os.open(tree / "d", os.O_RDONLY)
    file = os.open("f", os.O_RDONLY, dir_fd=directory)
    (tree / "d").rename(tree / "e")
    assert os.listdir(directory) == ["f"]
    os.rename("f", "g", src_dir_fd=directory, dst_dir_fd=directory)
    writing = os.open("g", os.O_RDWR, dir_fd=directory)
    os.write(writing, b"TE")
    assert (tree / "e" / "g").read_text() == "TExt"
    assert os.readlink(f"/proc/self/fd/{file}") == f"{tree}/e/g"
    for fd in (directory, file, writing):
        os.close(fd)


@pytest.mark.tree({"d": {"f": "f"}, "e": {}})
def test_rename_changes_the_times_of_both_directories_and_not_of_what_moves(tree):
    for name in ("d", "e", "d/f"):
        os.utime(tree / name, ns=(10**9, 10**9))
    (tree / "d/f").rename(tree / "e/f")
    assert (tree / "e/f").stat().st_mtime_ns == 10**9
    assert (tree / "d").stat().st_mtime_ns > 10**9
    assert (tree / "e").stat().st_mtime_ns > 10**9


@pytest.mark.tree({"target": "old " * 50, "d": {"target": "x"}})
def test_readers_never_see_the_target_missing_or_torn(tree):
    whole = {f"{word} " * 50 for word in ("old", "new")}
    faults, done = [], threading.Event()

    def look():
        while not done.is_set():
            try:
                text = (tree / "target").read_text()
                if text not in whole:
                    faults.append(text)
            except OSError as exc:
                faults.append(exc)

    readers = [threading.Thread(target=look) for _ in range(2)]
    for reader in readers:
        reader.start()
    for n in range(100):
        (tree / "aside").write_text(f"{('new', 'old')[n % 2]} " * 50)
        (tree / "aside").rename(tree / "target")
    done.set()
    for reader in readers:
        reader.join()
    assert faults == []


@pytest.mark.unions_only  # plain ones are as fast, of course
@pytest.mark.tree({"d": {f"f{n}": "" for n in range(200)}})
def test_a_directory_is_renamed_without_reading_it(tree):
    def is_quick():
        began = time.perf_counter()
        for _ in range(5):
            (tree / "d").rename(tree / "e")
            (tree / "e").rename(tree / "d")
        return time.perf_counter() - began < 1  # copying it takes longer, each time

    assert any(is_quick() for _ in range(3))  # the machine may be busy
    assert len(os.listdir(tree / "d")) == 200


@pytest.mark.tree({"d": {"f": "x" * (1 << 20)}, "f": "x" * (1 << 20)})
def test_it_is_never_another_file_system_inside_one(tree):
    (tree / "new").mkdir()
    assert failure(os.rename, tree / "d", tree / "new" / "d") == ""
    assert failure(os.rename, tree / "f", tree / "new" / "f") == ""
    assert failure(os.link, tree / "new" / "f", tree / "l") == ""
    assert failure(os.rename, tree / "new", "/dev/shm/new") == "EXDEV"


@pytest.mark.tree({"f": "text"})
def test_a_moved_away_file_stays_gone_from_its_old_name(tree):
    for n in range(5):
        (tree / "f").rename(tree / "g")
        assert os.listdir(tree) == ["g"]
        assert failure(os.stat, tree / "f") == "ENOENT"
        (tree / "g").rename(tree / "f")
        assert (tree / "f").read_text() == "text", n


@pytest.mark.unions_only
@pytest.mark.tree({"f": "text"})
def test_whiteouts_are_not_to_be_made_by_users(tree):
    """A table of limits has it: layers of a union in a union are made on their own ground."""
    assert failure(renameat2, tree / "f", tree / "g", WHITEOUT) == "EINVAL"
    assert harvest(tree) == {"f": "text"}
