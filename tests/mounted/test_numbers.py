"""Inode numbers over every pair of file systems: short, each given once, listed as told by stat."""

import contextlib
import os
import subprocess

import pytest

from tests.core.driver import Driver
from tests.mounted import disks
from tests.mounted.mount import Mount
from tests.mounted.witness import apart
from tests.trees import Link, Same, plant
from unionfs.mounting.opening import open_stack
from unionfs.mounting.options import Options
from unionfs.view.listings import Listings
from unionfs.view.union import Features

LOWERS = ("ext4", "xfs", "btrfs", "tmpfs", "squashfs", "erofs", "overlay")
UPPERS = ("ext4", "xfs", "btrfs", "tmpfs")
SHORT = 1 << 32


def _tree(kind):
    inner = {f"{kind}.g": "g", "s": {f"{kind}.h": "h"}}
    return {
        kind: {"f": "f"},
        f"{kind}.f": "f",
        f"{kind}.one": "1",
        f"{kind}.two": Same(f"{kind}.one"),
        f"{kind}.l": Link("f"),
        "d": inner,
    }


@pytest.fixture(scope="module")
def lowers(aside):
    """A directory on each kind of file system, by its kind."""
    with contextlib.ExitStack() as stack:
        base = aside("lowers")
        made = {}
        for kind in LOWERS:
            (base / f"{kind}-base").mkdir()
            made[kind] = stack.enter_context(
                disks.lower(
                    kind, base / f"{kind}-base", lambda path, kind=kind: plant(path, _tree(kind))
                )
            )
        yield made


@pytest.fixture(scope="module")
def uppers(aside):
    """Another file system of each kind that can be written to."""
    with contextlib.ExitStack() as stack:
        base = aside("uppers")
        yield {kind: stack.enter_context(disks.writable(kind, base)) for kind in UPPERS}


@pytest.fixture
def writable(uppers, request):
    """Make an upper and a work of one test on a file system of a kind."""

    def make(kind):
        place = uppers[kind] / request.node.name
        for name in ("upper", "work"):
            (place / name).mkdir(parents=True)
        return place / "upper", place / "work"

    return make


def _numbers(u, path="", *, backwards=False):
    """Map all paths to their numbers; they are listed with those that they are looked up with."""
    directory = u.node(path)
    told = [entry[:2] for entry in Listings(u.union).read_names(directory, 0)][2:]
    numbers = {}
    for name, ino in sorted(told, reverse=backwards):
        child = os.path.join(path, name.decode())
        node = u.node(child)
        assert node.ino == ino, child
        numbers[child] = ino
        if node.is_directory:
            numbers |= _numbers(u, child, backwards=backwards)
    return numbers


def _require_short_and_single(numbers):
    assert all(1 < ino < SHORT for ino in numbers.values()), numbers
    paths = [path for path in numbers if not path.endswith(".two")]
    assert len({numbers[path] for path in paths}) == len(paths), numbers
    assert all(
        numbers[path] == numbers[path.replace("two", "one")] for path in numbers.keys() - paths
    )


def _check(lowers, upper=None, work=None):
    """Look at all, copy all up and make new objects, look again, and so after a remount."""
    writable = {"upper": str(upper), "work": str(work)} if upper else {}
    options = Options(lowers=tuple(map(str, lowers)), **writable)

    def opened():
        return Driver(open_stack(options), Features(fsync="off"), None)

    u = opened()
    first = _numbers(u)
    _require_short_and_single(first)
    if upper:
        for path in first:
            u.change(path, uid=7)
        for path in [*first, ""]:
            if u.node(path).is_directory:
                u.create(os.path.join(path, "new"))
                u.mkdir(os.path.join(path, "newdir"))
    after = _numbers(u)
    _require_short_and_single(after)
    assert {path: after[path] for path in first} == first
    u.close()
    again = opened()
    assert _numbers(again, backwards=True) == after
    again.close()


@pytest.mark.parametrize("upper", UPPERS)
@pytest.mark.parametrize("lower", LOWERS)
def test_a_lower_and_an_upper_on_any_two_file_systems(lowers, writable, lower, upper):
    apart(_check, [lowers[lower]], *writable(upper))


@pytest.mark.parametrize("one", LOWERS)
def test_two_lowers_on_any_two_file_systems(lowers, one):
    for other in LOWERS:
        if other != one:
            apart(_check, [lowers[one], lowers[other]])


@pytest.mark.parametrize("kind", LOWERS)
def test_a_single_lower_on_any_file_system_shows_the_numbers_of_its_host(lowers, kind):
    apart(_check, [lowers[kind]])


def _as_on_the_host(lower):
    u = Driver(open_stack(Options(lowers=(str(lower),))), Features(), None)
    numbers = _numbers(u)
    u.close()
    return numbers, {path: (lower / path).lstat().st_ino for path in numbers}


@pytest.mark.parametrize("kind", [kind for kind in LOWERS if kind != "squashfs"])
def test_numbers_on_one_file_system_are_those_of_the_host(lowers, kind):
    shown, host = apart(_as_on_the_host, lowers[kind])
    assert shown == host


@pytest.mark.parametrize("upper", UPPERS)
def test_all_of_them_at_once(lowers, writable, upper):
    apart(_check, list(lowers.values()), *writable(upper))


# A program of 32 bits that makes the old system calls itself: stat(2), getdents(2).
PROGRAM = """
static int sys(int n, int a, int b, int c) {
  int r;
  __asm__ volatile("int $0x80" : "=a"(r) : "a"(n), "b"(a), "c"(b), "d"(c) : "memory");
  return r;
}
static char buffer[32768];
void _start(void) {
  int told = sys(106, (int)"ext4.f", (int)buffer, 0), fd = sys(5, (int)"d", 0x10000, 0);
  sys(1, (told < 0 ? 1 : 0) | (sys(141, fd, (int)buffer, sizeof buffer) < 0 ? 2 : 0), 0, 0);
}
"""


@pytest.fixture(scope="module")
def program(aside):
    if os.uname().machine != "x86_64":
        pytest.skip("int $0x80 is that of x86")
    path = aside("program") / "program"
    alone = ["-fno-stack-protector", "-fno-pie", "-no-pie", "-nostdlib", "-static"]
    words = ["gcc", "-m32", "-O1", *alone, "-x", "c", "-", "-o", path]
    subprocess.run(words, input=PROGRAM, text=True, check=True)
    return path


@pytest.mark.parametrize("upper", [None, "ext4", "ram"])
def test_a_program_with_32_bit_numbers_can_stat_and_list(base, lowers, writable, program, upper):
    words = {"ram": {"options": ("ram=16M",)}, None: {}}.get(upper)
    if words is None:
        words = dict(zip(("upper", "work"), writable(upper), strict=True))
    mount = Mount(base, lowers=lowers.values(), **words)
    try:
        mount.start()
        if upper:
            (mount.path / "ext4.f").chmod(0o600)
            (mount.path / "d/new").touch()
        assert subprocess.run([program], cwd=mount.path, check=False).returncode == 0
        for directory in (mount.path, mount.path / "d", mount.path / "d/s"):
            with os.scandir(directory) as entries:
                for entry in entries:
                    assert entry.inode() == os.lstat(entry.path).st_ino < SHORT, entry.path
        mount.stop()
    finally:
        mount.kill()


# Where the host's own numbers are not one row


@contextlib.contextmanager
def _overlay_of_two(base, _tree):
    """A kernel overlay over two file systems: its files are on devices of their own."""
    with disks.writable("tmpfs", base) as other, disks.writable("ext4", base) as below:
        plant(below / "l", {"d": {"f": "", "sub": {"g": ""}}, "f": ""})
        for name in ("over", "work"):
            (other / name).mkdir()
        options = f"lowerdir={below}/l,upperdir={other}/over,workdir={other}/work,xino=off"
        with disks.mounted(base / "overlay", "-t", "overlay", "-o", options, "overlay") as path:
            (path / "new").touch()
            yield path


@contextlib.contextmanager
def _mergerfs(base, tree):
    """Its directories list other numbers than stat(2) tells."""
    with disks.mounted(base / "pool", "-t", "fuse.mergerfs", plant(base / "m", tree)) as path:
        yield path


def _agree(lower):
    u = Driver(open_stack(Options(lowers=(str(lower),))), Features(), None)
    numbers = _numbers(u)
    u.close()
    return numbers


@pytest.mark.parametrize("lower", [_overlay_of_two, _mergerfs])
def test_numbers_are_listed_as_told_by_stat_whatever_the_host_lists(base, lower):
    with lower(base, {"d": {"f": "", "sub": {"g": ""}}, "f": "", "new": ""}) as path:
        numbers = apart(_agree, path)
        assert sorted(numbers) == ["d", "d/f", "d/sub", "d/sub/g", "f", "new"]
        assert len(set(numbers.values())) == len(numbers)
