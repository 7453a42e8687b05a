"""What FUSE and pyfuse3 leave out: each says so with a plain errno, and changes nothing.

The table of limits (docs/limits.md) has a row for each of these.  `plain` stands beside
them to show what a file system that can does.
"""

import ctypes
import errno
import fcntl
import os
import subprocess

import pytest

from tests.mounted.witness import as_user, failure
from unionfs.host.syscalls import fallocate

_libc = ctypes.CDLL(None, use_errno=True)
FICLONE = 0x40049409
FS_IOC_GETFLAGS = 0x80086601
FIGETBSZ = 2
BLKGETSIZE = 0x1260
PUNCH_HOLE_KEEP_SIZE = 3


@pytest.fixture
def opened(tree):
    with (tree / "f").open("r+b", buffering=0) as file:
        yield file.fileno()
    assert (tree / "f").read_text() == "text"


# Where requests come by way of pyfuse3, which has no handlers for these.
by_pyfuse3 = pytest.mark.without(
    "upper",
    "lower",
    "passthrough=all",
    "passthrough=off",
    "noopen=on",
    "metacopy=off",
    "whiteout=aufs",
    "far=all",
)


@by_pyfuse3
@pytest.mark.unions_only
@pytest.mark.tree({"f": "text"})
def test_fallocate_is_not_supported(opened):
    assert failure(fallocate, opened, 0, 0, 4096) == "EOPNOTSUPP"
    assert failure(fallocate, opened, PUNCH_HOLE_KEEP_SIZE, 0, 4) == "EOPNOTSUPP"


@pytest.mark.tree({"f": "text"})
def test_posix_fallocate_grows_a_file_by_writing(tree):
    with (tree / "f").open("r+b", buffering=0) as file:
        os.posix_fallocate(file.fileno(), 0, 10000)
    assert (tree / "f").read_bytes() == b"text".ljust(10000, b"\0")


@pytest.mark.tree({"f": "text"})
def test_seek_hole_and_data_see_one_run_of_data(opened):
    assert os.lseek(opened, 0, os.SEEK_DATA) == 0
    assert os.lseek(opened, 0, os.SEEK_HOLE) == 4
    assert failure(os.lseek, opened, 4, os.SEEK_DATA) == "ENXIO"


@by_pyfuse3
@pytest.mark.unions_only
@pytest.mark.tree({"f": "text"})
def test_a_hole_is_not_told_from_data(tree):
    with (tree / "f").open("r+b", buffering=0) as file:
        file.truncate(1 << 20)
        assert os.lseek(file.fileno(), 0, os.SEEK_HOLE) == 1 << 20


@pytest.mark.unions_only
@pytest.mark.tree({"f": "text", "d": {}})
def test_birth_times_are_not_told(tree):
    born = _output("stat", "-c", "%W %w", tree / "f", tree / "d")
    assert born == "0 -\n" * 2


@pytest.mark.unions_only
@pytest.mark.tree({"f": "text"})
def test_a_read_that_must_not_wait_is_not_supported(opened):
    assert failure(os.preadv, opened, [bytearray(4)], 0, os.RWF_NOWAIT) == "EOPNOTSUPP"


def _output(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _set_uid(path):
    (path / "f").chmod(0o6777)


@pytest.mark.without(
    "upper", "lower", "passthrough=all", "passthrough=off", "direct=off",
    "loop=off", "handshake=off", "metacopy=off", "whiteout=aufs", "far=all",
)  # fmt: skip
@pytest.mark.unions_only
@pytest.mark.tree({"f": "text"}, prepare=_set_uid)
def test_a_strangers_chown_that_names_nobody_does_nothing(tree):
    as_user(os.chown, tree / "f", -1, -1)
    assert (tree / "f").stat().st_mode & 0o7777 == 0o6777


@by_pyfuse3
@pytest.mark.unions_only
@pytest.mark.tree({"f": "text"})
def test_o_tmpfile_is_not_supported(tree):
    assert failure(os.open, tree, os.O_TMPFILE | os.O_RDWR) == "EOPNOTSUPP"
    assert os.listdir(tree) == ["f"]


@pytest.mark.unions_only
@pytest.mark.tree({"f": "text"})
def test_reflinks_through_the_mount_are_not_supported(tree, opened):
    with (tree / "new").open("wb") as new:
        assert failure(fcntl.ioctl, new, FICLONE, opened) == "EOPNOTSUPP"


@pytest.mark.tree({"f": "text"})
def test_copy_file_range_copies(tree, opened):
    with (tree / "new").open("wb") as new:
        assert os.copy_file_range(opened, new.fileno(), 100, 0) == 4
    assert (tree / "new").read_text() == "text"


@pytest.mark.tree({"f": "text"})
def test_sendfile_and_splice_copy(tree, opened):
    reading, writing = os.pipe()
    assert os.splice(opened, writing, 100, 0) == 4
    assert os.read(reading, 9) == b"text"
    with (tree / "new").open("wb") as new:
        assert os.sendfile(new.fileno(), opened, 0, 100) == 4
    assert (tree / "new").read_text() == "text"
    os.close(reading)
    os.close(writing)


@pytest.mark.tree({"f": "text"})
@pytest.mark.parametrize("command", [BLKGETSIZE, 0x1234])
def test_unknown_ioctls_are_not_for_this_file(opened, command):
    assert failure(fcntl.ioctl, opened, command, bytes(8)) == "ENOTTY"


@by_pyfuse3
@pytest.mark.unions_only
@pytest.mark.tree({"f": "text"})
def test_inode_flags_are_not_there(opened):
    assert failure(fcntl.ioctl, opened, FS_IOC_GETFLAGS, bytes(8)) == "ENOTTY"


@pytest.mark.tree({"f": "text"})
def test_file_handles_are_given_or_refused_plainly(tree):
    handle = ctypes.create_string_buffer(136)
    handle[0:4] = (128).to_bytes(4, "little")
    mount = ctypes.c_int()
    path = os.fsencode(tree / "f")
    result = _libc.name_to_handle_at(-100, path, handle, ctypes.byref(mount), 0)
    assert result == 0 or ctypes.get_errno() == errno.EOPNOTSUPP


@pytest.mark.unions_only
@pytest.mark.tree({"f": "text"})
def test_statfs_is_that_of_the_upper(tree, ground):
    shown, host = os.statvfs(tree), os.statvfs(ground)
    assert (shown.f_blocks, shown.f_frsize, shown.f_namemax) == (
        host.f_blocks,
        host.f_frsize,
        host.f_namemax,
    )
    assert abs(shown.f_bavail - host.f_bavail) * shown.f_frsize < 1 << 30
