"""What the kernel does not do with FUSE: which errno its user sees, and what works instead.

The table of limits (docs/limits.md) has a row for each of these.
"""

import contextlib
import ctypes
import os
import signal
import struct
import subprocess

import pytest

from tests.mounted import disks
from tests.mounted.mount import Mount
from tests.mounted.witness import failure

_libc = ctypes.CDLL(None, use_errno=True)

FAN_MARK_ADD = 1
FAN_MARK_MOUNT = 0x10
FAN_MARK_FILESYSTEM = 0x100
FAN_REPORT_FID = 0x200
FAN_MODIFY = 2

OPEN_TREE = 428
OPEN_TREE_CLONE = 1
MOUNT_SETATTR = 442
MOVE_MOUNT = 429
MOVE_MOUNT_F_EMPTY_PATH = 4
AT_EMPTY_PATH = 0x1000
MOUNT_ATTR_IDMAP = 0x100000
AT_FDCWD = -100


def _checked(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def _watch(path, flags, where, events):
    """Mark *path* in a new fanotify group with *flags*, as fanotify(7) says."""
    group = _checked(_libc.fanotify_init(flags, os.O_RDONLY))
    try:
        how = FAN_MARK_ADD | where
        mask = ctypes.c_uint64(events)
        _checked(_libc.fanotify_mark(group, how, mask, AT_FDCWD, os.fsencode(path)))
    finally:
        os.close(group)


@contextlib.contextmanager
def _users_from_1000():
    """Yield the descriptor of a user namespace whose root is user 1000."""
    process = subprocess.Popen(["unshare", "--user", "cat"], stdin=subprocess.PIPE)
    try:
        own = os.readlink("/proc/self/ns/user")
        while os.readlink(f"/proc/{process.pid}/ns/user") == own:
            pass
        for kind in ("uid_map", "gid_map"):
            with open(f"/proc/{process.pid}/{kind}", "w") as file:
                file.write("0 1000 10")
        space = os.open(f"/proc/{process.pid}/ns/user", os.O_RDONLY)
        yield space
        os.close(space)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()


def _idmapped(path, space):
    """Return a detached copy of the mount at *path* with the users of *space*."""
    copy = _checked(_libc.syscall(OPEN_TREE, AT_FDCWD, os.fsencode(path), OPEN_TREE_CLONE))
    try:
        attributes = struct.pack("QQQQ", MOUNT_ATTR_IDMAP, 0, 0, space)
        size = ctypes.c_size_t(len(attributes))
        _checked(_libc.syscall(MOUNT_SETATTR, copy, b"", AT_EMPTY_PATH, attributes, size))
    except OSError:
        os.close(copy)
        raise
    return copy


@pytest.fixture
def union(mounted):
    return mounted({"f": "upper"}, {"d": {}}).path


def test_a_swap_file_has_no_blocks_of_its_own(union):
    (union / "swap").write_bytes(bytes(1 << 20))
    (union / "swap").chmod(0o600)
    subprocess.run(["mkswap", "-q", union / "swap"], check=True)
    assert failure(lambda: _checked(_libc.swapon(os.fsencode(union / "swap"), 0))) == "EINVAL"


def test_fanotify_marks_that_report_handles_are_for_inodes_alone(union):
    for where in (FAN_MARK_MOUNT, FAN_MARK_FILESYSTEM):
        assert failure(_watch, union, FAN_REPORT_FID, where, FAN_MODIFY) == "ENODEV"
        _watch(union, 0, where, FAN_MODIFY)
    _watch(union, 0, 0, FAN_MODIFY)


def test_an_upper_of_overlayfs_is_no_union_but_a_lower_is(union, base):
    for name in ("upper", "work"):
        (union / name).mkdir()
        (base / name).mkdir()
    (base / "over").mkdir()
    words = f"lowerdir={union}/d,upperdir={union}/upper,workdir={union}/work"
    refused = subprocess.run(
        ["mount", "-t", "overlay", "overlay", "-o", words, base / "over"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert refused.returncode == 32
    assert "wrong fs type" in refused.stderr
    words = f"lowerdir={union},upperdir={base}/upper,workdir={base}/work"
    with disks.mounted(base / "over", "-t", "overlay", "overlay", "-o", words) as over:
        assert (over / "f").read_text() == "upper"


def test_a_union_has_no_idmapped_mounts(union):
    with _users_from_1000() as space:
        assert failure(_idmapped, union, space) == "EINVAL"


@contextlib.contextmanager
def _mounted_idmapped(disk, point):
    """Mount *disk* once more, at *point*, where its root's files are user 1000's."""
    point.mkdir()
    with _users_from_1000() as space:
        copy = _idmapped(disk, space)
    target = os.fsencode(point)
    _checked(_libc.syscall(MOVE_MOUNT, copy, b"", AT_FDCWD, target, MOVE_MOUNT_F_EMPTY_PATH))
    os.close(copy)
    try:
        yield point
    finally:
        subprocess.run(["umount", point], check=True)


def test_a_lower_may_be_an_idmapped_mount(base):
    with disks.writable("ext4", base) as disk, _mounted_idmapped(disk, base / "mapped") as lower:
        (disk / "f").write_text("lower")
        (base / "upper").mkdir()
        (base / "work").mkdir()
        union = Mount(base, lowers=[lower], upper=base / "upper", work=base / "work").start()
        try:
            assert (union.path / "f").stat().st_uid == 1000
            with (union.path / "f").open("a") as file:
                file.write(" and more")
            assert (union.path / "f").stat().st_uid == 1000
            assert (base / "upper/f").stat().st_uid == 1000
            assert (disk / "f").read_text() == "lower"
            union.stop()
        finally:
            union.kill()
