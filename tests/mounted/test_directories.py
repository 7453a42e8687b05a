"""Directories: made, removed, listed while they change."""

import contextlib
import ctypes
import os
import random
import shutil
import stat
from pathlib import Path

import pytest

from tests.mounted.witness import failure
from tests.trees import Link, harvest

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fdopendir.restype = ctypes.c_void_p
_libc.telldir.restype = ctypes.c_long
for _name in ("readdir", "telldir", "rewinddir", "closedir"):
    getattr(_libc, _name).argtypes = [ctypes.c_void_p]
_libc.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]


class _Dirent(ctypes.Structure):
    _fields_ = (
        ("ino", ctypes.c_uint64),
        ("off", ctypes.c_int64),
        ("reclen", ctypes.c_ushort),
        ("type", ctypes.c_ubyte),
        ("name", ctypes.c_char * 256),
    )


_libc.readdir.restype = ctypes.POINTER(_Dirent)


class Stream:
    """readdir(3) and its relatives, which Python does not show."""

    def __init__(self, path):
        self._stream = _libc.fdopendir(os.open(path, os.O_RDONLY | os.O_DIRECTORY))

    def read(self):
        entry = _libc.readdir(self._stream)
        return entry.contents.name.decode() if entry else None

    def read_at(self, places):
        """Read, and remember in *places* where the name was."""
        place, name = self.tell(), self.read()
        if name is not None:
            places[name] = place
        return name

    def rest(self):
        return list(iter(self.read, None))

    def tell(self):
        return _libc.telldir(self._stream)

    def seek(self, position):
        _libc.seekdir(self._stream, position)

    def rewind(self):
        _libc.rewinddir(self._stream)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        _libc.closedir(self._stream)


SOME = {f"f{n:03}": "" for n in range(300)}  # more than one answer to readdir holds


@pytest.mark.tree(SOME)
def test_each_name_is_listed_once_and_the_dots_too(tree):
    with Stream(tree) as stream:
        assert sorted(stream.rest()) == sorted([".", "..", *SOME])


@pytest.mark.tree(SOME)
def test_telldir_and_seekdir_find_every_place_again(tree):
    with Stream(tree) as stream:
        places = []
        names = []
        while True:
            places.append(stream.tell())
            name = stream.read()
            if name is None:
                break
            names.append(name)
        for index in (0, 1, 2, 3, 150, 299, 301, 77):
            stream.seek(places[index])
            assert stream.rest() == names[index:]


@pytest.mark.tree(SOME)
def test_names_are_read_in_any_order_and_each_begins_where_it_did(tree):
    (tree / "f000").write_text("new")  # it is merged
    with Stream(tree) as stream:
        places = {}
        while (name := stream.read_at(places)) is not None:
            last = name
        order = list(places)
        for name in random.Random(1).choices(order, k=400):
            stream.seek(places[name])
            assert stream.read() == name
            stream.rewind()
            assert stream.read() == order[0]
        stream.seek(places[last])
        assert stream.rest() == [last]
    assert sorted(order) == sorted([".", "..", *SOME])


def _processor_seconds(process):
    """Return what the main thread of a process has used: proc_pid_schedstat(5)."""
    return int(Path(f"/proc/{process.pid}/schedstat").read_text().split()[0]) / 1e9


@pytest.mark.parametrize("options", [(), ("direct=off",)], ids=str)
def test_reading_one_name_after_a_seek_costs_no_more_in_a_large_directory(mounted, options):
    many = {f"f{n}": "" for n in range(3000)}
    union = mounted({"d": many}, {"d": {"low": ""}}, options=options)
    begun = _processor_seconds(union.process)
    with Stream(union.path / "d") as stream:
        places = [stream.tell() for _ in range(3000) if stream.read()]
    listed = _processor_seconds(union.process)
    (union.path / "d/new").touch()  # the kernel lets go of what it has of the listing
    with Stream(union.path / "d") as stream:
        for place in random.Random(1).sample(places, 300):
            stream.seek(place)
            assert stream.read()
            stream.rewind()
            assert stream.read() == "."
    sought = _processor_seconds(union.process)
    assert sought - listed < 20 * (listed - begun)  # it is 2 times as much, and was 60


@pytest.mark.tree(SOME)
def test_what_stays_is_listed_once_while_others_come_and_go(tree):
    with Stream(tree) as stream:
        seen = [stream.read() for _ in range(100)]
        for n in range(0, 300, 3):
            (tree / f"f{n:03}").unlink()
        for n in range(100):
            (tree / f"new{n}").write_text("")
        seen += stream.rest()
    stays = [f"f{n:03}" for n in range(300) if n % 3]
    assert [name for name in sorted(seen) if name in set(stays)] == stays
    assert len(seen) == len(set(seen))


@pytest.mark.tree(SOME)
def test_rewinddir_shows_the_directory_as_it_is_then(tree):
    with Stream(tree) as stream:
        stream.rest()
        (tree / "f000").unlink()
        (tree / "new").write_text("")
        stream.rewind()
        assert sorted(stream.rest()) == sorted({".", "..", "new", *SOME} - {"f000"})


@pytest.mark.tree({"d": {f"f{n}": "" for n in range(300)}})
def test_a_directory_is_emptied_while_it_is_listed(tree):
    with os.scandir(tree / "d") as entries:
        for entry in entries:
            os.unlink(entry.path)
    assert os.listdir(tree / "d") == []
    (tree / "d").rmdir()


@pytest.mark.tree({"d": {"f": ""}, "f": "", "e": {}})
def test_rmdir_and_mkdir_refuse_what_they_should(tree):
    assert failure(os.rmdir, tree / "d") == "ENOTEMPTY"
    assert failure(os.rmdir, tree / "f") == "ENOTDIR"
    assert failure(os.rmdir, tree / "none") == "ENOENT"
    assert failure(os.unlink, tree / "d") in ("EISDIR", "EPERM")
    assert failure(os.mkdir, tree / "f") == "EEXIST"
    assert failure(os.mkdir, tree / "none/d") == "ENOENT"
    assert failure(os.rmdir, f"{tree}/e/.") == "EINVAL"
    assert failure(os.rmdir, f"{tree}/e/..") == "ENOTEMPTY"


@pytest.mark.tree({"d": {"f": "old", "e": {"g": ""}}})
def test_a_directory_made_again_is_empty(tree):
    for _ in range(3):
        for name in os.listdir(tree / "d"):
            assert failure(os.unlink, tree / "d" / name) in ("", "EISDIR", "EPERM")
        if (tree / "d/e").exists():
            (tree / "d/e/g").unlink()
            (tree / "d/e").rmdir()
        (tree / "d").rmdir()
        assert os.listdir(tree) == []
        (tree / "d").mkdir()
        assert harvest(tree) == {"d": {}}
        (tree / "d/f").write_text("new")
        assert harvest(tree) == {"d": {"f": "new"}}


@pytest.mark.tree({"d": {"f": ""}})
def test_names_come_and_go_many_times(tree):
    for _ in range(10):
        (tree / "d/f").unlink()
        assert failure(os.stat, tree / "d/f") == "ENOENT"
        assert os.listdir(tree / "d") == []
        (tree / "d/f").symlink_to("x")
        (tree / "d/f").unlink()
        (tree / "d/f").mkdir()
        (tree / "d/f").rmdir()
        (tree / "d/f").write_text("new")
    assert harvest(tree) == {"d": {"f": "new"}}


@pytest.mark.tree({"d": {"e": {}}})
def test_changing_a_directory_changes_its_times(tree):
    for change in (
        lambda d: (d / "f").write_text(""),
        lambda d: (d / "f").rename(d / "g"),
        lambda d: (d / "g").unlink(),
        lambda d: (d / "h").mkdir(),
        lambda d: (d / "h").rmdir(),
        lambda d: (d / "l").symlink_to("x"),
        lambda d: (d / "e").rmdir(),
    ):
        os.utime(tree / "d", ns=(10**9, 10**9))
        change(tree / "d")
        assert (tree / "d").stat().st_mtime_ns > 10**9


@pytest.mark.tree({"d": {"f": "text", "e": {}}})
def test_changing_what_lies_in_a_directory_leaves_its_times(tree):
    os.utime(tree / "d", ns=(10**9, 10**9))
    (tree / "d/f").write_text("new")
    (tree / "d/f").chmod(0o600)
    (tree / "d/e/x").write_text("")
    assert (tree / "d").stat().st_mtime_ns == 10**9


@pytest.mark.unions_only  # a parent's time is no affair of its file system's, but of the union's
@pytest.mark.tree({"d": {"f": "text", "e": {"g": ""}}})
def test_copying_up_leaves_the_times_of_the_directories_above(tree):
    before = [(tree / name).stat().st_mtime_ns for name in (".", "d", "d/e")]
    (tree / "d/e/g").chmod(0o600)
    (tree / "d/f").write_text("new")
    assert [(tree / name).stat().st_mtime_ns for name in (".", "d", "d/e")] == before


@pytest.mark.tree({"f" * 255: "text", "d" * 255: {}})
def test_names_have_up_to_255_bytes(tree):
    assert (tree / ("f" * 255)).read_text() == "text"
    (tree / ("g" * 255)).write_text("new")
    (tree / ("f" * 255)).rename(tree / ("d" * 255) / ("h" * 255))
    assert sorted(os.listdir(tree)) == ["d" * 255, "g" * 255]
    assert os.listdir(tree / ("d" * 255)) == ["h" * 255]
    (tree / ("g" * 255)).unlink()
    os.link(tree / ("d" * 255) / ("h" * 255), tree / ("é" * 127))


# Names for whose whiteouts, with `.wh.` before them, aufs has just room and no more room.
LONG = [letter * length for length in range(251, 256) for letter in "fgde"]


@pytest.mark.tree(
    {name: name[:1] if name[0] in "fg" else {"x": {"y": "y"}} for name in LONG}
    | {"near": "near", "beside": {"under": {"deep": "deep"}}, "other": {"k" * 255: {"z": ""}}}
)
def test_long_names_are_used_like_others(tree):
    with contextlib.chdir(tree):
        for length in range(251, 256):
            f, g, d, e = (letter * length for letter in "fgde")
            _replace_first_bytes(f, "F")
            assert _text(f) == "F"
            os.unlink(f)
            assert failure(os.stat, f) == "ENOENT"
            _replace_first_bytes(_touched(f), "again")
            os.rename(g, "h" * length)
            os.rename("h" * length, f)
            assert _text(f) == "g"
            os.link(f, g)
            os.unlink(f)
            assert failure(os.rmdir, d) == "ENOTEMPTY"
            os.rename(f"{d}/x/y", "near")
            os.rmdir(f"{d}/x")
            os.rename(e, d)
            os.mkdir(e)
            assert os.listdir(e) == []
            os.rename(d, e)
            assert harvest(tree / e) == {"x": {"y": "y"}}
        os.unlink("other/" + "k" * 255 + "/z")
        os.rmdir("other/" + "k" * 255)
        os.rmdir("other")
    kept = {name * length for length in range(251, 256) for name in "ge"}
    assert set(os.listdir(tree)) == kept | {"near", "beside"}
    assert harvest(tree / "beside") == {"under": {"deep": "deep"}}


def _touched(path):
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    return path


@pytest.mark.tree({"f": ""})
def test_names_of_256_bytes_are_too_long(tree):
    long = tree / ("n" * 256)
    for call in (os.stat, os.mkdir, os.rmdir, os.unlink, os.readlink, os.mkfifo):
        assert failure(call, long) == "ENAMETOOLONG", call
    assert failure(os.open, long, os.O_CREAT | os.O_WRONLY) == "ENAMETOOLONG"
    assert failure(os.rename, tree / "f", long) == "ENAMETOOLONG"
    assert failure(os.link, tree / "f", long) == "ENAMETOOLONG"
    assert failure(os.symlink, "f", long) == "ENAMETOOLONG"


@pytest.mark.tree({"f": ""})
def test_names_are_bytes(tree):
    names = [b"\xff\xfe", b"new\nline", b"-rf", b" ", b"*", b"\\", b"a:b,c", b".wh", b"x.wh.y"]
    for name in names:
        with open(os.path.join(os.fsencode(tree), name), "wb") as file:
            file.write(name)
    assert sorted(os.listdir(os.fsencode(tree))) == sorted([*names, b"f"])
    for name in names:
        os.unlink(os.path.join(os.fsencode(tree), name))
    assert os.listdir(tree) == ["f"]


@pytest.mark.without("whiteout=aufs")
@pytest.mark.tree({".wh.f": "text", "f": "f", ".wh..wh..opq": ""})
def test_names_of_whiteouts_are_names_where_whiteouts_have_none(tree):
    assert _text(tree / ".wh.f") == "text"
    assert _text(tree / "f") == "f"
    (tree / ".wh.f").rename(tree / ".wh.new")
    (tree / ".wh..wh..opq").unlink()
    assert sorted(os.listdir(tree)) == [".wh.new", "f"]


@pytest.mark.parametrize("name", [".wh.f", ".wh.", ".wh..wh..opq", ".wh..wh.f"])
def test_names_of_whiteouts_cannot_be_made_nor_seen_where_they_are_taken(mounted, name):
    union = mounted({}, {"d": {"f": ""}}, {"f": "f", "d": {name: ""}}, options=("whiteout=aufs",))
    for directory in (union.path, union.path / "d"):
        path = directory / name
        for call in (os.stat, os.unlink, os.rmdir):
            assert failure(call, path) == "ENOENT", call
        for call in (os.mkdir, os.mkfifo, _touched):
            assert failure(call, path) == "EPERM", call
        assert failure(os.symlink, "f", path) == "EPERM"
        assert failure(os.link, directory / "f", path) == "EPERM"
        assert failure(os.rename, directory / "f", path) == "EPERM"
        assert "f" in os.listdir(directory)
        assert name not in os.listdir(directory)


def nested(depth):
    inner = {"f": "deep"}
    for _ in range(depth):
        inner = {"d" * 100: inner}
    return inner


@pytest.mark.tree(nested(30))
def test_paths_reach_to_path_max(tree):
    path = "/".join(["d" * 100] * 30)
    with contextlib.chdir(tree):
        _replace_first_bytes(f"{path}/f", "DE")
        while len(path) < 3800:
            path += "/" + "e" * 100
            os.mkdir(path)
        room = 4095 - len(f"{tree.name}/{path}/")  # a union's own limit counts from its root
        last = f"{path}/" + "g" * room
        assert failure(os.mkdir, last) == ""
        os.rename(last, last[:-1])
        assert os.listdir(path) == [os.path.basename(last[:-1])]
        os.rename("d" * 100, "D")
        assert _text("D/" + "/".join(["d" * 100] * 29) + "/f") == "DEep"
    shutil.rmtree(tree / "D")


def _text(path):
    with open(path) as file:
        return file.read()


def _replace_first_bytes(path, text):
    with open(path, "r+") as file:
        file.write(text)


# More than one reply to READDIR holds, so that the kernel asks for names alone, too.
MANY = {f"{kind}{number}": "" for number in range(1500) for kind in ("lower", "other")}


@pytest.mark.parametrize("options", [(), ("whiteout=aufs",), ("direct=off",)], ids=str)
def test_a_long_listing_tells_numbers_and_kinds_as_stat_does(mounted, options):
    special = {"link": Link("nowhere"), "directory": {"f": ""}, "gone": ""}
    union = mounted(
        {}, {"d": MANY | special}, {"d": {"bottom": ""}, "e": MANY}, options=options
    ).path
    for number in range(0, 1500, 100):
        (union / "d" / f"other{number}").write_text("copied up")
        os.rename(union / "d" / f"lower{number}", union / "d" / f"moved{number}")
        (union / "d" / f"new{number}").touch()
    os.unlink(union / "d" / "gone")
    os.mkfifo(union / "d" / "fifo")
    for directory, count in (("d", 3000 + 15 + 4), ("e", 3000)):
        seen = {}
        with os.scandir(union / directory) as entries:
            for entry in entries:
                assert entry.name not in seen
                kind = entry.is_file(follow_symlinks=False), entry.is_dir(), entry.is_symlink()
                seen[entry.name] = (entry.inode(), *kind)
        assert len(seen) == count
        for name, told in seen.items():
            st = os.lstat(union / directory / name)
            kinds = stat.S_ISREG(st.st_mode), stat.S_ISDIR(st.st_mode), stat.S_ISLNK(st.st_mode)
            assert told == (st.st_ino, *kinds)
