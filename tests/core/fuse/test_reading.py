"""Reads of what is in the page cache, and of what is not."""

import os

import pytest

from unionfs.fuse.reading import LARGE, Reading
from unionfs.host import syscalls

MIB = 1 << 20


@pytest.fixture
def content(tmp_path):
    """A file of 1 MiB and a byte on a disk, in the page cache."""
    path = tmp_path / "file"
    path.write_bytes(os.urandom(MIB + 1))
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)  # what is dirty could not be let go of
    yield fd
    os.close(fd)


@pytest.mark.parametrize(
    ("size", "offset", "count"),
    [
        (MIB, 0, MIB),
        (MIB, 1, MIB),
        (MIB, 4097, MIB + 1 - 4097),
        (LARGE, 4095, LARGE),
        (LARGE - 1, 0, 0),  # small
        (MIB, MIB + 1 - LARGE, LARGE),
        (MIB, MIB + 2 - LARGE, 0),  # little is left
        (MIB, 2 * MIB, 0),
    ],
)
def test_a_large_read_of_what_is_cached_is_known(content, size, offset, count):
    os.pread(content, 2 * MIB, 0)
    assert Reading().cached(content, size, offset) == count


def test_what_is_not_cached_is_not_taken_for_it(content):
    os.posix_fadvise(content, 0, 0, os.POSIX_FADV_DONTNEED)
    assert Reading().cached(content, MIB, 0) == 0
    os.posix_fadvise(content, 0, 0, os.POSIX_FADV_RANDOM)  # so that no more is read than asked for
    os.pread(content, 1, MIB // 2)
    assert Reading().cached(content, MIB, 0) == 0
    os.pread(content, 1, MIB - 1)
    assert Reading().cached(content, MIB, 0) == 0


def test_an_old_kernel_knows_of_no_cache(content, monkeypatch):
    os.pread(content, 2 * MIB, 0)
    monkeypatch.setattr(syscalls, "_CACHESTAT", 100_000)  # ENOSYS
    assert Reading().cached(content, MIB, 0) == 0


def test_what_is_on_its_way_is_not_taken_for_cached(content, monkeypatch):
    os.pread(content, 2 * MIB, 0)
    monkeypatch.setattr(os, "preadv", _would_wait)
    assert Reading().cached(content, MIB, 0) == 0


def _would_wait(*_arguments):
    raise BlockingIOError(11, "in flight")
