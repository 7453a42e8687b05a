"""Files that are copied up by blocks to an upper on a disk: in part until the union ends."""

import contextlib
import os
import random
import sqlite3
import subprocess

import pytest

from tests.mounted import disks, fsx
from tests.mounted.mount import ROOT, Mount, wait_until
from tests.mounted.witness import failure
from unionfs.host import syscalls
from unionfs.host.syscalls import KEEP_SIZE, fallocate
from unionfs.layers.markers import KEPT_CAPABILITY, MTIME

BLOCK = 64 << 10
SIZE = 8 * BLOCK + 5
INCOMPLETE = "trusted.overlay.unionfs.incomplete"
BLOCKS = "trusted.overlay.unionfs.blocks"
METACOPY = "trusted.overlay.metacopy"

in_part = pytest.mark.without("far=all")  # which copies files as a whole


@pytest.fixture
def union(on_disk):
    """Mount a union over *names*, files of random bytes, with its upper on the disk."""

    def build(*names, size=SIZE, options=("copyup=blocks",)):
        return on_disk(*names, size=size, options=options)

    return build


def changed(union, name, at=3 * BLOCK + 7, data=b"new"):
    """Write to a file, and return what it has to show."""
    model = bytearray((union.path / name).read_bytes())
    fd = os.open(union.path / name, os.O_RDWR)
    os.pwrite(fd, data, at)
    os.close(fd)
    model[at : at + len(data)] = data
    return bytes(model)


def is_partial(union, name):
    return {BLOCKS, METACOPY} <= set(os.listxattr(union.upper / name))


def command(union, *words):
    return subprocess.run(
        union.command(*words), cwd=ROOT, capture_output=True, text=True, check=False
    )


@contextlib.contextmanager
def kernel(union, work):
    """Have kernel overlayfs use the upper, with a work directory."""
    layers = f"lowerdir={union.lowers[0]},upperdir={union.upper},workdir={work}"
    options = f"{layers},metacopy=on,redirect_dir=on"
    with disks.mounted(union.base / "overlay", "-t", "overlay", "-o", options, "overlay") as path:
        yield path


def kernel_refuses(union):
    with pytest.raises(AssertionError, match="wrong fs type"), kernel(union, union.work):
        pass
    return True


@pytest.mark.parametrize("options", [(), ("noopen=on",), ("direct=off",)], ids=str)
def test_random_operations_give_what_a_plain_file_gives(base, options):
    fsx.exercise(base, 6, 1200, ("copyup=blocks", *options))


@in_part
def test_a_small_change_takes_little_until_the_union_ends(union):
    u = union("f", "g", size=4 << 20)
    free = os.statvfs(u.upper).f_bfree
    model = changed(u, "f")
    os.close(os.open(u.path / "g", os.O_RDWR))
    assert is_partial(u, "f")
    assert (free - os.statvfs(u.upper).f_bfree) * os.statvfs(u.upper).f_frsize <= 64 << 10
    assert INCOMPLETE in os.listxattr(u.upper)
    assert kernel_refuses(u)
    u.stop()
    assert (u.upper / "f").read_bytes() == model
    assert (u.upper / "g").read_bytes() == (u.lowers[0] / "g").read_bytes()
    assert not {BLOCKS, METACOPY} & {*os.listxattr(u.upper / "f"), *os.listxattr(u.upper / "g")}
    assert INCOMPLETE not in os.listxattr(u.upper)
    with kernel(u, u.work) as path:
        assert (path / "f").read_bytes() == model


@in_part
def test_a_small_disk_that_has_no_room_for_a_long_map_gets_a_short_one(union):
    """One of 64 MiB has blocks of 1 KiB, and so attributes of no more."""
    u = union("f", size=48 << 20)
    model = changed(u, "f")
    assert is_partial(u, "f")
    assert len(os.getxattr(u.upper / "f", BLOCKS)) <= 300
    assert (u.upper / "f").stat().st_blocks * 512 <= 128 << 10
    u.kill()
    u.start()
    assert (u.path / "f").read_bytes() == model
    u.stop()
    assert (u.upper / "f").read_bytes() == model


@in_part
@pytest.mark.parametrize("act", ["stop", "reserve"])
def test_a_file_whose_blocks_are_larger_than_what_is_copied_at_a_time_comes_whole(union, act):
    """A disk of 64 MiB has room for 2048 marks a file; so 3 GiB have blocks of 2 MiB."""
    u = union("f", size=8 << 20)
    u.stop()
    os.truncate(u.lowers[0] / "f", 3 << 30)
    u.start()
    fd = os.open(u.path / "f", os.O_RDWR)
    os.pwrite(fd, b"new", 5)
    model = before_and(b"new", u.lowers[0] / "f", 8 << 20)
    if act == "reserve":
        fallocate(fd, KEEP_SIZE, 2 << 20, 4 << 20)
        assert os.pread(fd, len(model), 0) == model
    os.close(fd)
    u.stop()
    with (u.upper / "f").open("rb") as upper:
        assert upper.read(len(model)) == model


def before_and(data, path, size, at=5):
    """Return what a file has to show at its beginning when *data* was written to it."""
    with path.open("rb") as file:
        shown = file.read(size)
    return shown[:at] + data + shown[at + len(data) :]


def test_what_a_killed_union_leaves_is_in_order_and_goes_on(union):
    u = union("f", "g")
    models = {"f": changed(u, "f"), "g": changed(u, "g", SIZE - 1, b"more than there was")}
    os.truncate(u.path / "g", 5 * BLOCK)
    models["g"] = models["g"][: 5 * BLOCK]
    u.kill()
    checked = command(u, "check", u.upper)
    assert checked.stdout.endswith(": clean, 2 objects looked at, 2 files in part (settle)\n")
    assert kernel_refuses(u)
    for name, model in models.items():
        assert is_partial(u, name)
        u.start()
        assert (u.path / name).read_bytes() == model
        models[name] = changed(u, name, 2 * BLOCK - 1, b"again")
        u.kill()
    assert command(u, "settle", u.upper) == Settled()
    for name, model in models.items():
        assert (u.upper / name).read_bytes() == model
    with kernel(u, u.work) as path:
        assert (path / "f").read_bytes() == models["f"]
    assert command(u, "settle", u.upper) == Settled()


class Settled:
    """A command that ended well and said nothing."""

    def __eq__(self, done):
        return (done.returncode, done.stdout, done.stderr) == (0, "", "")

    __hash__ = None


def test_a_mount_without_the_option_ends_with_whole_files(union):
    u = union("f")
    model = changed(u, "f")
    u.kill()
    u.options = ()
    u.start()
    assert (u.path / "f").read_bytes() == model
    model = changed(u, "f", 5 * BLOCK + 1)
    u.stop()
    assert (u.upper / "f").read_bytes() == model
    assert not is_partial(u, "f")


@in_part
def test_with_another_work_directory_the_kernel_refuses_the_file(union, disk):
    u = union("f")
    changed(u, "f")
    u.kill()
    (disk / "other").mkdir()
    with kernel(u, disk / "other") as path:
        assert failure(os.stat, path / "f") == "EIO"
        assert failure((path / "f").read_bytes) == "EIO"


@in_part
def test_another_work_directory_is_told_by_us(union, disk):
    u = union("f")
    changed(u, "f")
    u.kill()
    u.work = disk / "other"
    u.work.mkdir()
    u.start()
    assert kernel_refuses(u)
    u.stop()


@in_part
def test_an_upper_with_files_in_part_is_no_lower(union, base):
    u = union("f")
    model = changed(u, "f")
    u.kill()
    (base / "point").mkdir()
    words = ("mount", "--lower", u.upper, "--lower", u.lowers[0], "--ram", "1m", base / "point")
    done = command(u, *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"lower '{u.upper}' is an upper that has files in part" in done.stderr
    assert command(u, "settle", u.upper).returncode == 0
    assert command(u, *words).returncode == 0
    try:
        assert (base / "point" / "f").read_bytes() == model
    finally:
        assert command(u, "umount", base / "point").returncode == 0


@in_part
def test_a_file_for_which_there_is_no_room_stays_in_part_and_is_told_of(union):
    u = union("f", "g", size=20 << 20)
    models = {"f": changed(u, "f")}
    with (u.path / "full").open("wb") as file:
        while failure(file.write, bytes(1 << 20)) == "":
            pass
        with contextlib.suppress(OSError):
            file.close()
    models["full"] = (u.path / "full").read_bytes()
    u.process.terminate()
    assert u.process.wait() == 0
    assert "'f' is in upper in part, and stays so: upper has no room" in u.take_log()
    assert kernel_refuses(u)
    done = command(u, "settle", u.upper)
    assert (done.returncode, done.stdout) == (4, "")
    assert "has no room for the rest of a file" in done.stderr
    u.start()
    for name, model in models.items():
        assert (u.path / name).read_bytes() == model
    (u.path / "full").unlink()
    u.stop()
    assert (u.upper / "f").read_bytes() == models["f"]


def test_a_hole_is_made_in_a_whole_file(union):
    u = union("f")
    model = bytearray(changed(u, "f"))
    fd = os.open(u.path / "f", os.O_RDWR)
    syscalls.fallocate(fd, syscalls.PUNCH_HOLE | syscalls.KEEP_SIZE, 2 * BLOCK, 2 * BLOCK)
    os.close(fd)
    model[2 * BLOCK : 4 * BLOCK] = bytes(2 * BLOCK)
    assert not is_partial(u, "f")
    u.kill()
    u.start()
    assert (u.path / "f").read_bytes() == model


@in_part
def test_a_file_that_was_written_as_a_whole_is_whole_when_it_is_opened_next(union):
    u = union("f")
    model = changed(u, "f", 0, random.Random(1).randbytes(SIZE))
    assert is_partial(u, "f")
    os.close(os.open(u.path / "f", os.O_RDWR))
    assert not is_partial(u, "f")
    assert (u.path / "f").read_bytes() == model


def test_privileges_and_times_are_kept_where_a_file_becomes_whole(union):
    u = union("f")
    changed(u, "f")
    os.setxattr(u.path / "f", "security.capability", _capability())
    os.utime(u.path / "f", ns=(10**18, 10**18))
    u.stop()
    assert os.getxattr(u.upper / "f", "security.capability") == _capability()
    assert (u.upper / "f").stat().st_mtime_ns == 10**18


@pytest.mark.parametrize("by", ["settle", "a mount that ends"])
def test_a_file_that_a_killed_daemon_was_filling_keeps_its_time_and_capability(union, by):
    u = union("f")
    model = changed(u, "f")
    u.kill()
    os.utime(u.upper / "f")
    os.setxattr(u.upper / "f", MTIME, b"%d" % 10**18)
    os.setxattr(u.upper / "f", KEPT_CAPABILITY, _capability())
    if by == "settle":
        assert command(u, "settle", u.upper) == Settled()
    else:
        u.start()
        u.stop()
    assert (u.upper / "f").read_bytes() == model
    assert (u.upper / "f").stat().st_mtime_ns == 10**18
    assert os.getxattr(u.upper / "f", "security.capability") == _capability()
    assert not {MTIME, KEPT_CAPABILITY} & set(os.listxattr(u.upper / "f"))


def _capability():
    return bytes.fromhex("0100000200040000000000000000000000000000")


def test_a_file_of_several_names_becomes_whole_once(union):
    u = union("f")
    model = changed(u, "f")
    (u.path / "h").hardlink_to(u.path / "f")
    (u.path / "f").rename(u.path / "i")
    u.kill()
    assert command(u, "settle", u.upper) == Settled()
    assert (u.upper / "h").samefile(u.upper / "i")
    assert (u.upper / "h").read_bytes() == model


def test_holes_of_a_lower_take_no_room_when_a_file_becomes_whole(union):
    u = union("f")
    u.stop()
    with (u.lowers[0] / "sparse").open("wb") as file:
        file.truncate(1 << 30)
        file.seek(500 << 20)
        file.write(b"in the middle")
    u.start()
    with (u.path / "sparse").open("r+b") as file:
        file.seek(100 << 20)
        file.write(b"new")
    u.kill()
    u.start()
    u.stop()
    whole = u.upper / "sparse"
    assert whole.stat().st_blocks * 512 <= 4 << 20  # of a map as short as here blocks are large
    assert METACOPY not in os.listxattr(whole)
    with whole.open("rb") as file:
        file.seek(100 << 20)
        assert file.read(5) == b"new\0\0"
        file.seek(500 << 20)
        assert file.read(14) == b"in the middle\0"


@in_part
def test_files_whose_content_is_not_in_the_lowers_stay_in_part(union, base):
    u = union("f")
    changed(u, "f")
    u.kill()
    (base / "other").mkdir()
    done = command(u, "settle", u.upper, "--lower", base / "other")
    assert (done.returncode, done.stdout) == (4, "")
    assert "its content is not in the lower layers" in done.stderr
    assert is_partial(u, "f")
    assert command(u, "settle", u.upper, "--lower", u.lowers[0]) == Settled()


def test_settle_refuses_what_is_mounted_and_what_it_knows_no_lowers_of(union, base):
    u = union("f")
    assert command(u, "settle", u.upper).returncode == 2
    u.stop()
    (base / "fresh").mkdir()
    done = command(u, "settle", base / "fresh")
    assert done.returncode == 2
    assert "say with --lower and --work" in done.stderr


def test_diff_tells_of_a_file_in_part_and_commit_carries_it(union):
    u = union("f", "g")
    model = changed(u, "f")
    assert command(u, "diff", u.path).stdout == "changed  /f (content)\n"
    u.kill()
    assert command(u, "diff", u.upper).stdout == "changed  /f (content)\n"
    u.start()
    done = command(u, "commit", "--yes", u.path)
    assert (done.returncode, done.stderr) == (0, "")
    assert (u.lowers[0] / "f").read_bytes() == model
    assert (u.path / "f").read_bytes() == model
    assert not is_partial(u, "f")
    assert command(u, "diff", u.path).stdout == ""
    u.stop()
    assert (u.path.parent / "lower1" / "f").read_bytes() == model


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_a_database_that_is_killed_with_its_union_is_as_it_was_committed(union, mode):
    u = union()
    u.stop()
    with sqlite3.connect(u.lowers[0] / "db") as made:
        made.execute("create table t (k integer primary key, n integer, v blob)")
        made.executemany("insert into t values (?, 0, zeroblob(9000))", ((k,) for k in range(200)))
    made.close()
    u.start()
    open_base = sqlite3.connect(u.path / "db", isolation_level=None)
    open_base.execute(f"pragma journal_mode={mode}")
    for k in range(0, 200, 5):
        open_base.execute("update t set n = n + 1 where k = ?", (k,))
    open_base.execute("begin")
    open_base.execute("update t set n = 100")
    u.process.kill()
    u.process.wait()
    with contextlib.suppress(sqlite3.Error):
        open_base.close()
    u.kill()
    u.start()
    again = sqlite3.connect(u.path / "db")
    assert again.execute("pragma integrity_check").fetchone() == ("ok",)
    assert again.execute("select sum(n), count(*) from t").fetchone() == (40, 200)
    again.close()
    u.stop()


def test_another_file_system_is_refused(base):
    """One of which it is not known that it tells what was written to a file: here FUSE."""
    (base / "lower1").mkdir()
    (base / "inner").mkdir()
    below = Mount(base / "inner", lowers=[base / "lower1"], options=("ram=1m",)).start()
    try:
        for name in ("upper", "work"):
            (below.path / name).mkdir()
        layers = ("--upper", below.path / "upper", "--work", below.path / "work")
        (base / "point").mkdir()
        words = ("mount", "--lower", base / "lower1", *layers, base / "point", "-o")
        done = command(below, *words, "copyup=blocks")
        assert done.returncode == 2
        assert "is on a file system that copyup=blocks is not made for" in done.stderr
        assert "copyup" not in command(below, *words, "copyup=whole").stderr
        below.stop()
    finally:
        below.kill()


@in_part
def test_a_mark_that_a_crash_left_without_its_block_says_nothing(union):
    """As a power cut leaves it: the mark reached the disk, the block did not."""
    u = union("f")
    model = changed(u, "f", 2 * BLOCK, b"kept")
    changed(u, "f", 4 * BLOCK, b"lost")
    u.kill()
    fd = os.open(u.upper / "f", os.O_RDWR)
    syscalls.fallocate(fd, syscalls.PUNCH_HOLE | syscalls.KEEP_SIZE, 4 * BLOCK, BLOCK)
    os.close(fd)
    u.start()
    assert (u.path / "f").read_bytes() == model
    u.stop()
    assert (u.upper / "f").read_bytes() == model


@in_part
@pytest.mark.parametrize("options", [(), ("noopen=on",), ("direct=off",)], ids=str)
def test_a_disk_can_be_made_read_only_where_nobody_writes_to_its_files_in_part(union, options):
    u = union("f", "g", options=("copyup=blocks", *options))
    disk = u.upper.parent
    with (u.path / "f").open("rb") as reader:  # it stays open
        assert len(reader.read()) == SIZE
        model = changed(u, "f")
        os.truncate(u.path / "g", SIZE + 1)
        os.truncate(u.path / "g", 3 * BLOCK)
        with (u.path / "f").open("r+b", buffering=0) as writer:
            writer.write(model[:1])
            assert not remounted(disk, "ro")
        wait_until(lambda: remounted(disk, "ro"))  # the kernel tells of a close when it likes
        assert is_partial(u, "f")
        assert is_partial(u, "g")
        assert (u.path / "f").read_bytes() == model
        assert failure(os.truncate, u.path / "g", 1) == "EROFS"
        assert remounted(disk, "rw")
        model = changed(u, "f")
        reader.seek(0)
        assert reader.read() == model


def remounted(disk, how):
    """Say whether a disk could be made read-only, or writable again."""
    words = ("mount", "-o", f"remount,{how}", disk)
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


@in_part
def test_a_cut_that_a_crash_left_half_done_is_done_or_not(union):
    u = union("f")
    model = changed(u, "f")
    u.kill()
    before = os.getxattr(u.upper / "f", BLOCKS)
    half = b"\2" + before[1:10] + (2 * BLOCK).to_bytes(8, "little") + before[10:]
    os.setxattr(u.upper / "f", BLOCKS, half)
    u.start()
    assert (u.path / "f").read_bytes() == model
    u.kill()
    os.setxattr(u.upper / "f", BLOCKS, half)
    os.truncate(u.upper / "f", 2 * BLOCK)
    u.start()
    os.truncate(u.path / "f", 3 * BLOCK)
    assert (u.path / "f").read_bytes() == model[: 2 * BLOCK] + bytes(BLOCK)
    u.stop()
    assert (u.upper / "f").read_bytes() == model[: 2 * BLOCK] + bytes(BLOCK)
