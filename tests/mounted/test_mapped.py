"""What the kernel changes in a file by itself, when a mapping is written to: times and blocks.

Where data passes through it shows at once, as on any file system; where not, when the kernel
writes back what it has cached: at msync(2), munmap(2) and close(2) at the latest (mmap(2): "may be
updated any time").
"""

import contextlib
import ctypes
import mmap
import os
import subprocess
import time

import pytest

from tests.mounted.witness import as_user

_SMALL = "x" * 9000
_LARGE = "x" * 400_000  # passes through when it is opened to be written
BOTH = {"small": _SMALL, "large": _LARGE}

cached = pytest.mark.without("passthrough=off", "noopen=on", "handshake=off")

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *3 * [ctypes.c_int], ctypes.c_long]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_libc.msync.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_MS_SYNC = 4


class Map:
    """A shared mapping of a whole file; unlike the module's it keeps no descriptor."""

    def __init__(self, fd):
        self.size = os.fstat(fd).st_size
        rights = mmap.PROT_READ | mmap.PROT_WRITE
        self.at = _libc.mmap(None, self.size, rights, mmap.MAP_SHARED, fd, 0)
        assert self.at != ctypes.c_void_p(-1).value

    def write(self, text, offset=0):
        ctypes.memmove(self.at + offset, text, len(text))

    def sync(self):
        assert _libc.msync(self.at, self.size, _MS_SYNC) == 0

    def end(self):
        assert _libc.munmap(self.at, self.size) == 0


@contextlib.contextmanager
def mapped(path):
    """Map a file whose descriptor is closed at once."""
    fd = os.open(path, os.O_RDWR)
    made = Map(fd)
    os.close(fd)
    try:
        yield made
    finally:
        made.end()


def seen(path, *others):
    """Return mtime, ctime and blocks, which all ways to look at a file agree on."""
    in_short = seen_in_short(path)
    looks = [os.stat(each) for each in (path, *others)]
    fd = os.open(path, os.O_RDONLY)
    looks.append(os.fstat(fd))
    os.close(fd)
    with os.scandir(os.path.dirname(path)) as entries:
        looks += [entry.stat() for entry in entries if entry.name == os.path.basename(path)]
    (all_see,) = {in_short, *((st.st_mtime_ns, st.st_ctime_ns, st.st_blocks) for st in looks)}
    return all_see


def seen_in_short(path):
    """Return the same as stat(1) sees it, which asks the kernel for these alone: statx(2)."""
    command = ("stat", "-c", "%.9Y %.9Z %b", path)
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return tuple(int(word.replace(".", "")) for word in out.split())


def let_the_clock_go_on():
    """Wait until times differ: a file's are those of the last tick, some milliseconds apart."""
    before = time.clock_gettime_ns(time.CLOCK_REALTIME)
    while time.clock_gettime_ns(time.CLOCK_REALTIME) < before + 25_000_000:
        time.sleep(0.005)


def is_newer(after, before):
    return after[0] > before[0] and after[1] > before[1]


@pytest.mark.tree(BOTH)
@pytest.mark.parametrize("name", BOTH)
def test_after_msync_all_see_the_new_times(tree, name):
    path, link = tree / name, tree / f"{name}-link"
    path.open("r+b").close()  # with passthrough=all an older reader would stay below, as it may
    os.link(path, link)
    reader = os.open(path, os.O_RDONLY)
    before = seen(path, link, reader)
    let_the_clock_go_on()
    with mapped(path) as view:
        view.write(b"new")
        view.sync()
        after = seen(path, link, reader)
        assert is_newer(after, before)
    assert seen(path, link, reader) == after
    os.close(reader)
    assert path.read_bytes()[:4] == b"newx"


@pytest.mark.tree(BOTH)
@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("first", ["munmap", "close"])
def test_when_a_map_and_its_descriptor_are_gone_all_see_the_new_times(tree, name, first):
    path = tree / name
    for _ in range(2):
        before = seen(path)
        let_the_clock_go_on()
        fd = os.open(path, os.O_RDWR)
        view = Map(fd)
        view.write(b"new")
        ends = [view.end, lambda fd=fd: os.close(fd)]
        for end in ends if first == "munmap" else reversed(ends):
            end()
        assert is_newer(seen(path), before)
        assert seen(path) == seen(path)


@cached
@pytest.mark.tree(BOTH)
def test_where_data_passes_through_the_new_times_are_seen_at_once(tree):
    path = tree / "large"
    for _ in range(2):
        with mapped(path) as view:
            for turn in range(3):
                before = seen(path)
                assert seen(path) == before
                let_the_clock_go_on()
                view.write(b"new", turn * 8192)
                assert is_newer(seen(path), before)


@cached
@pytest.mark.tree(BOTH)
def test_a_file_just_made_is_seen_to_change(tree):
    fd = os.open(tree / "new", os.O_RDWR | os.O_CREAT)
    os.write(fd, _LARGE.encode())
    before = seen(tree / "new")
    view = Map(fd)
    os.close(fd)
    let_the_clock_go_on()
    view.write(b"new")
    assert is_newer(seen(tree / "new"), before)
    view.end()


@cached
@pytest.mark.tree(BOTH)
def test_a_map_that_lasts_is_seen_through_every_close_and_open(tree):
    path = tree / "large"
    with mapped(path) as view:
        for turn in range(4):
            before = seen(path)
            let_the_clock_go_on()
            flags = os.O_RDONLY if turn % 2 else os.O_WRONLY
            os.close(os.open(path, flags))
            seen(path)
            view.write(b"new", turn * 8192)
            after = seen(path)
            assert is_newer(after, before)
            assert after == seen(path)


@cached
@pytest.mark.tree({})
def test_room_that_a_map_takes_is_seen(tree):
    path = tree / "f"
    with path.open("wb") as file:
        file.truncate(1 << 20)
    before = seen(path)
    with mapped(path) as view:
        for offset in range(0, 1 << 20, 4096):
            view.write(b"new", offset)
        view.sync()
        assert seen(path)[2] >= before[2] + (1 << 11)


@cached
@pytest.mark.tree(BOTH)
def test_a_time_that_is_set_while_a_map_lasts_stays(tree):
    path = tree / "large"
    with mapped(path) as view:
        view.write(b"new")
        os.utime(path, ns=(5, 10**18))
        assert os.stat(path).st_mtime_ns == 10**18
    assert [os.stat(path).st_mtime_ns for _ in range(3)] == [10**18] * 3


@pytest.mark.unions_only  # a row of the table of limits
@pytest.mark.without(
    "upper", "lower", "passthrough=all", "direct=off", "loop=off", "metacopy=off", "whiteout=aufs",
    "far=all",
)  # fmt: skip
@pytest.mark.tree(BOTH)
def test_without_passthrough_a_time_that_is_set_before_the_map_is_written_back_is_overwritten(tree):
    with mapped(tree / "large") as view:
        view.write(b"new")
        before = os.stat(tree / "large")
        os.utime(tree / "large", ns=(5, 10**18))
        view.sync()
        assert os.stat(tree / "large").st_mtime_ns > before.st_mtime_ns


@pytest.mark.tree(BOTH)
def test_find_and_make_see_what_was_written_through_a_map(tree):
    (tree / "Makefile").write_text("out: large\n\t@echo made; touch out\n")

    def say(*command):
        return subprocess.run(command, cwd=tree, check=True, capture_output=True, text=True).stdout

    assert say("make", "-s", "--no-print-directory") == "made\n"
    assert say("find", "large", "-newer", "out") == ""
    let_the_clock_go_on()
    with mapped(tree / "large") as view:
        view.write(b"new")
    assert say("find", "large", "-newer", "out") == "large\n"
    assert say("make", "-s", "--no-print-directory") == "made\n"


@pytest.mark.tree({"f": _LARGE}, prepare=lambda path: (path / "f").chmod(0o755))
def test_set_id_bits_that_fall_at_a_write_are_seen_to_fall(tree):
    with (tree / "f").open("r+b", buffering=0) as file:
        for _ in range(2):
            os.fchmod(file.fileno(), 0o6755)
            assert os.stat(tree / "f").st_mode & 0o7777 == 0o6755
            assert as_user(file.write, b"x") == 1
            assert os.fstat(file.fileno()).st_mode & 0o7777 == 0o755
            assert os.stat(tree / "f").st_mode & 0o7777 == 0o755
