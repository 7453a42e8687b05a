"""Blocks that ext4 keeps for root are kept; quotas of users: tests/boot/test_quotas.py."""

import contextlib
import os

import pytest

from tests.mounted import disks
from tests.mounted.mount import Mount
from tests.mounted.test_work import run
from tests.mounted.witness import as_user, failure

USER = 1000
FULL = "No space left on device"
CHUNK = b"x" * 65536


@contextlib.contextmanager
def _disk(base):
    """Yield the root of an ext4 that keeps a fifth for root."""
    image = base / "kept.img"
    with image.open("wb") as file:
        file.truncate(64 * disks.MIB)
    run("mkfs.ext4", "-q", "-m", "20", image)
    with disks.mounted(base / "disk", "-o", "loop", image) as path:
        yield path
    image.unlink()


@contextlib.contextmanager
def _union(disk, *options):
    for name in ("lower", "upper", "work"):
        (disk / name).mkdir()
    (disk / "upper").chmod(0o777)
    lower, upper, work = (disk / name for name in ("lower", "upper", "work"))
    mount = Mount(disk, lowers=[lower], upper=upper, work=work, options=options)
    try:
        yield mount.start().path
        logged = mount.log.read_text().splitlines()
        assert not [line for line in logged if not line.endswith(FULL)]
        mount.log.write_text("")
        mount.stop()
    finally:
        mount.kill()


def _append(path):
    os.close(os.open(path, os.O_WRONLY | os.O_APPEND))


def _by_user(call, *args):
    return as_user(call, *args, uid=USER, gid=USER)


@pytest.mark.parametrize("option", ["passthrough=upper", "passthrough=off", "noopen=on"])
def test_blocks_kept_for_root_are_kept(base, option):
    """Not so with `direct=off`: a limit."""
    with _disk(base) as disk, _union(disk, option) as top:
        room = os.statvfs(disk)
        kept = (room.f_bfree - room.f_bavail) * room.f_frsize
        _by_user((top / "new").touch)
        (top / "last").touch()  # by root
        error = _by_user(_fill_up, top / "new")
        room = os.statvfs(disk)
        assert (error, room.f_bfree * room.f_frsize > 0.9 * kept) == ("ENOSPC", True)
        (top / "roots own").touch()
        _by_user(_append, top / "new")
        (top / "roots own").write_bytes(CHUNK * 4)
        assert (disk / "upper/roots own").stat().st_blocks == 4 * len(CHUNK) // 512


def _fill_up(path):
    fd = os.open(path, os.O_WRONLY)
    error = ""
    while not error:
        error = failure(os.write, fd, CHUNK)
    os.close(fd)
    return error
