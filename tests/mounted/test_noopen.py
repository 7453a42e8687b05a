"""Files that are used without being opened, and directories that are read without it."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.mounted.mount import PATIENCE, wait_until

NOOPEN = ("noopen=on",)
LARGE = 64 << 20
TURNS = 3  # of which one suffices: a busy machine may let one thread alone have its turn
# A read past the end of a file asks for its size (fs/fuse/file.c, fuse_cache_read_iter).
USE = (
    "import os, sys\nfd = os.open('f', 0)\nos.read(fd, 4) == b'text' or sys.exit(1)\nos.close(fd)\n"
)


@contextlib.contextmanager
def stopped(process):
    """Let the daemon do nothing at all for a while."""
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


def descriptors(process, below):
    """Return the paths below *below* that the daemon has open, and which of them it can write."""
    found = {}
    for link in Path(f"/proc/{process.pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            target = os.readlink(link)
            flags = Path(f"/proc/{process.pid}/fdinfo/{link.name}").read_text().split()[3]
            if target.endswith(below):
                found[target] = bool(int(flags, 8) & (os.O_WRONLY | os.O_RDWR))
    return found


@pytest.mark.parametrize("place", ["upper", "lower"])
def test_what_is_cached_is_used_without_the_daemon(mounted, place):
    tree = {"f": "text", "d": {"e": ""}}
    union = mounted(tree if place == "upper" else {}, {} if place == "upper" else tree,
                    options=NOOPEN)  # fmt: skip
    assert union.status["kernel"]["noopen"]
    look = [sys.executable, "-c", USE]
    list_all = ["ls", "-R"]
    for command in (look, list_all) * 2:  # reading has the kernel ask for the time of access once
        subprocess.run(command, cwd=union.path, check=True)
    with stopped(union.process):
        for command in (look, list_all):
            subprocess.run(command, cwd=union.path, check=True, timeout=PATIENCE)


def test_files_pass_through_or_are_not_opened(mounted):
    usual = mounted({}, {"f": "text"}).status["kernel"]
    noopen = mounted({}, {"f": "text"}, options=NOOPEN).status["kernel"]
    assert (usual["passthrough"], usual["noopen"]) == (True, False)
    assert (noopen["passthrough"], noopen["noopen"]) == (False, True)


def test_descriptors_that_can_write_are_closed_when_idle(mounted):
    union = mounted({}, {"old": "text"}, options=NOOPEN)

    def is_written_to():
        (union.path / "new").write_text("text")
        return list(descriptors(union.process, "/new").values()) == [True]

    with (union.path / "old").open("a") as file:
        file.write("more")
        file.flush()
        wait_until(is_written_to)  # which it is idle before one looks, where one is kept from it
        wait_until(lambda: not descriptors(union.process, "/new"))
        file.write("and more")
    assert (union.path / "old").read_text() == "textmoreand more"
    wait_until(lambda: True not in descriptors(union.process, "/old").values())


def test_a_descriptor_that_read_the_lower_cannot_write_to_upper(mounted):
    union = mounted({}, {"f": "text"}, options=NOOPEN)
    assert (union.path / "f").read_text() == "text"
    os.truncate(union.path / "f", 3)
    assert (union.path / "f").read_text() == "tex"
    assert not any(descriptors(union.process, "/upper/f").values())


def test_a_removed_file_takes_no_room_when_nobody_has_it_open(mounted):
    union = mounted({}, {}, options=NOOPEN)
    (union.path / "f").write_bytes(b"x" * LARGE)
    with (union.path / "f").open("r+b") as file:
        (union.path / "f").unlink()
        file.write(b"y")
        file.seek(0)
        assert file.read(2) == b"yx"
        assert descriptors(union.process, "/f (deleted)")
    wait_until(lambda: not descriptors(union.process, "/f (deleted)"))


def test_many_files_are_used_at_once(mounted):
    count = 600
    union = mounted({}, {f"f{number}": "text" for number in range(count)}, options=NOOPEN)
    with contextlib.ExitStack() as held:
        files = [
            held.enter_context((union.path / f"f{number}").open("r+b", buffering=0))
            for number in range(count)
        ]
        for turn in range(2):
            for number, file in enumerate(files):
                assert os.pread(file.fileno(), 9, 0) == b"text" + b"%d" % (number % 10) * turn
                os.pwrite(file.fileno(), b"%d" % (number % 10), 4 + turn)
        kept = [path for path in descriptors(union.process, "") if "/upper/f" in path]
        assert 0 < len(kept) <= 256
    for number in range(count):
        assert (union.path / f"f{number}").read_text() == f"text{number % 10}{number % 10}"


def test_others_go_on_while_the_first_write_copies_up(mounted):
    def plant(base):
        for turn in range(TURNS):
            with (base / f"lower1/large{turn}").open("wb") as file:
                for _ in range(LARGE >> 20):
                    file.write(os.urandom(1 << 20))

    union = mounted({}, {"small": "text"}, options=NOOPEN, prepare=plant)
    assert any(_looks_while_written(union, f"large{turn}") > 2 for turn in range(TURNS))


def _looks_while_written(union, name):
    """Write to a large file of the lower; return how often others could look meanwhile."""
    before = (union.path / name).stat().st_size
    with (union.path / name).open("r+b", buffering=0) as large:
        writer = threading.Thread(target=lambda: os.pwrite(large.fileno(), b"new", 5))
        writer.start()
        looks = 0
        while writer.is_alive():
            assert not (union.path / f"none{looks}").exists()
            looks += 1
        writer.join()
        assert os.pread(large.fileno(), 3, 5) == b"new"
    assert (union.path / name).stat().st_size == before
    assert (union.lowers[0] / name).read_bytes()[5:8] != b"new"
    return looks


def test_a_synced_write_is_made_so(mounted):
    union = mounted({}, {"f": "text"}, options=NOOPEN)
    for flag in (os.O_SYNC, os.O_DSYNC):
        fd = os.open(union.path / "f", os.O_WRONLY | flag)
        assert os.write(fd, b"more") == 4
        os.fsync(fd)
        os.close(fd)
    assert (union.upper / "f").read_text() == "more"
