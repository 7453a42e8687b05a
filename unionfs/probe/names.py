"""Checks: what becomes of the names, for every kind of source and target."""

import errno
import os

from unionfs.probe import trees
from unionfs.probe.model import Trial, expect, posix
from unionfs.probe.trees import Link, Symlink


@posix("file to a new name", {"source": "new"})
def file_to_nothing(trial: Trial) -> None:
    """POSIX: "rename() shall change the name of a file"."""
    os.rename("source", "target")
    trial.shows({"target": "new"})


@posix("file over a file", {"source": "new", "target": "old"})
def file_over_file(trial: Trial) -> None:
    """POSIX: "If the link named by new exists, it shall be removed and old renamed to new"."""
    os.rename("source", "target")
    trial.shows({"target": "new"})


@posix("directory to a new name", {"source": {"inner": "a", "deep": {"leaf": "b"}}})
def directory_to_nothing(trial: Trial) -> None:
    """POSIX: directories are renamed with all they hold; EXDEV is for other file systems."""
    os.rename("source", "target")
    trial.shows({"target": {"inner": "a", "deep": {"leaf": "b"}}})


@posix("directory over an empty directory", {"source": {"inner": "a"}, "target": {}})
def directory_over_empty(trial: Trial) -> None:
    """POSIX: "If the directory named by new exists, it shall be removed"."""
    os.rename("source", "target")
    trial.shows({"target": {"inner": "a"}})


@posix("directory over one that was emptied", {"source": {"a": "new"}, "target": {"b": "old"}})
def directory_over_emptied(trial: Trial) -> None:
    """POSIX, as above; what was deleted must not shine through afterwards."""
    os.unlink("target/b")
    os.rename("source", "target")
    trial.shows({"target": {"a": "new"}})


@posix("directory over a full one: ENOTEMPTY", {"source": {"a": "new"}, "target": {"b": "old"}})
def directory_over_full(trial: Trial) -> None:
    """POSIX: [EEXIST] or [ENOTEMPTY], new is not an empty directory."""
    trial.refused("source", "target", errno.ENOTEMPTY, errno.EEXIST)


@posix("file over a directory: EISDIR", {"source": "new", "target": {}})
def file_over_directory(trial: Trial) -> None:
    """POSIX: [EISDIR], new is a directory and old is not."""
    trial.refused("source", "target", errno.EISDIR)


@posix("directory over a file: ENOTDIR", {"source": {"a": "new"}, "target": "old"})
def directory_over_file(trial: Trial) -> None:
    """POSIX: [ENOTDIR], old names a directory and new a non-directory file."""
    trial.refused("source", "target", errno.ENOTDIR)


@posix("onto itself: nothing happens", {"source": "new", "source-directory": {"a": "b"}})
def onto_itself(trial: Trial) -> None:
    """POSIX: the same directory entry: "return successfully and perform no other action"."""
    os.rename("source", "source")
    os.rename("source-directory", "source-directory")
    trial.unchanged()


@posix("onto a hard link of itself: nothing happens", {"source": "new", "source-2": Link("source")})
def onto_hard_link(trial: Trial) -> None:
    """POSIX: "different directory entries for the same existing file": no other action."""
    os.rename("source", "source-2")
    trial.unchanged()
    expect(os.path.samefile("source", "source-2"), "the links came apart")


@posix("one of two hard links", {"source": "new", "source-2": Link("source"), "target": "old"})
def one_of_two_links(trial: Trial) -> None:
    """POSIX: the name changes, the file does not: it stays one file with two names."""
    os.rename("source", "target")
    trial.shows({"source-2": "new", "target": "new"})
    st = os.stat("target")
    expect(st.st_ino == os.stat("source-2").st_ino, "the links came apart")
    expect(st.st_nlink == 2, f"link count {st.st_nlink}, not 2")  # noqa: PLR2004 # two names
    with open("source-2", "a", encoding="utf-8") as file:
        file.write("er")
    expect(trees.read("target") == "newer", "a write to one name is not seen under the other")


@posix("into its own child: EINVAL", {"source": {"child": {}}})
def into_own_child(trial: Trial) -> None:
    """POSIX: [EINVAL], old is an ancestor directory of new."""
    trial.refused("source", "source/child/new", errno.EINVAL)
    trial.refused("source", "source/child", errno.EINVAL)


@posix("onto its own parent: ENOTEMPTY", {"source": {"child": {}}})
def onto_own_parent(trial: Trial) -> None:
    """POSIX: [EEXIST] or [ENOTEMPTY]: a directory with a child is not empty."""
    trial.refused("source/child", "source", errno.ENOTEMPTY, errno.EEXIST)


@posix(
    "across directories",
    {"source": {"f": "new", "d": {"leaf": "a"}}, "target": {"f": "old", "keep": "kept"}},
)
def across_directories(trial: Trial) -> None:
    """POSIX: old and new need not be in the same directory; ".." leads to the new parent."""
    os.rename("source/f", "target/f")
    os.rename("source/d", "target/d")
    trial.shows({"source": {}, "target": {"f": "new", "d": {"leaf": "a"}, "keep": "kept"}})
    expect(os.path.samefile("target/d/..", "target"), '".." leads to the old parent')


@posix("a name used again after it moved away", {"source": {"a": "old"}, "source-2": "old"})
def name_used_again(trial: Trial) -> None:
    """POSIX: the old name is gone: what is made there next is new and empty."""
    os.rename("source", "moved")
    os.rename("source-2", "moved-2")
    os.mkdir("source")
    trees.write("source-2", "")
    trial.shows({"source": {}, "source-2": "", "moved": {"a": "old"}, "moved-2": "old"})


@posix("there and back again", {"source": {"a": "1", "b": {"c": "2"}}, "source-2": "3"})
def there_and_back(trial: Trial) -> None:
    """POSIX: two renames that undo each other leave what was there."""
    for name in ("source", "source-2"):
        os.rename(name, "elsewhere")
        expect(not os.path.lexists(name), f"{name} is still there")
        os.rename("elsewhere", name)
    trial.unchanged()


@posix("a moved directory lives on", {"source": {"a": "1", "b": {"c": "2"}}, "target": {}})
def moved_directory_lives(trial: Trial) -> None:
    """POSIX: names inside a renamed directory are renamed, made and removed as before."""
    os.rename("source", "target/moved")
    os.rename("target/moved/a", "target/moved/b/a")
    os.unlink("target/moved/b/c")
    os.rename("target/moved/b", "b")
    os.rename("target/moved", "target/again")
    trees.write("target/again/a", "3")
    trial.shows({"b": {"a": "1"}, "target": {"again": {"a": "3"}}})


@posix("a chain of renames, as logrotate's", {"source.1": "1", "source.2": "2", "target": "3"})
def chain(trial: Trial) -> None:
    """POSIX: each rename takes the name that the one before it left."""
    os.rename("source.2", "target")
    os.rename("source.1", "source.2")
    trees.write("source.1", "0")
    trial.shows({"source.1": "0", "source.2": "1", "target": "2"})


@posix("a symlink is renamed, not followed", {"source": Symlink("file"), "file": "kept"})
def symlink_renamed(trial: Trial) -> None:
    """POSIX: "If old names a symbolic link, rename() shall operate on the link itself"."""
    os.rename("source", "target")
    trial.shows({"target": Symlink("file"), "file": "kept"})


@posix(
    "a symlink is replaced, not followed",
    {"source": "new", "target": Symlink("file"), "file": "kept"},
)
def symlink_replaced(trial: Trial) -> None:
    """POSIX: "If new names a symbolic link, rename() shall operate on the link itself"."""
    os.rename("source", "target")
    trial.shows({"target": "new", "file": "kept"})


@posix(
    "directory over a symlink: ENOTDIR",
    {"source": {"a": "new"}, "target": Symlink("directory"), "directory": {}},
)
def directory_over_symlink(trial: Trial) -> None:
    """POSIX: the link itself is the target, and no directory."""
    trial.refused("source", "target", errno.ENOTDIR)


@posix("no such source: ENOENT", {"target": "old"})
def source_missing(trial: Trial) -> None:
    """POSIX: [ENOENT], the link named by old does not name an existing entry."""
    trial.refused("source", "target", errno.ENOENT)
    trial.refused("", "target", errno.ENOENT)
    trial.refused("target", "missing/target", errno.ENOENT)


@posix("a path through a file: ENOTDIR", {"source": "new", "target": "old"})
def through_a_file(trial: Trial) -> None:
    """POSIX: [ENOTDIR], a prefix is no directory, or old is none and new ends in a slash."""
    trial.refused("source", "target/new", errno.ENOTDIR)
    trial.refused("source", "new/", errno.ENOTDIR)
    trial.refused("source/", "new", errno.ENOTDIR)


@posix('"." and "..": EINVAL or EBUSY', {"source": {"child": {}}})
def dot_and_dot_dot(trial: Trial) -> None:
    """POSIX: [EINVAL], the final component is dot or dot-dot; Linux says EBUSY."""
    for path in ("source/.", "source/child/.."):
        trial.refused(path, "target", errno.EINVAL, errno.EBUSY)
        trial.refused("source/child", path, errno.EINVAL, errno.EBUSY)
