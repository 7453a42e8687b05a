"""Files of a lower that are copied up by blocks, over a RAM upper."""

import mmap
import os
import random
import stat
import subprocess
import threading

import pytest

from tests.forgetting import forget
from tests.mounted import disks, fsx
from tests.mounted.mount import ROOT, Mount, wait_until
from tests.mounted.witness import failure
from unionfs.host import syscalls

BLOCK = 64 << 10
LARGE = 1 << 30  # bytes; a hole, for the most part, as one cannot tell

in_part = pytest.mark.without("far=all")  # which copies files as a whole


def used(union):
    """Return the bytes that are used of upper."""
    figures = os.statvfs(union.path)
    return (figures.f_blocks - figures.f_bfree) * figures.f_frsize


@pytest.fixture
def union(mounted):
    """Mount a RAM upper over a lower of the files *sizes*, of random bytes; see `before`."""

    def build(ram="16m", options=(), lower=None, **sizes):
        def fill(base):
            for name, size in sizes.items():
                (base / "lower1" / name).write_bytes(random.Random(name).randbytes(size))
            if lower is not None:
                lower(base / "lower1")

        return mounted(None, {}, options=(f"ram={ram}", *options), prepare=fill)

    return build


def before(union, name):
    """Return what the lower has."""
    return bytearray((union.lowers[0] / name).read_bytes())


@pytest.mark.parametrize(
    ("act", "most"),
    [
        (lambda f: os.close(os.open(f, os.O_RDWR)), 0),
        (lambda f: os.close(os.open(f, os.O_WRONLY | os.O_APPEND)), 0),
        (lambda f: _written(f, "ab"), mmap.PAGESIZE),
        (lambda f: _written(f, "r+b"), BLOCK),
        (lambda f: os.truncate(f, LARGE // 2 + 1), 0),
        (lambda f: os.truncate(f, LARGE * 2), 0),
        (lambda f: f.open("wb").close(), 0),
    ],
    ids=["opened", "opened to append", "appended", "written", "cut", "grown", "emptied"],
)
@pytest.mark.parametrize("options", [(), ("noopen=on",), ("direct=off",)], ids=str)
def test_a_small_change_of_a_large_file_takes_little(union, act, most, options):
    u = union(options=options, lower=lambda top: os.truncate(_new(top / "f"), LARGE))
    act(u.path / "f")
    assert used(u) <= most


@pytest.mark.parametrize("size", [4 * BLOCK, 4 * BLOCK + 5])
@pytest.mark.parametrize("options", [(), ("noopen=on",), ("direct=off",)], ids=str)
def test_a_file_grows_that_nobody_has_open(union, size, options):
    """It is as small as those that are copied at once, and the lower is read all the same."""
    u = union(options=options, f=size)
    os.truncate(u.path / "f", size + 1)
    assert (u.path / "f").read_bytes() == before(u, "f") + b"\0"
    assert used(u) <= mmap.PAGESIZE


def _written(path, mode):
    with path.open(mode) as file:
        file.write(b"1")


def _new(path):
    path.touch()
    return path


@pytest.mark.parametrize(
    "options",
    [
        (), ("noopen=on",), ("direct=off",), ("strictatime",), ("passthrough=off",),
        (fsx.SIDES,), (fsx.SIDES, "direct=off"), (fsx.SIDES, "noopen=on"),
    ],
    ids=str,
)  # fmt: skip
def test_random_operations_give_what_a_plain_file_gives(base, options):
    fsx.exercise(base, 5, 1500, options)


SIZES = [
    blocks * BLOCK + more
    for blocks in (1, 2, 3)
    for more in (-1, 0, 1)
    if blocks > 1 or more >= 0
] + [BLOCK + BLOCK // 2]  # fmt: skip


@pytest.mark.parametrize("size", SIZES)
def test_one_byte_is_written_anywhere_in_files_of_any_size(union, size):
    offsets = sorted({0, 1, BLOCK - 1, BLOCK, size - 1, size, size + 1, size + BLOCK, 2 * BLOCK})
    u = union(**{f"f{offset}": size for offset in offsets})
    for offset in offsets:
        path, model = u.path / f"f{offset}", before(u, f"f{offset}")
        with path.open("r+b") as file:
            file.seek(offset)
            file.write(b"!")
        model.extend(bytes(max(0, offset + 1 - size)))
        model[offset] = ord("!")
        os.posix_fadvise(fd := os.open(path, os.O_RDONLY), 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)
        assert path.read_bytes() == model


def test_all_names_of_a_file_show_what_is_written_by_one(union):
    u = union(f=4 * BLOCK, lower=lambda top: os.link(top / "f", top / "g"))
    with (u.path / "f").open("r+b") as file:
        file.seek(BLOCK - 1)
        file.write(b"ab")
        model = before(u, "f")
        model[BLOCK - 1 : BLOCK + 1] = b"ab"
        file.flush()
        (u.path / "h").hardlink_to(u.path / "f")
        for name in "fgh":
            assert (u.path / name).read_bytes() == model
            assert (u.path / name).stat().st_nlink == 3
    (u.path / "f").unlink()
    os.truncate(u.path / "g", 3 * BLOCK)
    assert (u.path / "h").read_bytes() == model[: 3 * BLOCK]


def test_what_is_partial_is_exchanged_replaced_and_removed_while_it_is_open(union):
    u = union(f=4 * BLOCK, g=3 * BLOCK, h=2 * BLOCK)
    files = {name: (u.path / name).open("r+b", buffering=0) for name in "fgh"}
    for file in files.values():
        file.write(b"1")
    root = os.open(u.path, os.O_RDONLY)
    syscalls.renameat2(root, b"f", root, b"g", syscalls.RENAME_EXCHANGE)
    os.close(root)
    os.rename(u.path / "h", u.path / "g")
    (u.path / "f").unlink()
    for name, file in files.items():
        file.seek(BLOCK + 1)
        file.write(b"2")
        model = before(u, name)
        model[0], model[BLOCK + 1] = ord("1"), ord("2")
        assert os.pread(file.fileno(), 5 * BLOCK, 0) == model
    assert os.listdir(u.path) == ["g"]
    assert (u.path / "g").read_bytes()[: BLOCK + 2].endswith(b"2")
    for file in files.values():
        file.close()


def test_the_room_of_a_deleted_file_comes_back(union):
    u = union(f=8 * BLOCK)
    with (u.path / "f").open("r+b", buffering=0) as file:
        file.write(bytes(BLOCK * 5))
        (u.path / "f").unlink()
        assert used(u) >= 5 * BLOCK
    wait_until(lambda: used(u) <= mmap.PAGESIZE)


def test_a_file_that_the_kernel_forgot_is_what_it_was(union):
    u = union(f=8 * BLOCK)
    model = before(u, "f")
    for offset in (100, 3 * BLOCK - 2, 8 * BLOCK):
        with (u.path / "f").open("r+b") as file:
            file.seek(offset)
            file.write(b"abcd")
        model[offset : offset + 4] = b"abcd"
        forget(u.path)
        assert (u.path / "f").read_bytes() == model


@in_part
def test_a_write_for_which_there_is_no_room_changes_nothing(union):
    u = union(ram="1m", f=32 * BLOCK)
    model = before(u, "f")
    with (u.path / "f").open("r+b", buffering=0) as file:
        for page in range(511, -1, -1):
            data, at = bytes([page % 251]) * 100, page * mmap.PAGESIZE + 500
            if failure(os.pwrite, file.fileno(), data, at) == "":
                model[at : at + 100] = data
        assert failure(os.pwrite, file.fileno(), b"1", 0) == "ENOSPC"
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        assert (u.path / "f").read_bytes() == model
    assert "No space left on device" in u.take_log()


@in_part
def test_of_a_write_that_ends_where_the_room_does_a_part_is_written(union):
    u = union(ram="1m", f=32 * BLOCK)
    model = before(u, "f")
    fd = os.open(u.path / "f", os.O_RDWR)
    data = b"x" * (24 * BLOCK)
    written = os.pwrite(fd, data, 100)
    assert 0 < written < len(data)
    model[100 : 100 + written] = data[:written]
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    assert os.pread(fd, 40 * BLOCK, 0) == model
    os.close(fd)


def test_what_does_not_fit_into_upper_is_read_from_the_lower_all_the_same(union):
    u = union(ram="1m", f=32 * BLOCK)
    assert failure(os.setxattr, u.path / "f", "trusted.unionfs.alone", b"") == "ENOSPC"
    assert used(u) <= 2 * mmap.PAGESIZE
    assert (u.path / "f").read_bytes() == before(u, "f")
    assert "No space left on device" in u.take_log()


def test_a_copy_that_is_made_whole_looks_as_before(union):
    u = union(f=8 * BLOCK + 5)
    path, model = u.path / "f", before(u, "f")
    with path.open("r+b") as file:
        file.seek(3 * BLOCK)
        file.write(b"1")
        model[3 * BLOCK] = ord("1")
    os.utime(path, ns=(10**18, 10**18))
    st = path.stat()
    os.setxattr(path, "trusted.unionfs.alone", b"")
    assert used(u) >= 8 * BLOCK
    after = path.stat()
    assert after.st_mtime_ns == st.st_mtime_ns
    assert path.read_bytes() == model


def test_privileges_fall_with_the_first_write(union):
    u = union(f=4 * BLOCK, lower=lambda top: (top / "f").chmod(0o6755))
    with (u.path / "f").open("r+b", buffering=0) as file:
        assert stat.S_IMODE((u.path / "f").stat().st_mode) == 0o6755
        (u.path / "f").chmod(0o6777)
        subprocess.run(
            ["setpriv", "--reuid=1000", "--clear-groups", "dd", "if=/dev/zero", "bs=1", "count=1",
             "conv=notrunc", "status=none", f"of={u.path / 'f'}"], check=True,
        )  # fmt: skip
        assert stat.S_IMODE((u.path / "f").stat().st_mode) == 0o777
        assert file.read(2) == b"\0" + before(u, "f")[1:2]


def test_several_write_and_read_at_a_time(union):
    """Each its own bytes of all blocks: no fill takes what another has written."""
    u = union(f=64 * BLOCK)
    model, path = before(u, "f"), u.path / "f"

    def work(number):
        fd, rng = os.open(path, os.O_RDWR), random.Random(number)
        for block in rng.sample(range(64), 64):
            at = block * BLOCK + 5000 * number + 1
            os.pwrite(fd, bytes([number]) * 3000, at)
            assert os.pread(fd, 3000, at) == bytes([number]) * 3000
        os.close(fd)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(6):
        for block in range(64):
            at = block * BLOCK + 5000 * number + 1
            model[at : at + 3000] = bytes([number]) * 3000
    assert path.read_bytes() == model


@pytest.mark.parametrize("kind", ["squashfs", "ext4"])
def test_cold_blocks_of_a_lower_on_a_disk_are_filled(base, kind):
    """Their content is read by threads: no write is lost meanwhile."""
    tree, lower = base / "tree", base / "lower1"
    tree.mkdir()
    (tree / "f").write_bytes(random.Random(1).randbytes(40 * BLOCK))
    model = bytearray((tree / "f").read_bytes())
    with _lower(kind, tree, base / "image", lower):
        u = Mount(base, lowers=[lower], options=("ram=64m",)).start()
        try:
            _write_everywhere(u.path / "f", model)
            assert (u.path / "f").read_bytes() == model
            u.stop()
        finally:
            u.kill()


def _lower(kind, tree, image, lower):
    if kind in disks.PACKED:
        disks.run(*disks.PACKED[kind](tree, image))
    else:
        with image.open("wb") as file:
            file.truncate(64 << 20)
        disks.run("mkfs.ext4", "-q", "-d", tree, image)
    return disks.mounted(lower, "-o", "loop,ro", image)


def _write_everywhere(path, model):
    lock = threading.Lock()

    def work(number):
        fd = os.open(path, os.O_RDWR)
        for block in random.Random(number).sample(range(40), 40):
            at = block * BLOCK + 3000 * number
            os.pwrite(fd, bytes([number + 1]) * 1000, at)
            with lock:
                model[at : at + 1000] = bytes([number + 1]) * 1000
        os.close(fd)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_diff_tells_of_the_content_of_a_partial_copy(union):
    u = union(f=8 * BLOCK, g=8 * BLOCK)
    (u.path / "g").open("r+b").close()
    with (u.path / "f").open("r+b") as file:
        file.write(b"1")
    done = subprocess.run(
        u.command("diff", u.path), capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.splitlines() == ["changed  /f (content)"]


@pytest.mark.parametrize("sides", [False, True], ids=["one side", "two sides"])
def test_before_a_lower_changes_its_partial_copies_are_whole(union, base, sides):
    (base / "state").mkdir()
    options = (f"statedir={base / 'state'}", "persist=/kept") if sides else ()
    u = union(ram="64m", options=options, f=8 * BLOCK, g=8 * BLOCK, h=8 * BLOCK,
              lower=lambda top: os.link(top / "h", top / "i"))  # fmt: skip
    for name in "fgh":
        with (u.path / name).open("r+b") as file:
            file.seek(3 * BLOCK)
            file.write(name.encode())
    (u.path / "h").unlink()  # `i` is in the hard link index alone
    models = {name: before(u, name) for name in "fgi"}
    for name, model in models.items():
        model[3 * BLOCK] = ord(name if name != "i" else "h")
    with (u.path / "f").open("r+b"):
        forget(u.path)
        os.setxattr(u.path, "trusted.unionfs.maintained", b"begin")
        room = used(u)
        for name in "fg":  # in place; the other is known by its time
            (u.lowers[0] / name).write_bytes(b"other")
        os.setxattr(u.path, "trusted.unionfs.maintained", b"end")
    assert room >= 3 * 8 * BLOCK
    for name, model in models.items():
        assert (u.path / name).read_bytes() == model


@in_part
def test_a_lower_does_not_change_where_upper_has_no_room_for_whole_copies(union):
    u = union(ram="1m", f=32 * BLOCK)
    with (u.path / "f").open("r+b") as file:
        file.write(b"1")
    assert failure(os.setxattr, u.path, "trusted.unionfs.maintained", b"begin") == "ENOSPC"
    model = before(u, "f")
    model[0] = ord("1")
    assert (u.path / "f").read_bytes() == model
    assert "No space left on device" in u.take_log()
