"""Scratch at the start of a mount: emptied, and planted, as what a union over it shows then."""

import contextlib
import os
import stat
from dataclasses import replace

import pytest

from tests.trees import WHITEOUT, File, Link, Opaque, Same, harvest, plant
from unionfs.changes.assembly import union_of
from unionfs.mounting import planting
from unionfs.mounting.opening import open_stack
from unionfs.mounting.options import Options, Refused
from unionfs.view.union import Features, Union

LOWER = {
    "tmp": {"old": "x", "dir": {"file": ""}},
    "var": {
        "log": {"syslog": "s", "apt": {"term.log": "", "deep": {"er": {"file": ""}}}, "empty": {}},
        "lib": {"file": ""},
    },
    "etc": {"passwd": "p"},
}


@pytest.fixture
def bench(tmp_path):
    """Plant layers; call it to open them, prepare scratch and close them again."""
    cwd, umask = os.getcwd(), os.umask(0o22)
    plant(tmp_path / "lower", LOWER)
    for name in ("upper", "work"):
        (tmp_path / name).mkdir()

    def prepared(*, wipe="on", **said):
        layers = {"upper": str(tmp_path / "upper"), "work": str(tmp_path / "work")}
        said.setdefault("lowers", (str(tmp_path / "lower"),))
        options = Options(**layers, wipe=wipe, **said)
        with contextlib.ExitStack() as undo:
            undo.callback(os.chdir, cwd)
            stack = open_stack(options)
            undo.callback(stack.close)
            planting.plant(stack, options)
            Union(stack, Features(whiteout=options.whiteout))

    yield prepared
    os.umask(umask)


def shown(tmp_path, path, *, whiteout="overlay"):
    """Return the names that a union of these layers shows below *path*, directories with a `/`."""
    cwd = os.getcwd()
    layers = {"upper": str(tmp_path / "upper"), "work": str(tmp_path / "work")}
    stack = open_stack(Options(lowers=(str(tmp_path / "lower"),), **layers, whiteout=whiteout))
    try:
        union = Union(stack, Features(whiteout=whiteout))
        node = union.root
        for name in path.encode().split(b"/"):
            node, _ = union.lookup.node(node, name)
        return sorted(_walk(union, node, ""))
    finally:
        os.chdir(cwd)
        stack.close()


def _walk(union, node, above):
    for name in union.listing(node):
        child, _ = union.lookup.node(node, name)
        path = above + name.decode()
        yield path + "/" * child.is_directory
        if child.is_directory:
            yield from _walk(union, child, path + "/")


def test_all_that_another_mount_has_left_is_gone(bench, tmp_path):
    bench()
    deep = tmp_path / "upper/a"
    deep.mkdir()
    here = os.getcwd()
    os.chdir(deep)
    for _ in range(2000):  # deeper than a path may be long, or functions call each other
        os.mkdir("directory")
        os.chdir("directory")
    os.chdir(here)
    plant(tmp_path / "upper", {"etc": {"passwd": WHITEOUT, "x": File("text")}, "l": Link("x")})
    plant(tmp_path / "upper", {"f": "", "g": Same("f"), "var": Opaque(lib={})})
    os.setxattr(tmp_path / "upper", "trusted.overlay.opaque", b"y")
    os.chmod(tmp_path / "upper", 0o700)
    (tmp_path / "work/unionfs/links/1-2-3").write_text("")
    (tmp_path / "work/work/#7").mkdir()
    bench()
    assert harvest(tmp_path / "upper") == {}
    assert "trusted.overlay.opaque" not in os.listxattr(tmp_path / "upper")
    assert stat.S_IMODE(os.stat(tmp_path / "upper").st_mode) == 0o755  # lower's
    assert os.listdir(tmp_path / "work/unionfs/links") == []
    assert os.listdir(tmp_path / "work/work") == []


def test_what_was_never_an_upper_is_not_emptied(bench, tmp_path):
    plant(tmp_path / "upper", {"precious": "file"})
    with pytest.raises(Refused, match="is not empty, and no scratch of a former mount"):
        bench()
    assert harvest(tmp_path / "upper") == {"precious": "file"}


def test_without_wipe_all_stays(bench, tmp_path):
    bench()
    plant(tmp_path / "upper", {"kept": "x"})
    bench(wipe="off")
    assert harvest(tmp_path / "upper") == {"kept": "x"}


@pytest.mark.parametrize("whiteout", ["overlay", "aufs"])
def test_empty_is_an_empty_directory_like_the_one_below(bench, tmp_path, whiteout):
    os.chmod(tmp_path / "lower/tmp", 0o1777)
    os.chown(tmp_path / "lower/var", 5, 6)
    os.utime(tmp_path / "lower/var/log", ns=(5, 7))
    os.setxattr(tmp_path / "lower/var/log", "user.x", b"y")
    bench(planted=(("empty", "/tmp"), ("empty", "/var/log")), whiteout=whiteout)
    assert shown(tmp_path, "tmp", whiteout=whiteout) == []
    assert shown(tmp_path, "var", whiteout=whiteout) == ["lib/", "lib/file", "log/"]
    for path in ("tmp", "var", "var/log"):
        made, like = os.stat(tmp_path / "upper" / path), os.stat(tmp_path / "lower" / path)
        assert [getattr(made, key) for key in ("st_mode", "st_uid", "st_gid")] == [
            getattr(like, key) for key in ("st_mode", "st_uid", "st_gid")
        ]
    assert os.stat(tmp_path / "upper/var/log").st_mtime_ns == 7
    assert os.getxattr(tmp_path / "upper/var/log", "user.x") == b"y"


@pytest.mark.parametrize("whiteout", ["overlay", "aufs"])
def test_dirs_is_the_tree_of_directories(bench, tmp_path, whiteout):
    bench(planted=(("dirs", "/var/log"),), whiteout=whiteout)
    expected = ["apt/", "apt/deep/", "apt/deep/er/", "empty/"]
    assert shown(tmp_path, "var/log", whiteout=whiteout) == expected
    assert shown(tmp_path, "var/lib", whiteout=whiteout) == ["file"]


@pytest.mark.parametrize("path", ["/not/there", "/etc/passwd", "/etc/passwd/x"])
def test_what_is_no_directory_below_is_left_out(bench, tmp_path, path):
    bench(planted=(("empty", path),))
    assert harvest(tmp_path / "upper") == {}


def test_what_begins_bare_may_be_within_what_does(bench, tmp_path):
    bench(planted=(("dirs", "/var"), ("empty", "/var/log"), ("dirs", "/var/log/apt")))
    # The first has made all of /var's directories; what comes later finds its directory there.
    assert "log/syslog" not in shown(tmp_path, "var")
    assert "lib/file" not in shown(tmp_path, "var")


def test_what_persists_is_not_planted_and_shows_in_what_is(bench, tmp_path):
    (tmp_path / "state").mkdir()
    sides = {"state": str(tmp_path / "state"), "persist": ("/var/log/apt/deep", "/var/lib")}
    bench(planted=(("dirs", "/var"), ("empty", "/var/lib")), **sides)
    assert harvest(tmp_path / "upper") == {
        "var": Opaque(log=Opaque(apt=Opaque(), empty=Opaque())),
    }
    cwd = os.getcwd()
    layers = {"upper": str(tmp_path / "upper"), "work": str(tmp_path / "work")}
    options = Options(lowers=(str(tmp_path / "lower"),), **layers, **sides)
    with contextlib.ExitStack() as undo:
        undo.callback(os.chdir, cwd)
        stack = open_stack(options)
        undo.callback(stack.close)
        planting.plant(stack, replace(options, planted=(("dirs", "/var"),)))
        union = union_of(stack, Features())
        var, _ = union.lookup.node(union.root, b"var")
        assert sorted(_walk(union, var, "")) == [
            "lib/", "lib/file", "log/", "log/apt/", "log/apt/deep/", "log/apt/deep/er/",
            "log/apt/deep/er/file", "log/empty/",
        ]  # fmt: skip
