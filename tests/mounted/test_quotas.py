"""Quotas of users, and the blocks that ext4 keeps for root.

They are held against a plain disk and kernel overlayfs.  Root goes beyond quotas on a plain
disk alone (CAP_SYS_RESOURCE): a limit.
"""

import contextlib
import os
import subprocess

import pytest

from tests.mounted import disks
from tests.mounted.mount import Mount
from tests.mounted.test_work import run
from tests.mounted.witness import as_user, failure
from unionfs.syscalls import fallocate

USER = 1000
FULL = ("No space left on device", "Disk quota exceeded")

_WITHOUT = ["zgrep", "-q", "^# CONFIG_QFMT_V2 is not set", "/proc/config.gz"]
KNOWN = subprocess.run(_WITHOUT, check=False, capture_output=True).returncode != 0
with_quotas = pytest.mark.skipif(not KNOWN, reason="this kernel knows no quotas of ext4")
KIB = 1024
BLOCKS, INODES = 1024, 20  # that the user may have: KiB, and files
CHUNK = b"x" * (64 * KIB)


@contextlib.contextmanager
def _disk(base, *, kept=0):
    """Yield the root of an ext4 that keeps *kept* percent for root, or else knows quotas."""
    image = base / "quota.img"
    with image.open("wb") as file:
        file.truncate(64 * disks.MIB)
    quota = [] if kept else ["-O", "quota"]
    run("mkfs.ext4", "-q", *quota, "-m", str(kept), image)
    with disks.mounted(base / "disk", "-o", "loop", image) as path:
        yield path
    image.unlink()


def _limit(disk, blocks=BLOCKS, inodes=INODES):
    run("setquota", "-u", str(USER), "0", str(blocks), "0", str(inodes), disk)


def _plant(top):
    top.chmod(0o777)
    for name, size in (
        ("own", 1),
        ("large", 300 * KIB),
        ("low", 2000 * KIB),
        ("roots", 2000 * KIB),
    ):
        (top / name).write_bytes(b"o" * size)
        if name != "roots":
            os.chown(top / name, USER, USER)
    for number in range(5):
        (top / f"free{number}").write_text("root's")


@contextlib.contextmanager
def _plain(disk):
    (disk / "plain").mkdir()
    _plant(disk / "plain")
    yield disk / "plain"


def _layers(disk):
    for name in ("lower", "upper", "work"):
        (disk / name).mkdir()
    (disk / "upper").chmod(0o777)
    with disks.mounted(disk / "lower", "-t", "tmpfs", "tmpfs"):
        _plant(disk / "lower")
        yield disk / "lower", disk / "upper", disk / "work"


@contextlib.contextmanager
def _overlay(disk):
    with contextlib.contextmanager(_layers)(disk) as layers:
        options = "lowerdir={},upperdir={},workdir={}".format(*layers)
        with disks.mounted(disk / "o", "-t", "overlay", "-o", options, "overlay") as path:
            yield path


@contextlib.contextmanager
def _union(disk, *options):
    with contextlib.contextmanager(_layers)(disk) as (lower, upper, work):
        mount = Mount(disk, lowers=[lower], upper=upper, work=work, options=options)
        try:
            yield mount.start().path
            logged = mount.log.read_text().splitlines()
            assert not [line for line in logged if not line.endswith(FULL)]
            mount.log.write_text("")
            mount.stop()
        finally:
            mount.kill()


def _fill(path, flags=0):
    """Write as much as there is room for; tell how many KiB the file has then, and the error."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o644)
    try:
        error = ""
        while not error and os.fstat(fd).st_size < 4 << 20:
            error = failure(os.pwrite, fd, CHUNK, os.fstat(fd).st_size)
        return os.fstat(fd).st_size // KIB // 64, error
    finally:
        os.close(fd)


def _allocate(path):
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        return failure(fallocate, fd, 0, 0, 2 << 20)
    finally:
        os.close(fd)


def _copy(source, target):
    with open(source, "rb") as one, open(target, "wb") as other:
        return failure(os.copy_file_range, one.fileno(), other.fileno(), 2000 * KIB)


def _append(path):
    return failure(lambda: os.close(os.open(path, os.O_WRONLY | os.O_APPEND)))


def _make(top, prefix="f"):
    """Make files until that is refused; tell how many there were, and the error."""
    for number in range(2 * INODES):
        error = failure(
            os.close, os.open(top / f"{prefix}{number}", os.O_CREAT | os.O_WRONLY, 0o644)
        )
        if error:
            return number, error
    return 2 * INODES, ""


def _creates(top):
    try:
        _make(top)
    except OSError as exc:
        names = [name for name in os.listdir(top) if name.startswith("f") and name[1:].isdigit()]
        return len(names), os.strerror(exc.errno)
    return "all"


def _by_user(call, *args):
    return as_user(call, *args, uid=USER, gid=USER)


VARIANTS = [(), ("passthrough=off",), ("noopen=on",), ("direct=off",)]


@with_quotas
@pytest.mark.parametrize("options", VARIANTS, ids=lambda options: ",".join(options) or "-")
def test_a_user_gets_no_more_than_the_quota_allows(base, options):
    calls = {
        "write": lambda top: _fill(top / "new"),
        "write at once": lambda top: _fill(top / "sync", os.O_SYNC),
        "allocate": lambda top: _allocate(top / "room"),
        "copy": lambda top: _copy(top / "roots", top / "copy"),
        "make": _creates,
    }
    if "direct=off" in options:
        del calls["allocate"]  # a limit
    told = {}
    with _disk(base) as disk:
        for kind, made in (("plain", _plain), ("overlay", _overlay), ("union", _union)):
            told[kind] = {}
            for word, call in calls.items():
                place = disk / f"{kind}-{word}".replace(" ", "-")
                place.mkdir()
                place.chmod(0o755)
                with made(place, *options if kind == "union" else ()) as top:
                    held = _held(disk)
                    _limit(disk, held[0] + BLOCKS, held[1] + INODES)
                    told[kind][word] = _by_user(call, top)
                    _limit(disk, 0, 0)
    assert told["union"] == told["plain"], told["overlay"]
    assert "EDQUOT" in str(told)


def _held(disk):
    """Return how many KiB and files the user has."""
    words = run("repquota", "-u", "-n", "-O", "csv", disk).splitlines()
    rows = [line.split(",") for line in words if line.startswith(f"#{USER},")]
    return (int(rows[0][3]), int(rows[0][7])) if rows else (0, 0)


@with_quotas
def test_a_full_quota_is_in_nobody_elses_way(base):
    """What the union makes for itself, a copy or a whiteout, is root's at first."""
    with _disk(base) as disk, _union(disk) as top:
        _limit(disk)
        assert _by_user(_creates, top)[1] == "Disk quota exceeded"
        (top / "free0").chmod(0o600)
        (top / "free1").write_text("more")
        (top / "free2").unlink()
        os.rename(top / "free3", top / "moved")
        (top / "free2").mkdir()
        assert sorted(name for name in os.listdir(top) if "free" in name) == [
            "free0", "free1", "free2", "free4",
        ]  # fmt: skip
        own = [entry.stat().st_uid for entry in os.scandir(disk / "upper") if not _is_users(entry)]
        assert set(own) == {0}


def _is_users(entry):
    return entry.name[0] == "f" and entry.name[1:].isdigit()


@with_quotas
@pytest.mark.parametrize("options", VARIANTS, ids=lambda options: ",".join(options) or "-")
def test_root_goes_no_further_than_the_quota_of_a_file_either(base, options):
    """A limit, as with overlayfs."""
    told = {}
    with _disk(base) as disk:
        for kind, made in (("plain", _plain), ("overlay", _overlay), ("union", _union)):
            place = disk / kind
            place.mkdir()
            with made(place, *options if kind == "union" else ()) as top:
                held = _held(disk)
                _limit(disk, held[0] + BLOCKS)
                told[kind] = [_append(top / "low"), failure(os.chown, top / "roots", USER, USER)]
                _limit(disk, 0, 0)
    assert told["plain"] == ["", ""]
    assert told["union"] == told["overlay"] == ["EDQUOT", "EDQUOT"]


@pytest.mark.parametrize("options", VARIANTS[:3], ids=lambda options: ",".join(options) or "-")
def test_blocks_kept_for_root_are_kept(base, options):
    """Not so with `direct=off`: a limit."""
    with _disk(base, kept=20) as disk, _union(disk, *options) as top:
        room = os.statvfs(disk)
        kept = (room.f_bfree - room.f_bavail) * room.f_frsize
        _by_user((top / "new").touch)
        (top / "last").touch()  # by root
        error = _by_user(_fill_up, top / "new")
        room = os.statvfs(disk)
        assert (error, room.f_bfree * room.f_frsize > 0.9 * kept) == ("ENOSPC", True)
        (top / "roots own").touch()
        assert _by_user(_append, top / "new") == ""
        (top / "roots own").write_bytes(CHUNK * 4)
        assert (disk / "upper/roots own").stat().st_blocks == 4 * len(CHUNK) // 512


def _fill_up(path):
    fd = os.open(path, os.O_WRONLY)
    error = ""
    while not error:
        error = failure(os.write, fd, CHUNK)
    os.close(fd)
    return error
