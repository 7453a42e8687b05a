"""A RAM upper of 16 MiB runs full: every program hears ENOSPC, and nothing is torn."""

import errno
import os
import stat
import time

import pytest

from . import contender, disks
from .contender import Place
from .trees import harvest

_SIZE = 16 * disks.MIB
_LOWER_FILE = 3 * disks.MIB


@pytest.fixture
def full(directory):
    """A union over a lower of eight files of 3 MiB, its upper on a tmpfs of 16 MiB."""
    for name in ("lower", "ram", "mnt"):
        os.mkdir(f"{directory}/{name}")
    for number in range(8):
        with open(f"{directory}/lower/{number}", "wb") as file:
            file.write(bytes([65 + number]) * _LOWER_FILE)
    # tmpfs takes the room for attributes from that for inodes, 1 KiB each (mm/shmem.c).
    disks.run("mount", "-t", "tmpfs", "-o", "size=16m,nr_inodes=16k", "tmpfs", f"{directory}/ram")
    try:
        for name in ("upper", "work"):
            os.mkdir(f"{directory}/ram/{name}")
        place = Place(
            f"{directory}/lower", f"{directory}/ram/upper", f"{directory}/ram/work",
            f"{directory}/mnt",
        )  # fmt: skip
        with contender.union(place):
            yield place
            assert os.listdir(f"{place.work}/work") == []
    finally:
        disks.unmount(f"{directory}/ram")


def _write(top: str) -> None:
    number = 0
    while True:
        with open(f"{top}/w{number}", "wb", buffering=0) as file:
            for _ in range(16):
                if file.write(b"w" * 65536) != 65536:
                    raise OSError(errno.ENOSPC, "short write")
        number += 1


def _append(top: str) -> None:
    for number in range(8):
        with open(f"{top}/{number}", "ab", buffering=0) as file:
            file.write(b"more")


def _shrink(top: str) -> None:
    for number in range(8):
        os.truncate(f"{top}/{number}", _LOWER_FILE - 1)


def _make_directories(top: str) -> None:
    at = f"{top}/d"
    for number in range(10**6):
        if number % 500 == 0:
            os.mkdir(f"{at}{number}")
        os.mkdir(f"{at}{number // 500 * 500}/{number}")


def _make_symlinks(top: str) -> None:
    for number in range(10**6):
        os.symlink("x" * 4000, f"{top}/s{number}")


def _set_attributes(top: str) -> None:
    for number in range(10**6):
        path = f"{top}/x{number}"
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
        for attribute in range(16):
            os.setxattr(path, f"trusted.a{attribute}", b"v" * 4000)


def _fill(top: str, how) -> int | None:
    try:
        how(top)
    except OSError as exc:
        return exc.errno
    return None


def _lower_content(number: int) -> tuple[bytes, ...]:
    whole = bytes([65 + number]) * _LOWER_FILE
    return whole, whole + b"more", whole[:-1]


@pytest.mark.parametrize("how", [_write, _append, _shrink, _make_symlinks, _set_attributes])
def test_a_full_upper_says_so_tears_nothing_and_takes_more_when_something_is_removed(full, how):
    top = full.mountpoint
    before = os.statvfs(top)
    assert before.f_blocks * before.f_frsize == _SIZE
    with open(f"{full.work}/ballast", "wb", buffering=0) as ballast:
        assert _fill(top, how) == errno.ENOSPC
        _is_honest(full)
        assert _fill(top, lambda _: _exhaust(ballast)) == errno.ENOSPC
    assert _fill(top, _write) == errno.ENOSPC
    assert _fill(top, lambda top: os.truncate(f"{top}/7", 1 << 20)) == errno.ENOSPC
    for number in range(8):
        with open(f"{top}/{number}", "rb") as file:
            assert file.read() in _lower_content(number)
    os.unlink(f"{full.work}/ballast")
    for name in os.listdir(top):
        os.unlink(f"{top}/{name}")
    _is_honest(full)
    with open(f"{top}/again", "wb", buffering=0) as file:
        assert file.write(b"a" * disks.MIB) == disks.MIB


def _exhaust(file) -> None:
    """Write until not a page is left."""
    while True:
        file.write(b"b" * 4096)


def _is_honest(place: Place) -> None:
    """Check that df shows upper's figures; the last files closed may still be on their way."""
    end = time.monotonic() + 60
    while (shown := _figures(place.mountpoint)) != (true := _figures(place.upper)):
        assert time.monotonic() < end, (shown, true)


def _figures(path: str) -> tuple[int, int, int]:
    figures = os.statvfs(path)
    return figures.f_bfree, figures.f_bavail, figures.f_ffree


def test_directories_without_end_run_out_of_inodes_or_room(directory):
    for name in ("lower", "ram", "mnt"):
        os.mkdir(f"{directory}/{name}")
    options = "size=16m,nr_inodes=2000"
    disks.run("mount", "-t", "tmpfs", "-o", options, "tmpfs", f"{directory}/ram")
    try:
        for name in ("upper", "work"):
            os.mkdir(f"{directory}/ram/{name}")
        place = Place(
            f"{directory}/lower", f"{directory}/ram/upper", f"{directory}/ram/work",
            f"{directory}/mnt",
        )  # fmt: skip
        with contender.union(place):
            assert _fill(place.mountpoint, _make_directories) == errno.ENOSPC
            _is_honest(place)
            made = harvest(place.mountpoint)
            assert len(made) > 1900
            assert all(stat.S_ISDIR(thing.mode) for thing in made.values())
            for path in sorted(made, key=len)[-10:]:
                os.rmdir(f"{place.mountpoint}/{path}")
            _is_honest(place)
            os.mkdir(f"{place.mountpoint}/room")
    finally:
        disks.unmount(f"{directory}/ram")
