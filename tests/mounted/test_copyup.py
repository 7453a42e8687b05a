"""What copying up leaves in upper, what it costs, and that it changes nothing that is seen."""

import contextlib
import mmap
import os
import subprocess
import threading
import time

import pytest

from tests.mounted.witness import failure, portrait
from tests.trees import WHITEOUT, File, Link, Opaque, Same, harvest

GIB = 1 << 30
LARGE = 128  # MiB: copying takes longer than many requests
TURNS = 3


def used(path):
    """Return the bytes of disk that the files below *path* take."""
    return sum(
        os.lstat(os.path.join(top, name)).st_blocks * 512
        for top, _, files in os.walk(path)
        for name in files
    )


LOWER = {
    "f": File("text", 0o751, (("user.a", b"1"), ("trusted.b", b"2"), ("security.c", b"3"))),
    "g": "g",
    "l": Link("f"),
    "d": {"x": "x", "e": {"y": "y"}},
}


@pytest.mark.parametrize(
    ("change", "upper"),
    [
        (lambda p: (p / "f").read_text(), {}),
        (lambda p: os.open(p / "none", os.O_RDONLY), {}),
        (lambda p: (p / "new").write_text("n"), {"new": "n"}),
        (lambda p: (p / "f").write_text("n"), {"f": "n"}),
        (lambda p: (p / "d/e/y").write_text("n"), {"d": {"e": {"y": "n"}}}),
        (lambda p: (p / "f").unlink(), {"f": WHITEOUT}),
        (lambda p: (p / "d/e/y").unlink(), {"d": {"e": {"y": WHITEOUT}}}),
        (lambda p: (p / "f").rename(p / "g"), {"f": WHITEOUT, "g": "text"}),
        (lambda p: (p / "f").rename(p / "new"), {"f": WHITEOUT, "new": "text"}),
        (lambda p: (p / "l").rename(p / "d/l"), {"l": WHITEOUT, "d": {"l": Link("f")}}),
        (lambda p: subprocess.run(["rm", "-r", p / "d"], check=True), {"d": WHITEOUT}),
        (lambda p: (p / "d").rename(p / "D"), {"d": WHITEOUT, "D": {}}),
        (lambda p: (p / "n").mkdir(), {"n": {}}),
    ],
)  # fmt: skip
def test_upper_holds_what_overlayfs_would_write(mounted, change, upper):
    union = mounted({}, LOWER, options=("metacopy=off",))
    failure(change, union.path)
    assert union.on_upper() == upper


def test_whiteouts_come_and_go_with_what_they_hide(mounted):
    union = mounted({"u": "u"}, {"f": "f", "d": {"x": ""}})
    for name in ("f", "u"):
        (union.path / name).unlink()
    assert union.on_upper() == {"f": WHITEOUT}
    (union.path / "f").write_text("new")
    (union.path / "u").write_text("new")
    assert union.on_upper() == {"f": "new", "u": "new"}
    (union.path / "d/x").unlink()
    (union.path / "d").rmdir()
    (union.path / "d").mkdir()
    assert union.on_upper() == {"f": "new", "u": "new", "d": Opaque()}


def test_a_stack_is_read_top_first(mounted):
    union = mounted(
        {"a": "0", "d": {"0": ""}},
        {"a": "1", "b": "1", "d": {"1": "", "w": WHITEOUT}, "w": WHITEOUT, "k": "file"},
        {"a": "2", "b": "2", "c": "2", "d": {"2": "", "w": ""}, "w": "2", "o": Opaque(x="")},
        {"c": "3", "d": {"3": ""}, "o": {"hidden": ""}, "k": {"hidden": ""}, "w": {"y": ""}},
    )
    assert harvest(union.path) == {
        "a": "0",
        "b": "1",
        "c": "2",
        "d": dict.fromkeys("0123", ""),
        "k": "file",
        "o": {"x": ""},
    }


def test_everything_about_a_file_is_kept(mounted):
    union = mounted({}, {"f": "x" * 100000, "d": {"e": LOWER["f"]}})
    (union.path / "d/e").stat()
    for name in ("f", "d/e"):
        path = union.path / name
        before = portrait(union.path)
        os.setxattr(path, "user.z", b"")
        os.removexattr(path, "user.z")
        assert portrait(union.path) == before
        os.close(os.open(path, os.O_RDWR))  # now with its content
        assert portrait(union.path) == before
    assert {"security.c", "trusted.b", "user.a"} <= set(os.listxattr(union.upper / "d/e"))


def _sparse(base):
    with (base / "lower1/big").open("wb") as file:
        file.truncate(GIB)
        for offset in (0, GIB // 2, GIB - 4096):
            os.pwrite(file.fileno(), b"data" * 1024, offset)


def test_holes_stay_holes(mounted):
    union = mounted({}, {}, prepare=_sparse)
    os.close(os.open(union.path / "big", os.O_RDWR))
    assert used(union.upper) < 1 << 20
    assert (union.upper / "big").stat().st_size == GIB
    with (union.path / "big").open("rb") as file:
        assert [os.pread(file.fileno(), 4, at) for at in (0, 8192, GIB // 2, GIB - 4096)] == [
            b"data",
            bytes(4),
            b"data",
            b"data",
        ]


def _dense(base, mib=LARGE):
    data = os.urandom(1 << 20)
    with (base / "lower1/big").open("wb") as file:
        for _ in range(mib):
            file.write(data)


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.chmod(0o600),
        lambda path: os.chown(path, 1, 1),
        lambda path: os.utime(path, ns=(1, 1)),
        lambda path: os.setxattr(path, "user.a", b"1"),
        lambda path: path.rename(path.parent / "new"),
        lambda path: os.close(os.open(path, os.O_WRONLY | os.O_TRUNC)),
        lambda path: os.truncate(path, 10),
    ],
    ids=["chmod", "chown", "utime", "setxattr", "rename", "trunc", "truncate"],
)
def test_what_needs_no_content_copies_none(mounted, change):
    union = mounted({}, {}, prepare=lambda base: _dense(base, 4))
    change(union.path / "big")
    assert used(union.upper) <= 8192


def test_others_are_served_while_a_large_file_is_copied(mounted):
    # On a busy machine the copy may be all that has its turn, once.
    assert any(_is_noticed_by_nobody(mounted({}, {}, prepare=_dense)) for _ in range(TURNS))


def _is_noticed_by_nobody(union):
    """Copy a large file up; tell whether others were served meanwhile, and soon."""
    (union.path / "other").write_text("")
    copying = threading.Thread(target=lambda: os.close(os.open(union.path / "big", os.O_RDWR)))
    slowest = count = 0
    copying.start()
    while copying.is_alive():
        began = time.perf_counter()
        (union.path / f"n{count}").write_text("")
        (union.path / "big").stat()
        slowest = max(slowest, time.perf_counter() - began)
        count += 1
    copying.join()
    assert (union.upper / "big").stat().st_size == LARGE << 20
    return count >= 2 and slowest < 1  # seconds


def test_two_writers_of_a_large_lower_file_share_one_copy(mounted):
    union = mounted({}, {}, prepare=_dense)

    def write(at):
        with (union.path / "big").open("r+b", buffering=0) as file:
            os.pwrite(file.fileno(), b"new", at)

    writers = [threading.Thread(target=write, args=(n * 10,)) for n in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    with (union.path / "big").open("rb") as file:
        assert [os.pread(file.fileno(), 3, n * 10) for n in range(8)] == [b"new"] * 8


def test_a_file_unlinked_or_renamed_while_it_is_copied(mounted):
    union = mounted({}, {}, prepare=_dense)
    opened = []

    def open_big():
        with contextlib.suppress(FileNotFoundError):
            opened.append(os.open(union.path / "big", os.O_RDWR))

    copying = threading.Thread(target=open_big)
    copying.start()
    (union.path / "big").rename(union.path / "moved")
    (union.path / "moved").unlink()
    copying.join()
    assert os.listdir(union.path) == []
    if opened:  # else the name was gone before the open came
        os.pwrite(opened[0], b"new", 0)
        assert os.pread(opened[0], 3, 0) == b"new"
        assert os.fstat(opened[0]).st_nlink == 0
        os.close(opened[0])


@pytest.mark.parametrize("name", ["a", "b"])
def test_links_of_a_lower_stay_links_over_a_remount(mounted, name):
    union = mounted({}, {"a": "text", "b": Same("a"), "c": {"d": Same("a")}})
    (union.path / name).write_text("new")
    for _ in range(2):
        assert harvest(union.path) == {"a": "new", "b": "new", "c": {"d": "new"}}
        stats = [(union.path / each).stat() for each in ("a", "b", "c/d")]
        assert {(st.st_ino, st.st_nlink) for st in stats} == {(stats[0].st_ino, 3)}
        union.remount()
    (union.path / "c/d").write_text("again")
    assert harvest(union.path) == {"a": "again", "b": "again", "c": {"d": "again"}}


def test_a_remount_shows_the_same_tree_with_the_same_numbers(mounted):
    union = mounted({"u": {"v": "v"}}, LOWER, {"f": "2", "z": {"z": "z"}})
    path = union.path
    (path / "f").chmod(0o600)
    (path / "d").rename(path / "u/D")
    (path / "u/D/x").write_text("new")
    (path / "z/z").unlink()
    (path / "g").rename(path / "z/g")
    (path / "d").mkdir()
    before = portrait(path)
    union.remount()
    assert portrait(path) == before


def test_numbers_are_known_before_and_after_a_change_and_a_remount(mounted):
    union = mounted({}, LOWER)
    before = {n: (union.path / n).lstat().st_ino for n in ("f", "g", "l", "d", "d/x", "d/e", ".")}
    union.remount()
    for name in ("f", "d/x", "d/e"):
        (union.path / name).chmod(0o700)
    (union.path / "g").write_text("new")
    (union.path / "d").rename(union.path / "D")
    union.remount()
    after = {n: (union.path / n.replace("d", "D")).lstat().st_ino for n in before}
    assert after == before


# Old readers of a lower file and passthrough

ORDERS = [
    "read write read",
    "map write map",
    "read map write map read",
    "write read append read map",
    "read chmod read write read map",
    "read write rename write read",
    "read unlink read",
    "map rename write unlink map read",
    "write write read map chmod write map",
    "read truncate read map",
]


class Actors:
    """Descriptors and maps of one file, opened as the story goes, all of which must agree."""

    def __init__(self, path):
        self.path = path
        self.content = bytearray(b"0" * 10000)
        self.readers, self.writers, self.maps = [], [], []
        self.named = True
        self.step = 0

    def act(self, word):
        self.step += 1
        getattr(self, f"do_{word}")()
        self.agree()

    def do_read(self):
        if self.named:
            self.readers.append(os.open(self.path, os.O_RDONLY))

    def do_map(self):
        if self.named:
            fd = os.open(self.path, os.O_RDONLY)
            self.maps.append(mmap.mmap(fd, 4096, mmap.MAP_SHARED, mmap.PROT_READ))
            os.close(fd)

    def do_write(self):
        if self.named:
            self.writers.append(os.open(self.path, os.O_RDWR))
        for index, fd in enumerate(self.writers):
            data = b"%d.%d" % (self.step, index)
            os.pwrite(fd, data, 10 * index)
            self.content[10 * index : 10 * index + len(data)] = data

    def do_append(self):
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        os.write(fd, b"tail")
        self.content += b"tail"
        os.close(fd)

    def do_chmod(self):
        self.path.chmod(0o600 + self.step)

    def do_rename(self):
        self.path = self.path.rename(self.path.with_name(f"n{self.step}"))

    def do_unlink(self):
        self.path.unlink()
        self.named = False

    def do_truncate(self):
        os.truncate(self.path, 5000)
        del self.content[5000:]

    def agree(self):
        for fd in (*self.readers, *self.writers):
            assert os.pread(fd, 20000, 0) == self.content
            assert os.fstat(fd).st_size == len(self.content)
        for view in self.maps:
            assert view[:4096] == self.content[:4096]
        if self.named:
            assert self.path.read_bytes() == self.content

    def close(self):
        for view in self.maps:
            view.close()
        for fd in (*self.readers, *self.writers):
            os.close(fd)


@pytest.mark.without("passthrough=all")  # it promises what overlayfs does: old readers stay below
@pytest.mark.parametrize("story", ORDERS)
@pytest.mark.tree({"f": "0" * 10000})
def test_all_descriptors_and_maps_of_a_file_agree(tree, story):
    actors = Actors(tree / "f")
    for word in story.split():
        actors.act(word)
    actors.close()


@pytest.mark.parametrize("story", ORDERS)
def test_passthrough_all_is_right_about_what_is_opened_after_the_copy(mounted, story):
    union = mounted({}, {"f": "0" * 10000}, options=("passthrough=all",))
    (union.path / "f").open("ab").close()
    actors = Actors(union.path / "f")
    for word in story.split():
        actors.act(word)
    actors.close()
