"""Room and holes: fallocate(2), lseek(2) for data and holes, copy_file_range(2)."""

import errno
import os
import stat

import pytest

from tests.mounted.mount import Mount
from tests.mounted.witness import as_user, failure
from unionfs.host.syscalls import fallocate

KEEP_SIZE, PUNCH_HOLE = 1, 2
PAGE = 4096
TEXT = "x" * (8 * PAGE)

# pyfuse3 has no handlers for these; see test_limits.
direct = pytest.mark.without("direct=off", "loop=off", "handshake=off")


@pytest.fixture
def opened(tree):
    with (tree / "f").open("r+b", buffering=0) as file:
        yield file.fileno()


@direct
@pytest.mark.tree({"f": "text"})
def test_room_is_reserved(tree, opened):
    fallocate(opened, KEEP_SIZE, 0, 16 * PAGE)
    assert (os.fstat(opened).st_size, os.fstat(opened).st_blocks) == (4, 16 * PAGE // 512)
    fallocate(opened, 0, 0, 16 * PAGE)
    assert os.fstat(opened).st_size == 16 * PAGE
    assert (tree / "f").read_bytes() == b"text".ljust(16 * PAGE, b"\0")


@direct
@pytest.mark.tree({"f": TEXT})
def test_a_hole_is_punched_and_found(tree, opened):
    assert os.pread(opened, 1, PAGE) == b"x"  # cached
    fallocate(opened, PUNCH_HOLE | KEEP_SIZE, PAGE, 2 * PAGE)
    shown = b"x" * PAGE + bytes(2 * PAGE) + b"x" * 5 * PAGE
    assert os.pread(opened, 8 * PAGE, 0) == (tree / "f").read_bytes() == shown
    assert os.lseek(opened, 0, os.SEEK_HOLE) == PAGE
    assert os.lseek(opened, PAGE, os.SEEK_DATA) == 3 * PAGE
    assert os.lseek(opened, 3 * PAGE, os.SEEK_HOLE) == 8 * PAGE
    assert failure(os.lseek, opened, 8 * PAGE, os.SEEK_DATA) == "ENXIO"
    assert os.fstat(opened).st_blocks == 6 * PAGE // 512


def _write(fd, size):
    while size:
        size -= os.write(fd, bytes(min(size, 1 << 17)))


# Most of the little disk's room.
@pytest.mark.parametrize("take", [_write, lambda fd, size: os.posix_fallocate(fd, 0, size)])
@pytest.mark.parametrize("option", ["", "passthrough=off", "noopen=on", "direct=off"])
def test_room_of_a_deleted_file_is_there_for_the_next(base, option, take):
    (base / "lower").mkdir()
    mount = Mount(base, lowers=[base / "lower"], options=("ram=16M", *filter(None, [option])))
    mount.start()
    try:
        for number in range(50):
            with (mount.path / f"{number}").open("wb", buffering=0) as file:
                take(file.fileno(), 12 << 20)
                (mount.path / f"{number}").unlink()
    finally:
        mount.stop()


@direct
@pytest.mark.tree({"f": "text"})
def test_a_hole_at_the_end_is_told_from_data(tree, opened):
    os.ftruncate(opened, 1 << 20)
    assert os.lseek(opened, 0, os.SEEK_HOLE) == PAGE
    assert failure(os.lseek, opened, PAGE, os.SEEK_DATA) == "ENXIO"
    with (tree / "f").open("rb", buffering=0) as reader:
        assert os.lseek(reader.fileno(), 0, os.SEEK_HOLE) == PAGE


@direct
@pytest.mark.tree({"f": "text"})
def test_what_cannot_be_reserved_is_refused(tree, opened):
    with (tree / "f").open("rb") as reader:
        assert failure(fallocate, reader.fileno(), 0, 0, PAGE) == "EBADF"
    assert failure(fallocate, opened, 0, 0, 0) == "EINVAL"
    assert failure(fallocate, opened, PUNCH_HOLE, 0, PAGE) in ("EOPNOTSUPP", "EINVAL")
    assert (tree / "f").read_bytes() == b"text"


@direct
@pytest.mark.tree({"f": "text"})
def test_reserving_takes_set_uid_away_from_another_user(tree):
    os.chmod(tree / "f", 0o6777)

    def reserve():
        with (tree / "f").open("r+b") as file:
            fallocate(file.fileno(), 0, 0, PAGE)

    as_user(reserve)
    assert stat.S_IMODE(os.stat(tree / "f").st_mode) == 0o777


@pytest.mark.tree({"f": TEXT, "g": "y" * PAGE})
def test_a_range_is_copied_between_files(tree, opened):
    with (tree / "g").open("r+b", buffering=0) as target:
        assert os.pread(target.fileno(), 1, 0) == b"y"  # cached
        copied = os.copy_file_range(opened, target.fileno(), 3 * PAGE, PAGE, 100)
        assert copied == 3 * PAGE
        assert os.pread(target.fileno(), 200, 0) == b"y" * 100 + b"x" * 100
    assert (tree / "g").read_bytes() == b"y" * 100 + b"x" * (3 * PAGE)
    assert (tree / "f").read_text() == TEXT


@pytest.mark.tree({"f": "text"})
def test_nothing_is_copied_from_beyond_the_end(tree, opened):
    with (tree / "new").open("wb") as target:
        assert os.copy_file_range(opened, target.fileno(), 100, 4) == 0
        assert os.copy_file_range(opened, target.fileno(), 100, 2) == 2
        assert failure(os.copy_file_range, target.fileno(), opened, 4) == errno.errorcode[9]
    assert (tree / "new").read_text() == "xt"
