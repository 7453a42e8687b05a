"""Large files cross the sides of a union: others are served, and what is written is not lost."""

import contextlib
import mmap
import os
import threading
import time

import pytest

from tests.mounted import disks
from tests.mounted.mount import Mount
from unionfs.host.syscalls import RENAME_EXCHANGE, renameat2

LARGE = 64 << 20
LOWER = {"s": {"old": "old"}, "p": {"old": "old"}, "t": {}}


WAYS = {"direct": (), "libfuse": ("direct=off",)}
TURNS = 3  # of which one suffices: a busy machine may let one thread alone have its turn


@contextlib.contextmanager
def made(base, way):
    """A union with all in /p on a disk, where fsync(2) takes its time, and scratch in RAM."""
    with contextlib.ExitStack() as held:
        disk = held.enter_context(disks.writable("ext4", base, 512))
        lower = base / "lower1"
        options = ("ram=600M", f"statedir={disk}", "persist=/p", "state-required", *WAYS[way])
        mount = Mount.planted(base, None, LOWER, options=options)
        for name in ("p/low", "t/low"):
            with (lower / name).open("wb") as file:
                file.write(os.urandom(1 << 20) * (LARGE >> 20))
        mount.start()
        try:
            yield mount
            mount.stop()
        finally:
            mount.kill()


@pytest.fixture(params=WAYS)
def union(base, request):
    with made(base, request.param) as mount:
        yield mount


def dense(path):
    """Make a large file of which no block is like another file's."""
    with path.open("wb") as file:
        for _ in range(LARGE >> 20):
            file.write(os.urandom(1 << 20))
    return path


def in_part(path):
    """Write a page of a large file of the lower, which comes up in part."""
    free = os.statvfs(path).f_bfree
    with path.open("r+b") as file:
        file.seek(LARGE // 2)
        file.write(b"new" * 2000)
    assert free - os.statvfs(path).f_bfree <= 16
    return path


def names(top):
    return {"s": sorted(os.listdir(top / "s")), "p": sorted(os.listdir(top / "p"))}


def linked(top):
    os.link(top / "p/new", top / "s/second")


CHANGES = {  # name: (what is made first, what is done, what is there then beside `old`)
    "to state": (
        lambda top: dense(top / "s/new"),
        lambda top: os.rename(top / "s/new", top / "p/new"),
        ([], ["low", "new"]),
    ),
    "to scratch, over a file": (
        lambda top: dense(top / "p/new"),
        lambda top: os.rename(top / "p/new", top / "s/old"),
        ([], ["low"]),
    ),
    "of the lower, to scratch": (
        lambda _top: None,
        lambda top: os.rename(top / "p/low", top / "s/low"),
        (["low"], []),
    ),
    "linked in state": (
        lambda top: dense(top / "s/new"),
        lambda top: os.link(top / "s/new", top / "p/new"),
        (["new"], ["low", "new"]),
    ),
    "the last name in state": (
        lambda top: (dense(top / "p/new"), linked(top)),
        lambda top: os.unlink(top / "p/new"),
        (["second"], ["low"]),
    ),
    "replaced, the last name in state": (
        lambda top: (dense(top / "p/new"), linked(top)),
        lambda top: os.rename(top / "p/old", top / "p/new"),
        (["second"], ["low", "new"]),
    ),
    "in part, to state": (
        lambda top: in_part(top / "t/low"),
        lambda top: os.rename(top / "t/low", top / "p/new"),
        ([], ["low", "new"]),
    ),
    "in part, linked in state": (
        lambda top: in_part(top / "t/low"),
        lambda top: os.link(top / "t/low", top / "p/new"),
        ([], ["low", "new"]),
    ),
    "in part, exchanged": (
        lambda top: in_part(top / "t/low"),
        lambda top: renameat2(
            -100, os.fsencode(top / "t/low"), -100, os.fsencode(top / "p/low"), RENAME_EXCHANGE
        ),
        ([], ["low"]),
    ),
    "exchanged": (
        lambda top: dense(top / "s/new"),
        lambda top: renameat2(
            -100, os.fsencode(top / "s/new"), -100, os.fsencode(top / "p/low"), RENAME_EXCHANGE
        ),
        (["new"], ["low"]),
    ),
    "attributes in state": (
        lambda _top: None,
        lambda top: os.chmod(top / "p/low", 0o600),
        ([], ["low"]),
    ),
    "an extended attribute in state": (
        lambda _top: None,
        lambda top: os.setxattr(top / "p/low", "user.a", b"1"),
        ([], ["low"]),
    ),
    "renamed in state": (
        lambda _top: None,
        lambda top: os.rename(top / "p/low", top / "p/high"),
        ([], ["high"]),
    ),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", CHANGES)
def test_others_are_served_while_a_large_file_crosses(base, case, way):
    assert any(_is_noticed_by_nobody(base / str(turn), case, way) for turn in range(TURNS))


def _is_noticed_by_nobody(base, case, way):
    """Have a large file cross; tell whether others were served meanwhile, and soon."""
    base.mkdir()
    with made(base, way) as union:
        return _crosses_unnoticed(union.path, case)


def _crosses_unnoticed(top, case):
    prepare, change, (scratch, state) = CHANGES[case]
    prepare(top)
    time.sleep(0.05)  # as a user who types
    changing = threading.Thread(target=change, args=(top,))
    longest = count = 0
    begun = time.perf_counter()
    changing.start()
    while changing.is_alive():
        before = time.perf_counter()
        os.stat(top)
        os.listdir(top)
        (top / "other").write_text("x")
        longest = max(longest, time.perf_counter() - before)
        count += 1
    took = time.perf_counter() - begun
    changing.join()
    expected = {"s": sorted({"old", *scratch}), "p": sorted({"old", *state})}
    if "replaced" in case:
        expected["p"].remove("old")
    assert names(top) == expected
    print(f"{count} times, the longest {longest:.3f} of {took:.3f} s")  # noqa: T201
    return count > 2 and longest < max(took / 2, 0.5)


@pytest.mark.parametrize("change", [os.rename, os.link], ids=["renamed", "linked"])
def test_a_file_in_part_takes_its_content_to_state_and_no_room_in_scratch(union, change):
    path, new = in_part(union.path / "t/low"), union.path / "p/new"
    model = bytearray(path.read_bytes())
    free = os.statvfs(path).f_bfree
    with path.open("r+b", buffering=0) as file:
        change(path, new)
        assert new.read_bytes() == model
        os.pwrite(file.fileno(), b"then", 5)
        model[5:9] = b"then"
    assert os.statvfs(union.path / "t").f_bfree >= free - 16
    assert new.read_bytes() == model
    if change is os.link:
        assert path.samefile(new)
        new.unlink()
        new = path
        assert new.read_bytes() == model
    else:
        union.remount()
        assert new.read_bytes() == model


@pytest.mark.parametrize(
    "make", [lambda top: dense(top / "s/new"), lambda top: in_part(top / "t/low")]
)
def test_what_is_written_by_a_map_meanwhile_is_not_lost(union, make):
    path = make(union.path)
    with path.open("r+b") as file, mmap.mmap(file.fileno(), LARGE) as view:
        time.sleep(0.05)
        over = threading.Event()
        last = 0

        def write():
            nonlocal last
            while not over.is_set():
                last += 1
                view[0:8] = last.to_bytes(8, "big")
                view.flush(0, mmap.PAGESIZE)

        writing = threading.Thread(target=write)
        writing.start()
        os.rename(path, union.path / "p/new")
        over.set()
        writing.join()
    assert int.from_bytes((union.path / "p/new").read_bytes()[:8], "big") == last


def test_two_who_move_one_file_at_once(union):
    dense(union.path / "s/new")
    time.sleep(0.05)
    said = []

    def move(name):
        try:
            os.rename(union.path / "s/new", union.path / "p" / name)
        except OSError as exc:
            said.append(exc.errno)

    movers = [threading.Thread(target=move, args=(name,)) for name in ("one", "two")]
    for mover in movers:
        mover.start()
    for mover in movers:
        mover.join()
    assert said == [2]  # ENOENT
    assert len(names(union.path)["p"]) == 3
