"""Content of files: reading, writing, holes, maps, and what other descriptors see of it."""

import ctypes
import fcntl
import itertools
import mmap
import os
import random
import shutil
import stat

import pytest

from tests.mounted.witness import apart, failure

ONE = {"f": "0123456789"}


@pytest.mark.tree(ONE)
def test_what_is_written_in_the_middle_leaves_the_rest(tree):
    with (tree / "f").open("r+b", buffering=0) as file:
        file.seek(3)
        file.write(b"abc")
        assert os.pread(file.fileno(), 100, 0) == b"012abc6789"
    assert (tree / "f").read_bytes() == b"012abc6789"


@pytest.mark.tree(ONE)
@pytest.mark.parametrize(
    ("flags", "after"),
    [
        (os.O_WRONLY, b"xx23456789"),
        (os.O_RDWR, b"xx23456789"),
        (os.O_WRONLY | os.O_APPEND, b"0123456789xx"),
        (os.O_WRONLY | os.O_TRUNC, b"xx"),
        (os.O_RDWR | os.O_TRUNC, b"xx"),
        (os.O_WRONLY | os.O_CREAT, b"xx23456789"),
        (os.O_WRONLY | os.O_SYNC, b"xx23456789"),
        (os.O_WRONLY | os.O_DSYNC, b"xx23456789"),
    ],
)
def test_open_flags_mean_what_open_2_says(tree, flags, after):
    fd = os.open(tree / "f", flags)
    assert os.write(fd, b"xx") == 2
    os.close(fd)
    assert (tree / "f").read_bytes() == after
    assert (tree / "f").stat().st_size == len(after)


@pytest.mark.tree({"f": "text", "d": {}})
@pytest.mark.parametrize(
    ("name", "flags", "error"),
    [
        ("f", os.O_CREAT | os.O_EXCL | os.O_WRONLY, "EEXIST"),
        ("d", os.O_WRONLY, "EISDIR"),
        ("d", os.O_RDONLY | os.O_CREAT, "EISDIR"),
        ("f", os.O_DIRECTORY, "ENOTDIR"),
        ("f/x", os.O_RDONLY, "ENOTDIR"),
        ("none", os.O_RDWR, "ENOENT"),
        ("none/x", os.O_WRONLY | os.O_CREAT, "ENOENT"),
    ],
)
def test_open_refuses_what_open_2_refuses(tree, name, flags, error):
    assert failure(os.open, tree / name, flags) == error


@pytest.mark.tree(ONE)
def test_reading_a_file_opened_for_writing_only_fails_and_the_reverse(tree):
    writing = os.open(tree / "f", os.O_WRONLY)
    assert failure(os.read, writing, 1) == "EBADF"
    reading = os.open(tree / "f", os.O_RDONLY)
    assert failure(os.write, reading, b"x") == "EBADF"
    os.close(writing)
    os.close(reading)


@pytest.mark.tree(ONE)
def test_two_appending_descriptors_never_overwrite_each_other(tree):
    first, second = (os.open(tree / "f", os.O_WRONLY | os.O_APPEND) for _ in range(2))
    for n in range(100):
        os.write(first, b"a%02d" % n)
        os.write(second, b"b%02d" % n)
    os.close(first)
    os.close(second)
    expected = b"0123456789" + b"".join(b"a%02db%02d" % (n, n) for n in range(100))
    assert (tree / "f").read_bytes() == expected


@pytest.mark.without("passthrough=all")  # its promise is overlayfs's: an old reader stays below
@pytest.mark.tree(ONE)
def test_a_reader_opened_before_the_first_write_sees_it(tree):
    reader = os.open(tree / "f", os.O_RDONLY)
    assert os.pread(reader, 100, 0) == b"0123456789"
    with (tree / "f").open("r+b", buffering=0) as file:
        file.write(b"new")
        assert os.pread(reader, 100, 0) == b"new3456789"
        file.truncate(5)
        assert os.pread(reader, 100, 0) == b"new34"
        assert os.fstat(reader).st_size == 5
    os.close(reader)


@pytest.mark.without("passthrough=all")  # as above
@pytest.mark.tree({"f": "0" * 10000})
def test_a_map_made_before_the_first_write_sees_it(tree):
    reader = os.open(tree / "f", os.O_RDONLY)
    view = mmap.mmap(reader, 10000, mmap.MAP_SHARED, mmap.PROT_READ)
    assert view[:3] == b"000"
    with (tree / "f").open("r+b", buffering=0) as file:
        file.seek(5000)
        file.write(b"new")
    assert view[4999:5004] == b"0new0"
    assert view[:3] == b"000"
    view.close()
    os.close(reader)


@pytest.mark.tree({"f": "0" * 10000})
def test_a_shared_map_and_write_show_each_other(tree):
    fd = os.open(tree / "f", os.O_RDWR)
    view = mmap.mmap(fd, 10000)
    view[0:3] = b"map"
    assert os.pread(fd, 4, 0) == b"map0"
    os.pwrite(fd, b"write", 6000)
    assert view[6000:6006] == b"write0"
    view.flush()
    view.close()
    os.close(fd)
    assert (tree / "f").read_bytes() == b"map" + b"0" * 5997 + b"write" + b"0" * 3995


@pytest.mark.tree({"f": "0" * 4096})
def test_a_map_is_shared_between_processes(tree):
    def other():
        with (tree / "f").open("r+b") as file, mmap.mmap(file.fileno(), 4096) as view:
            seen = view[:6]
            view[10:15] = b"child"
            return seen

    with (tree / "f").open("r+b") as file, mmap.mmap(file.fileno(), 4096) as view:
        view[:6] = b"parent"
        assert apart(other) == b"parent"
        assert view[10:15] == b"child"


@pytest.mark.tree({"f": "0" * 4096})
def test_a_private_map_changes_nothing(tree):
    with (tree / "f").open("rb") as file:
        view = mmap.mmap(file.fileno(), 4096, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
        view[:3] = b"own"
        view.close()
    assert (tree / "f").read_text() == "0" * 4096


@pytest.mark.tree(ONE)
def test_a_map_outlives_its_descriptor_and_its_name(tree):
    with (tree / "f").open("r+b") as file:
        view = mmap.mmap(file.fileno(), 10)
    (tree / "f").unlink()
    view[:3] = b"abc"
    assert view[:] == b"abc3456789"
    view.close()


@pytest.mark.tree(ONE)
def test_what_lies_beyond_the_end_of_a_write_is_a_hole_of_zeros(tree):
    with (tree / "f").open("r+b", buffering=0) as file:
        os.pwrite(file.fileno(), b"end", 1 << 20)
    content = (tree / "f").read_bytes()
    assert content == b"0123456789" + bytes((1 << 20) - 10) + b"end"
    assert (tree / "f").stat().st_blocks * 512 < 1 << 19


@pytest.mark.tree(ONE)
@pytest.mark.parametrize("size", [0, 4, 10, 5000])
def test_truncate_cuts_or_fills_with_zeros(tree, size):
    os.truncate(tree / "f", size)
    assert (tree / "f").read_bytes() == b"0123456789"[:size].ljust(size, b"\0")


@pytest.mark.tree(ONE)
@pytest.mark.parametrize("size", [0, 4, 5000])
def test_ftruncate_cuts_or_fills_with_zeros(tree, size):
    fd = os.open(tree / "f", os.O_RDWR)
    os.ftruncate(fd, size)
    assert os.fstat(fd).st_size == size
    assert os.pread(fd, 9999, 0) == b"0123456789"[:size].ljust(size, b"\0")
    os.close(fd)


@pytest.mark.tree({"f": "abc"})
def test_truncate_fails_where_truncate_2_says(tree):
    (tree / "d").mkdir()
    assert failure(os.truncate, tree / "d", 0) == "EISDIR"
    assert failure(os.truncate, tree / "none", 0) == "ENOENT"
    fd = os.open(tree / "f", os.O_RDONLY)
    assert failure(os.ftruncate, fd, 0) == "EINVAL"
    os.close(fd)


@pytest.mark.tree({"f": "x" * 8192})
def test_o_direct_is_tolerated(tree):
    fd = os.open(tree / "f", os.O_RDWR | os.O_DIRECT)
    page = mmap.mmap(-1, 4096)  # aligned, as O_DIRECT wants it
    page[:] = b"y" * 4096
    assert os.pwritev(fd, [page], 4096) == 4096
    assert os.preadv(fd, [page], 0) == 4096
    assert page[:] == b"x" * 4096
    os.close(fd)
    assert (tree / "f").read_bytes() == b"x" * 4096 + b"y" * 4096


@pytest.mark.tree(ONE)
def test_fsync_and_fdatasync_work_on_files_and_directories(tree):
    with (tree / "f").open("r+b", buffering=0) as file:
        file.write(b"x")
        os.fsync(file)
        os.fdatasync(file)
    directory = os.open(tree, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(directory)
    os.fdatasync(directory)
    os.close(directory)
    reading = os.open(tree / "f", os.O_RDONLY)
    os.fsync(reading)
    os.close(reading)
    os.sync()


@pytest.mark.tree(ONE)
def test_a_write_changes_mtime_and_ctime_and_a_read_neither(tree):
    os.utime(tree / "f", ns=(10**9, 10**9))
    before = (tree / "f").stat()
    (tree / "f").read_bytes()
    read = (tree / "f").stat()
    assert (read.st_mtime_ns, read.st_ctime_ns) == (before.st_mtime_ns, before.st_ctime_ns)
    with (tree / "f").open("r+b", buffering=0) as file:
        file.write(b"x")
        assert os.fstat(file.fileno()).st_mtime_ns > before.st_mtime_ns
    after = (tree / "f").stat()
    assert after.st_mtime_ns > before.st_mtime_ns
    assert after.st_ctime_ns >= before.st_ctime_ns


@pytest.mark.tree(ONE)
def test_many_descriptors_of_one_file_agree(tree):
    fds = [os.open(tree / "f", os.O_RDWR) for _ in range(300)]
    for index, fd in enumerate(fds):
        os.pwrite(fd, b"%04d" % index, 4 * index)
    assert os.pread(fds[0], 4, 4 * 299) == b"0299"
    assert {os.fstat(fd).st_size for fd in fds} == {1200}
    for fd in fds:
        os.close(fd)


@pytest.mark.tree({"f": "x" * 300000})
def test_large_reads_and_writes_are_whole(tree):
    with (tree / "f").open("r+b", buffering=0) as file:
        assert os.preadv(file.fileno(), [bytearray(400000)], 0) == 300000
        data = os.urandom(3 << 20)
        assert file.write(data) == len(data)
        assert os.pread(file.fileno(), len(data), 0) == data


@pytest.mark.tree({"f": "x" * 5000})
def test_what_goes_round_the_page_cache_is_seen_in_it(tree):
    for turn in range(6):
        (tree / f"large{turn % 2}").write_bytes(bytes(1 << 20))  # so that the next passes through
        before = (tree / "f").stat()
        with (tree / "f").open("r+b", buffering=0) as file:
            file.write(b"%d" % turn)
            os.utime(file.fileno(), ns=(before.st_atime_ns, before.st_mtime_ns))
        assert (tree / "f").read_bytes() == b"%d" % turn + b"x" * 4999
        with (
            (tree / "f").open("rb") as file,
            mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as shown,
        ):
            assert shown[:2] == b"%dx" % turn
        for _ in range(3):  # so that the next one does not
            (tree / "small").write_bytes(b"x")
        with (tree / "f").open("r+b", buffering=0) as file:
            file.write(b"x")
        assert (tree / "f").read_bytes() == b"x" * 5000


@pytest.mark.tree({"f": "x" * 8192})
def test_a_map_that_outlives_its_descriptor_is_seen_by_who_opens_the_file_later(tree):
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *3 * [ctypes.c_int], ctypes.c_long]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    for turn in range(2):
        (tree / f"large{turn}").write_bytes(bytes(1 << 20))  # so that the next passes through
        with (tree / "f").open("r+b", buffering=0) as file:
            file.write(b"AAAA")
            # not the module's, which keeps a descriptor
            rights = mmap.PROT_READ | mmap.PROT_WRITE
            at = libc.mmap(None, 8192, rights, mmap.MAP_SHARED, file.fileno(), 0)
        with (tree / "f").open("rb", buffering=0) as between:
            for index in range(4):
                text = b"%04d" % index
                ctypes.memmove(at, text, 4)
                assert (tree / "f").read_bytes()[:8] == text + b"xxxx"
                assert os.pread(between.fileno(), 8, 0) == text + b"xxxx"
        assert libc.munmap(at, 8192) == 0


BIG = random.Random(8).randbytes(3_000_001).hex()


@pytest.mark.tree({"f": BIG})
@pytest.mark.parametrize("buffered", [True, False])
def test_large_reads_begin_and_end_anywhere(tree, buffered):
    fd = os.open(tree / "f", os.O_RDONLY | (0 if buffered else os.O_DIRECT))
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    room = memoryview(mmap.mmap(-1, 4 << 20))
    sizes = [1 << 16, 1 << 19, (1 << 20) - 4096, 1 << 20, 3 << 20]
    starts = [0, 4096, 5 << 20, (5 << 20) + 4096]
    for start, size in itertools.product(starts, sizes):
        count = os.preadv(fd, [room[:size]], start)
        assert count == min(size, len(BIG) - start)
        assert bytes(room[:count]) == BIG[start : start + count].encode()
    os.close(fd)


@pytest.mark.tree(ONE)
def test_a_very_large_file_is_cut_and_deleted_like_any_other(tree):
    block = b"0123456789" + bytes((1 << 20) - 10)
    with (tree / "f").open("r+b", buffering=0) as file:
        for cut in (
            lambda: file.truncate(5),
            lambda: os.truncate(tree / "f", 5),
            lambda: (tree / "f").write_bytes(b"01234"),
        ):
            for index in range(72):
                os.pwrite(file.fileno(), block, index << 20)
            cut()
            assert os.fstat(file.fileno()).st_size == (tree / "f").stat().st_size == 5
            assert os.pread(file.fileno(), 10, 0) == (tree / "f").read_bytes() == b"01234"
        for index in range(72):
            os.pwrite(file.fileno(), block, index << 20)
        (tree / "f").unlink()
        assert os.pread(file.fileno(), 10, 71 << 20) == b"0123456789"
        assert os.fstat(file.fileno()).st_nlink == 0
    assert not (tree / "f").exists()


@pytest.mark.tree(ONE)
def test_append_is_taken_back_by_fcntl(tree):
    fd = os.open(tree / "f", os.O_RDWR | os.O_APPEND)
    assert fcntl.fcntl(fd, fcntl.F_GETFL) & (os.O_ACCMODE | os.O_APPEND) == os.O_RDWR | os.O_APPEND
    fcntl.fcntl(fd, fcntl.F_SETFL, 0)  # take O_APPEND away
    os.pwrite(fd, b"x", 0)
    os.close(fd)
    assert (tree / "f").read_bytes() == b"x123456789"


@pytest.mark.tree(ONE)
def test_an_open_file_is_opened_again_through_proc(tree):
    fd = os.open(tree / "f", os.O_RDONLY)
    again = os.open(f"/proc/self/fd/{fd}", os.O_RDWR)
    os.write(again, b"xy")
    assert os.pread(again, 100, 0) == b"xy23456789"
    os.close(again)
    os.close(fd)


@pytest.mark.tree({})
def test_a_new_file_takes_mode_and_umask(tree):
    umask = os.umask(0o027)
    fd = os.open(tree / "f", os.O_CREAT | os.O_RDWR, 0o4777)
    os.umask(umask)
    assert stat.S_IMODE(os.fstat(fd).st_mode) == 0o4750
    os.close(fd)


@pytest.mark.tree({})
def test_a_file_made_unwritable_by_its_mode_is_written_by_its_maker(tree):
    fd = os.open(tree / "f", os.O_CREAT | os.O_WRONLY, 0)
    os.write(fd, b"text")
    os.close(fd)
    assert (tree / "f").read_text() == "text"


@pytest.mark.tree({"f": "#!/bin/sh\necho ran\n"})
def test_programs_run_and_cannot_be_written_meanwhile(tree):
    (tree / "f").chmod(0o755)
    with os.popen(str(tree / "f")) as out:
        assert out.read() == "ran\n"
    shutil.copy("/bin/sleep", tree / "sleep")
    reading, writing = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if not child:
        os.execv(tree / "sleep", ["sleep", "9"])
    os.close(writing)
    os.read(reading, 1)  # until exec has closed the child's end
    assert failure(os.open, tree / "sleep", os.O_WRONLY) == "ETXTBSY"
    os.kill(child, 9)
    os.waitpid(child, 0)
    os.close(reading)
