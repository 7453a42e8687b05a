"""Access times, as the options of mount(8) have them: beside a plain mount and kernel overlayfs."""

import contextlib
import functools
import mmap
import os
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from tests.mounted import disks
from tests.mounted.mount import ROOT, Mount
from unionfs.host.mountinfo import top_at

# Seconds after which the clock of file systems has gone on: clock_getres(2).
_CLOCK_REALTIME_COARSE = 5
TICK = 2 * time.clock_getres(_CLOCK_REALTIME_COARSE)

OPTIONS = [
    "relatime", "noatime", "strictatime", "nodiratime", "strictatime,nodiratime",
    "noatime,atime", "strictatime,noatime",
]  # fmt: skip


def read(path):
    path.read_bytes()


def twice(path):
    fd = os.open(path, os.O_RDONLY)
    try:
        os.pread(fd, 100, 0)
        before = os.stat(path).st_atime_ns
        time.sleep(TICK)
        os.pread(fd, 100, 0)
    finally:
        os.close(fd)
    return before


def through_a_map(path):
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as memory:
        memory[0]


def add_and(call):
    def change(path):
        with path.open("ab") as file:
            file.write(b"more")
        return call(path)

    return change


def chmod_and(call):
    def change(path):
        path.chmod(0o600 if path.is_file() else 0o711)
        return call(path)

    return change


def make_and_list(path):
    (path / f"new{time.monotonic_ns()}").touch()
    os.listdir(path)


FILE = {
    "read": read,
    "read again": read,
    "a second read by one open": twice,
    "add and read": add_and(read),
    "read after that": read,
    "add and map": add_and(through_a_map),
    "map": through_a_map,
    "chmod and read": chmod_and(read),
    "read in the end": read,
    "open alone": lambda path: path.open("rb").close(),
    "stat alone": os.stat,
}
DIRECTORY = {
    "list": os.listdir,
    "list again": os.listdir,
    "make something and list": make_and_list,
    "list in the end": os.listdir,
}
LINK = {"readlink": os.readlink, "readlink again": os.readlink}
# After a remount to strictatime; what it caches was settled when the union was mounted.
KEPT_BY_THE_KERNEL = [("d", "list again"), ("d", "list in the end"), ("l", "readlink again")]
STEPS = {"small": FILE, "large": FILE, "d": DIRECTORY, "l": LINK}


def make(top):
    """Make what is read, through the mount: all in upper."""
    (top / "small").write_text("text")
    (top / "large").write_bytes(b"text" * 100_000)
    (top / "d").mkdir()
    (top / "d/in").touch()
    (top / "l").symlink_to("small")


RELATIME = frozenset({"rw", "relatime"})


def told(top):
    """Tell after which steps the access time is another."""
    time.sleep(TICK)
    return {
        (name, step): _is_changed(top / name, call)
        for name, steps in STEPS.items()
        for step, call in steps.items()
    }


def _is_changed(path, call):
    before = os.lstat(path).st_atime_ns
    time.sleep(TICK)
    result = call(path)
    if isinstance(result, int):  # what was meant is the time since then
        before = result
    return os.lstat(path).st_atime_ns != before


@contextlib.contextmanager
def plain(base, options):
    with disks.mounted(base / "plain", "-t", "tmpfs", "-o", options, "tmpfs") as path:
        yield path


@contextlib.contextmanager
def overlay(base, options):
    for name in ("l", "u", "w"):
        (base / name).mkdir()
    layers = f"lowerdir={base}/l,upperdir={base}/u,workdir={base}/w,{options}"
    with disks.mounted(base / "o", "-t", "overlay", "-o", layers, "overlay") as path:
        yield path


@contextlib.contextmanager
def union(base, *options):
    for name in ("lower", "upper", "work"):
        (base / name).mkdir(exist_ok=True)
    mount = Mount(
        base, lowers=[base / "lower"], upper=base / "upper", work=base / "work", options=options
    )
    try:
        yield mount.start()
        mount.stop()
    finally:
        mount.kill()


@pytest.mark.parametrize("options", OPTIONS)
def test_access_times_are_as_the_options_say(base, options):
    with plain(base, options) as path:
        flags = _flags(path)
    expected = _expected(flags)
    with overlay(base, options) as path:
        make(path)
        overlays = told(path)
    with union(base, options) as mount:
        assert _flags(mount.path) == flags
        make(mount.path)
        assert told(mount.path) == expected, overlays


@pytest.mark.parametrize("host", ["noatime", "strictatime"])
def test_the_mount_of_upper_does_not_decide(base, host):
    expected = _expected(RELATIME)
    (base / "disk").mkdir()
    with (
        disks.mounted(base / "disk", "-t", "tmpfs", "-o", host, "tmpfs") as disk,
        union(disk) as mount,
    ):
        make(mount.path)
        assert told(mount.path) == expected


def remount(mount, options):
    words = mount.command("mount", "-o", f"remount,{options}", mount.path)
    subprocess.run(words, check=True, cwd=ROOT)


def _flags(path):
    return top_at(str(path)).flags


@functools.cache
def _expected(flags):
    """Return what is told of a plain mount that has these flags."""
    words = "strictatime" if not flags & {"noatime", "relatime"} else "rw"
    with (
        tempfile.TemporaryDirectory() as base,
        plain(Path(base), ",".join({words, *flags})) as path,
    ):
        assert _flags(path) == flags
        make(path)
        return told(path)


@pytest.mark.parametrize(
    "options",
    ["noatime", "relatime", "strictatime", "nodiratime", "diratime", "atime"],
)
@pytest.mark.parametrize("before", ["noatime", "relatime", "strictatime", "nodiratime"])
def test_and_so_they_are_after_a_remount(base, before, options):
    with plain(base, before) as path:
        subprocess.run(["mount", "-o", f"remount,{options}", path], check=True)
        flags = _flags(path)
    expected = _expected(flags)
    with union(base, before) as mount:
        (mount.path / "before").mkdir()
        make(mount.path / "before")
        told(mount.path / "before")
        remount(mount, options)
        assert _flags(mount.path) == flags
        make(mount.path)
        shown = told(mount.path)
        for kept in KEPT_BY_THE_KERNEL if "strictatime" not in before else ():
            shown[kept] = expected[kept]
        assert shown == expected


def test_a_remount_keeps_the_rest(base):
    with union(base, "dirsync", "sync", "nosuid") as mount:
        before = top_at(str(mount.path))
        assert {"dirsync", "sync"} <= before.options.keys()
        remount(mount, "noexec")
        after = top_at(str(mount.path))
        assert (after.flags, after.options) == (before.flags | {"noexec"}, before.options)


def test_none_is_set_while_the_union_is_read_only(base):
    with union(base) as mount:
        make(mount.path)
        remount(mount, "ro")
        paths = [mount.path / name for name in ("small", "large", "d", "l")]
        before = [os.lstat(path).st_atime_ns for path in paths]
        time.sleep(TICK)
        for path, call in zip(paths, (read, read, os.listdir, os.readlink), strict=True):
            call(path)
        assert [os.lstat(path).st_atime_ns for path in paths] == before
        remount(mount, "rw")
        (mount.path / "small").chmod(0o600)
        time.sleep(TICK)
        read(mount.path / "small")
        assert (mount.path / "small").stat().st_atime_ns != before[0]


@pytest.mark.parametrize("options", ["relatime", "strictatime"])
def test_those_of_a_lower_never_change(base, options):
    (base / "lower").mkdir()
    make(base / "lower")
    names = ["small", "large", "d", "l", "d/in"]
    before = [os.lstat(base / "lower" / name) for name in names]
    with union(base, options) as mount:
        for name, call in zip(names, (read, read, os.listdir, os.readlink, read), strict=True):
            call(mount.path / name)
        shown = [os.lstat(mount.path / name).st_atime_ns for name in names]
        (mount.path / "small").chmod(0o600)
        (mount.path / "d/in").write_text("new")
    assert shown == [st.st_atime_ns for st in before]
    assert [os.lstat(base / "lower" / name) for name in names] == before


@pytest.mark.parametrize("options", ["relatime", "noatime", "strictatime,nodiratime"])
@pytest.mark.parametrize(
    "way", ["passthrough=off", "direct=off", "loop=off", "handshake=off", "noopen=on"]
)
def test_without_passthrough_and_opens_some_reads_do_not_count(base, way, options):
    with union(base, way, options) as mount:
        expected = _expected(_flags(mount.path))
        make(mount.path)
        shown = told(mount.path)
    uncounted = {case for case in expected if shown[case] != expected[case]}
    assert not any(shown[case] for case in uncounted)
    assert uncounted <= _limits(way, options)


def _limits(way, options):
    """Return the cases of which docs/limits.md says that they do not count."""
    if options == "noatime":
        return set()
    if way == "noopen=on":
        return {(name, step) for name in ("small", "large") for step in FILE}
    if options == "relatime":
        return set()
    return {(name, "a second read by one open") for name in ("small", "large")}
