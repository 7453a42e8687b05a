"""Every verb of a layer with a path that is no longer what it was, or is longer than a path can be.

In each of the ways in which paths are walked (`unionfs.descent`): by a mount that follows no
symlink, by openat2(2), and name by name.
"""

import errno
import inspect
import os
import stat
import subprocess

import pytest

from tests.layers import opened
from unionfs.host import syscalls
from unionfs.layers import descent, iflags
from unionfs.layers.layer import WritableLayer

WAYS = ["nosymfollow", "openat2", "name by name"]
_NO_SUCH_CALL = 100_000
_NO_VERBS = {
    "beside", "both_closer", "close", "closer", "is_too_far",
    "learned", "forget", "statvfs",  # of the layer as a whole
}  # fmt: skip
_IN_FD = {"truncate", "write", "allocate", "copy_range", "copy_bytes"}  # these take no path


def _closed(fd):
    os.close(fd)


def _name_a_new_one(layer, path):
    fd = layer.create_unnamed(b".", os.O_RDWR, 0o600)
    try:
        layer.give_name(fd, path)
    finally:
        os.close(fd)


def _mark_nodump(layer, path):
    data = iflags.read(layer, path, iflags.FLAGS)
    layer.set_flags(path, iflags.FLAGS.write, bytes([data[0] | 0x40]) + data[1:])


# What each verb does with the path of a file, "f", a directory, "e", a symlink, "l", or of a name
# that is not taken, "new"; all in the directory that is asked about.
ONE_PATH = {
    "stat": ("f", lambda layer, path: layer.stat(path).st_size),
    "find": ("f", lambda layer, path: layer.find(path).st_size),
    "is_guarded": ("f", lambda layer, path: layer.is_guarded(path)),
    "open": ("f", lambda layer, path: _closed(layer.open(path, os.O_RDONLY))),
    "open_content": ("f", lambda layer, path: _closed(layer.open_content(path))),
    "flags": ("f", lambda layer, path: layer.flags(path, iflags.FLAGS.read, 4)),
    "hold": ("f", lambda layer, path: _closed(layer.hold(path))),
    "readlink": ("l", lambda layer, path: layer.readlink(path)),
    "scan": ("e", lambda layer, path: [entry.name for entry in layer.scan(path)]),
    "attributes": ("f", lambda layer, path: layer.attributes(path)),
    "attribute": ("f", lambda layer, path: layer.attribute(path, "trusted.a")),
    "find_attribute": ("f", lambda layer, path: layer.find_attribute(path, "trusted.b")),
    "create": ("new", lambda layer, path: _closed(layer.create(path, os.O_RDWR, 0o600))),
    "create_unnamed": ("e", lambda layer, path: _closed(layer.create_unnamed(path, os.O_RDWR, 0))),
    "give_name": ("new", _name_a_new_one),
    "open_to_write": (
        "f",
        lambda layer, path: _closed(layer.open_to_write(path, os.O_RDWR | os.O_TRUNC)),
    ),
    "mkdir": ("new", lambda layer, path: layer.mkdir(path, 0o700)),
    "mknod": ("new", lambda layer, path: layer.mknod(path, stat.S_IFIFO | 0o600, 0)),
    "symlink": ("new", lambda layer, path: layer.symlink(b"target", path)),
    "unlink": ("f", lambda layer, path: layer.unlink(path)),
    "rmdir": ("e", lambda layer, path: layer.rmdir(path)),
    "chmod": ("f", lambda layer, path: layer.chmod(path, 0o604)),
    "chown": ("f", lambda layer, path: layer.chown(path, 1, 2)),
    "utime": ("f", lambda layer, path: layer.utime(path, 10**9, 2 * 10**9)),
    "set_attribute": ("f", lambda layer, path: layer.set_attribute(path, "trusted.a", b"2")),
    "set_flags": ("f", _mark_nodump),
    "remove_attribute": ("f", lambda layer, path: layer.remove_attribute(path, "trusted.a")),
}
TWO_PATHS = {
    "link": lambda layer, path, target: layer.link(path, layer, target),
    "move": lambda layer, path, target: layer.move(path, layer, target),
    "exchange": lambda layer, path, target: layer.exchange(path, layer, target),
    "move_and_cover": lambda layer, path, target: layer.move_and_cover(path, layer, target),
}


def test_all_verbs_are_tried():
    verbs = {
        name
        for name, value in inspect.getmembers(WritableLayer, inspect.isfunction)
        if not name.startswith("_") and name not in _NO_VERBS
    }
    assert verbs == {*ONE_PATH, *TWO_PATHS, *_IN_FD}


@pytest.fixture(params=WAYS)
def layered(request, tmp_path, monkeypatch):
    """Make a layer in `top` whose paths are walked in one way."""
    (tmp_path / "top").mkdir()
    made = []

    def build():
        if request.param == "name by name":
            monkeypatch.setattr(syscalls, "_OPENAT2", _NO_SUCH_CALL)
        if request.param == "nosymfollow":
            (fd,) = opened(tmp_path / "top")
        else:
            fd = os.open(tmp_path / "top", os.O_RDONLY)
        made.append(WritableLayer(fd))
        assert descent.follows_no_symlinks(fd) == (request.param == "nosymfollow")
        return made[-1]

    cwd, before = os.getcwd(), set(os.listdir("/proc/self/fd"))
    yield build
    os.chdir(cwd)
    for layer in made:
        layer.close()
    assert set(os.listdir("/proc/self/fd")) == before
    subprocess.run(["rm", "-rf", tmp_path / "top"], check=True)


def fill(directory):
    """Put into the directory at a descriptor what the verbs need."""
    os.fchdir(directory)
    os.mkdir("e")
    os.symlink("nowhere", "l")
    with open("f", "w", encoding="utf-8") as file:
        file.write("text")
    os.setxattr("f", "trusted.a", b"1")
    os.utime("f", (3, 3))


def look(directory):
    """Describe the directory at a descriptor."""
    os.fchdir(directory)
    seen = {}
    for name in sorted(os.listdir(".")):
        st = os.lstat(name)
        features = [st.st_mode, st.st_uid, st.st_gid, st.st_nlink, st.st_rdev, st.st_mtime > 100]
        keys = os.listxattr(name, follow_symlinks=False)
        features += [(key, os.getxattr(name, key, follow_symlinks=False)) for key in keys]
        seen[name] = (*features, st.st_size if stat.S_ISREG(st.st_mode) else 0)
    return seen


def outcome(verb, *arguments):
    try:
        return verb(*arguments)
    except OSError as exc:
        return errno.errorcode[exc.errno]


# Somewhere else by now


@pytest.fixture
def swapped(layered, tmp_path):
    """Make a layer in which the directory `d/b` has become a symlink out of the layer."""
    victim = tmp_path / "victim"
    for directory in (victim, tmp_path / "top/d", tmp_path / "top/d/b"):
        directory.mkdir()
    (victim / "c").mkdir()
    (tmp_path / "top/d/b/c").mkdir()
    for directory in (victim / "c", tmp_path / "top/d/b/c", tmp_path / "top"):
        fd = os.open(directory, os.O_RDONLY)
        fill(fd)
        os.close(fd)
    layer = layered()
    (tmp_path / "top/d/b").rename(tmp_path / "elsewhere")
    (tmp_path / "top/d/b").symlink_to("../../victim")
    held = os.open(victim / "c", os.O_RDONLY)
    before = look(held)
    yield layer
    assert look(held) == before
    os.close(held)


@pytest.mark.parametrize("verb", ONE_PATH)
def test_no_symlink_is_followed_in_the_middle_of_a_path(swapped, verb):
    name, call = ONE_PATH[verb]
    assert outcome(call, swapped, b"d/b/c/" + name.encode()) == "ESTALE"


@pytest.mark.parametrize("verb", TWO_PATHS)
@pytest.mark.parametrize(("path", "target"), [("d/b/c/f", "new"), ("f", "d/b/c/new")])
def test_no_symlink_is_followed_in_the_middle_of_either_path(swapped, verb, path, target):
    paths = path.encode(), target.encode()
    if verb == "exchange":
        paths = path.encode(), target.replace("new", "f").encode()
    assert outcome(TWO_PATHS[verb], swapped, *paths) == "ESTALE"


# Those that a symlink itself would do for are the verbs that are fit for one.
FOLLOWING = ["open", "open_to_write", "chmod"]


@pytest.mark.parametrize("verb", FOLLOWING)
def test_no_symlink_is_followed_at_the_end_of_a_path(layered, tmp_path, verb):
    (tmp_path / "victim").write_text("text")
    (tmp_path / "victim").chmod(0o600)
    (tmp_path / "top/f").symlink_to("../victim")
    assert outcome(ONE_PATH[verb][1], layered(), b"f") == "ESTALE"
    assert (tmp_path / "victim").read_text() == "text"
    assert (tmp_path / "victim").stat().st_mode & 0o777 == 0o600


def test_a_directory_that_became_a_symlink_is_not_listed(layered, tmp_path):
    (tmp_path / "top/d").symlink_to("/")
    assert outcome(ONE_PATH["scan"][1], layered(), b"d") == "ENOTDIR"


def test_a_directory_that_became_a_file_holds_nothing(layered, tmp_path):
    (tmp_path / "top/d").write_text("")
    layer = layered()
    assert layer.find(b"d/f") is None
    assert layer.find(b"none/f") is None
    assert outcome(layer.stat, b"d/f") == "ENOTDIR"
    assert outcome(layer.stat, b"d/e/f") == "ENOTDIR"
    assert outcome(layer.stat, b"none/f") == "ENOENT"


# Far away

_LONG_NAME = b"n" * 250
FAR = {"some steps away": [_LONG_NAME] * 20, "many names away": [b"d"] * 2200}


def _descend(top, names):
    """Make directories one below the other, and return a descriptor of the last."""
    at = os.open(top, os.O_RDONLY)
    for name in names:
        os.mkdir(name, dir_fd=at)
        below = os.open(name, os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    return at


@pytest.mark.parametrize("names", FAR.values(), ids=FAR)
def test_each_verb_does_far_away_what_it_does_nearby(layered, tmp_path, names):
    far, layer = b"/".join(names), layered()
    assert len(far) >= descent.PATH_MAX
    held = [_descend(tmp_path / "top", names), _descend(tmp_path / "top", [b"near"])]
    for directory in held:
        fill(directory)
    for name, call in ONE_PATH.values():
        ends = [outcome(call, layer, path + b"/" + name.encode()) for path in (far, b"near")]
        assert ends[0] == ends[1]
        assert ends[0] not in errno.errorcode.values()
        assert look(held[0]) == look(held[1])
        for directory in held:  # as it was, for the next verb
            _restore(directory)
    for fd in held:
        os.close(fd)


def _restore(directory):
    os.fchdir(directory)
    for name in os.listdir("."):
        (os.rmdir if stat.S_ISDIR(os.lstat(name).st_mode) else os.unlink)(name)
    fill(directory)


@pytest.mark.parametrize("verb", TWO_PATHS)
@pytest.mark.parametrize("backwards", [False, True])
def test_each_verb_reaches_from_far_away_to_nearby_and_back(layered, tmp_path, verb, backwards):
    layer, call = layered(), TWO_PATHS[verb]
    places = {"far": FAR["some steps away"], "near": [b"near"], "a": [b"a"], "b": [b"b"]}
    held = {place: _descend(tmp_path / "top", names) for place, names in places.items()}
    for directory in held.values():
        fill(directory)
    name = b"/l" if verb == "exchange" else b"/new"
    for one, other in (("far", "near"), ("a", "b")):
        source, goal = (other, one) if backwards else (one, other)
        call(layer, b"/".join(places[source]) + b"/f", b"/".join(places[goal]) + name)
    assert look(held["far"]) == look(held["a"]) != look(held["b"])
    assert look(held["near"]) == look(held["b"])
    for fd in held.values():
        os.close(fd)


def test_a_name_that_is_too_long_is_so_anywhere(layered):
    layer = layered()
    assert outcome(layer.stat, b"n" * 256) == "ENAMETOOLONG"
    assert outcome(layer.stat, b"n" * 5000) == "ENAMETOOLONG"
    assert outcome(layer.symlink, b"t" * 5000, b"l") == "ENAMETOOLONG"
