"""Programs that change a little of large files, over a RAM upper that could not hold the whole."""

import os
import sqlite3
import subprocess

import pytest

from tests.mounted.mount import Mount

MIB = 1 << 20
GIB = 1 << 30
ROWS = 1500  # a database of some 32 MiB


def _database(path):
    with sqlite3.connect(path) as base:
        base.execute("create table t (k integer primary key, v blob, n integer)")
        base.executemany(
            "insert into t values (?, ?, 0)",
            ((k, bytes([k % 251]) * 20_000) for k in range(ROWS)),
        )
    base.close()


@pytest.fixture
def small_union(base):
    """Mount a RAM upper of 16 MiB over what *fill* makes."""
    made = []

    def build(fill, options=()):
        (base / "lower1").mkdir()
        fill(base / "lower1")
        made.append(Mount(base, lowers=[base / "lower1"], options=("ram=16m", *options)))
        return made[-1].start()

    try:
        yield build
        for mount in made:
            mount.stop()
    finally:
        for mount in made:
            mount.kill()


def _used(union):
    figures = os.statvfs(union.path)
    return (figures.f_blocks - figures.f_bfree) * figures.f_frsize


@pytest.mark.parametrize("mode", ["wal", "delete", "truncate"])
@pytest.mark.parametrize("options", [(), ("noopen=on",)], ids=str)
def test_sqlite_changes_a_large_database(small_union, mode, options):
    u = small_union(lambda lower: _database(lower / "db"), options)
    assert (u.path / "db").stat().st_size > 24 * MIB
    base = sqlite3.connect(u.path / "db", isolation_level=None)
    assert base.execute(f"pragma journal_mode={mode}").fetchone() == (mode,)
    reader = sqlite3.connect(u.path / "db")
    for k in range(0, ROWS, 40):
        base.execute("begin")
        base.execute("update t set n = n + 1 where k = ?", (k,))
        base.execute("insert into t values (?, ?, 5)", (10_000 + k, b"new"))
        base.execute("rollback" if k % 80 else "commit")
        assert reader.execute("select n from t where k = ?", (k,)).fetchone() == (not k % 80,)
    base.execute("delete from t where k between 100 and 110")
    assert base.execute("pragma integrity_check").fetchone() == ("ok",)
    wanted = ROWS - 11 + len(range(0, ROWS, 80))
    assert base.execute("select count(*) from t").fetchone() == (wanted,)
    reader.close()
    base.close()
    again = sqlite3.connect(u.path / "db")
    assert again.execute("pragma integrity_check").fetchone() == ("ok",)
    again.close()
    assert _used(u) < 12 * MIB


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_sqlite_changes_a_database_of_a_gigabyte(small_union, mode):
    def fill(lower):
        with sqlite3.connect(lower / "db") as base:
            base.execute("pragma page_size=4096")
            base.execute("create table t (k integer primary key, n integer, v blob)")
            base.executemany(
                "insert into t values (?, 0, zeroblob(?))", ((k, MIB) for k in range(1024))
            )
        base.close()

    u = small_union(fill)
    assert (u.path / "db").stat().st_size > GIB
    base = sqlite3.connect(u.path / "db", isolation_level=None)
    base.execute(f"pragma journal_mode={mode}")
    for k in range(0, 1024, 8):
        base.execute("update t set n = n + 1 where k = ?", (k,))
    base.close()
    again = sqlite3.connect(u.path / "db")
    assert again.execute("select sum(n), count(*) from t").fetchone() == (128, 1024)
    assert again.execute("pragma quick_check").fetchone() == ("ok",)
    again.close()
    assert _used(u) < 4 * MIB


JOURNAL = """
import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
size = os.fstat(fd).st_size
window = mmap.mmap(fd, size)
end = int.from_bytes(window[8:16], "little")
for number in range(3000):
    entry = b"entry %06d " % number * 4
    if end + len(entry) > size:
        os.posix_fallocate(fd, size, 8 << 20)  # journal-file.c grows a file so
        size += 8 << 20
        window.close()
        window = mmap.mmap(fd, size)
    window[end:end + len(entry)] = entry
    end += len(entry)
    window[8:16] = end.to_bytes(8, "little")
    if number % 500 == 0:
        os.fsync(fd)
window.flush()
os.ftruncate(fd, end)
"""


def test_a_journal_is_appended_to_through_a_map_while_it_is_read(small_union):
    """As journald has it: a header that changes with each entry, and room that is got ahead."""
    begun = GIB

    def fill(lower):
        with (lower / "journal").open("wb") as file:
            file.write(b"LPKSHHRH" + begun.to_bytes(8, "little"))
            file.truncate(begun)
            file.seek(MIB)
            file.write(b"old" * 1000)

    u = small_union(fill)
    reader = (u.path / "journal").open("rb", buffering=0)
    assert reader.read(8) == b"LPKSHHRH"
    subprocess.run(["/usr/bin/python3", "-c", JOURNAL, u.path / "journal"], check=True)
    written = b"".join(b"entry %06d " % number * 4 for number in range(3000))
    reader.seek(8)
    assert int.from_bytes(reader.read(8), "little") == begun + len(written)
    reader.seek(MIB)
    assert reader.read(3000) == b"old" * 1000
    reader.seek(begun)
    assert reader.read() == written
    reader.close()
    assert _used(u) <= 10 * MIB


def test_a_log_grows_by_lines_and_a_cache_is_changed_here_and_there(small_union):
    """As syslog appends, and as apt(8) writes its package cache: sparse, then a few pages."""

    def fill(lower):
        with (lower / "log").open("wb") as file:
            file.truncate(GIB)
            file.seek(0, os.SEEK_END)
            file.write(b"\nthe last line\n")
        with (lower / "cache").open("wb") as file:
            file.truncate(GIB)

    u = small_union(fill)
    with (u.path / "log").open("ab") as log:
        for number in range(2000):
            log.write(b"line %d\n" % number)
            log.flush()
    assert subprocess.run(
        ["tail", "-n", "2", u.path / "log"], check=True, capture_output=True
    ).stdout == b"line 1998\nline 1999\n"  # fmt: skip
    with (u.path / "cache").open("r+b") as cache:
        for at in range(0, GIB, 1 << 24):
            cache.seek(at)
            cache.write(at.to_bytes(8, "little"))
    with (u.path / "cache").open("rb") as cache:
        for at in range(0, GIB, 1 << 24):
            cache.seek(at)
            assert cache.read(16) == at.to_bytes(8, "little") + bytes(8)
    assert _used(u) <= 5 * MIB
