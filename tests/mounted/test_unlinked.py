"""Files without a name stay usable through their descriptors, in whatever layer they were."""

import contextlib
import os
import stat

import pytest

from tests.mounted.witness import failure
from tests.trees import Same

ONE = {"f": "0123456789"}


@pytest.fixture(params=[os.O_RDONLY, os.O_RDWR], ids=["reading", "writing"])
def unlinked(tree, request):
    fd = os.open(tree / "f", request.param)
    (tree / "f").unlink()
    yield fd
    os.close(fd)


@pytest.mark.tree(ONE)
def test_the_name_is_gone_and_the_content_is_there(tree, unlinked):
    assert failure(os.stat, tree / "f") == "ENOENT"
    assert os.listdir(tree) == []
    assert os.pread(unlinked, 100, 0) == b"0123456789"


@pytest.mark.tree(ONE)
def test_fstat_says_no_links(unlinked):
    st = os.fstat(unlinked)
    assert (st.st_nlink, st.st_size, stat.S_IFMT(st.st_mode)) == (0, 10, stat.S_IFREG)


@pytest.mark.tree(ONE)
def test_attributes_are_changed_through_the_descriptor(unlinked):
    os.fchmod(unlinked, 0o640)
    os.fchown(unlinked, 7, 8)
    os.utime(unlinked, ns=(1, 2))
    st = os.fstat(unlinked)
    assert (stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid) == (0o640, 7, 8)
    assert (st.st_mtime_ns, st.st_nlink, st.st_size) == (2, 0, 10)
    os.setxattr(unlinked, "user.a", b"value")
    assert os.listxattr(unlinked) == ["user.a"]
    assert os.getxattr(unlinked, "user.a") == b"value"
    os.removexattr(unlinked, "user.a")
    assert os.pread(unlinked, 100, 0) == b"0123456789"


@pytest.mark.tree(ONE)
def test_it_is_opened_again_through_proc_and_written(unlinked):
    again = os.open(f"/proc/self/fd/{unlinked}", os.O_RDWR)
    os.pwrite(again, b"ab", 2)
    os.ftruncate(again, 6)
    assert os.pread(again, 100, 0) == b"01ab45"
    assert os.fstat(unlinked).st_size == 6
    os.close(again)


@pytest.mark.tree(ONE)
def test_writing_through_proc_shows_in_the_first_descriptor(unlinked):
    again = os.open(f"/proc/self/fd/{unlinked}", os.O_WRONLY)
    os.pwrite(again, b"ab", 2)
    os.close(again)
    assert os.pread(unlinked, 100, 0) == b"01ab456789"


@pytest.mark.tree(ONE)
def test_it_is_written_and_truncated(tree):
    fd = os.open(tree / "f", os.O_RDWR)
    (tree / "f").unlink()
    os.pwrite(fd, b"more", 10)
    assert os.pread(fd, 100, 0) == b"0123456789more"
    os.ftruncate(fd, 3)
    os.fsync(fd)
    assert (os.pread(fd, 100, 0), os.fstat(fd).st_size) == (b"012", 3)
    os.close(fd)


@pytest.mark.tree(ONE)
def test_a_new_file_of_the_name_is_another(tree, unlinked):
    (tree / "f").write_text("new")
    assert os.pread(unlinked, 100, 0) == b"0123456789"
    assert (tree / "f").read_text() == "new"
    assert os.fstat(unlinked).st_ino != (tree / "f").stat().st_ino


@pytest.mark.tree({"f": "old", "g": "new"})
def test_a_file_that_was_renamed_over_stays_usable(tree):
    fd = os.open(tree / "f", os.O_RDONLY)
    (tree / "g").rename(tree / "f")
    assert os.pread(fd, 100, 0) == b"old"
    assert os.fstat(fd).st_nlink == 0
    os.fchmod(fd, 0o600)
    assert stat.S_IMODE(os.fstat(fd).st_mode) == 0o600
    assert (tree / "f").read_text() == "new"
    os.close(fd)


@pytest.mark.tree({"f": "text", "g": Same("f")})
def test_one_name_of_two_leaves_one_link(tree):
    fd = os.open(tree / "f", os.O_RDWR)
    (tree / "f").unlink()
    assert os.fstat(fd).st_nlink == 1
    os.write(fd, b"TE")
    assert (tree / "g").read_text() == "TExt"
    (tree / "g").unlink()
    assert os.fstat(fd).st_nlink == 0
    assert os.pread(fd, 9, 0) == b"TExt"
    os.close(fd)


@pytest.mark.tree({"d": {"f": "text"}})
def test_the_directory_around_it_goes_too(tree):
    fd = os.open(tree / "d" / "f", os.O_RDONLY)
    (tree / "d" / "f").unlink()
    (tree / "d").rmdir()
    assert os.pread(fd, 9, 0) == b"text"
    assert os.fstat(fd).st_nlink == 0
    os.close(fd)


@pytest.mark.tree({"d": {}})
def test_a_removed_directory_is_empty_and_takes_nothing(tree):
    fd = os.open(tree / "d", os.O_RDONLY)
    (tree / "d").rmdir()
    assert os.listdir(fd) == []
    assert os.fstat(fd).st_nlink == 0
    assert failure(os.open, "f", os.O_CREAT | os.O_WRONLY, dir_fd=fd) == "ENOENT"
    assert failure(os.mkdir, "e", dir_fd=fd) == "ENOENT"
    os.fchmod(fd, 0o700)
    assert stat.S_IMODE(os.fstat(fd).st_mode) == 0o700
    os.close(fd)


@pytest.mark.tree({"d": {}})
def test_a_removed_directory_can_be_ones_working_directory(tree):
    with contextlib.chdir(tree / "d"):
        (tree / "d").rmdir()
        (tree / "d").mkdir()
        (tree / "d" / "new").write_text("")
        assert os.listdir(".") == []
        assert failure(os.stat, "new") == "ENOENT"


@pytest.mark.tree({"link": "target"})
def test_an_opened_symlink_and_fifo_outlive_their_names(tree):
    (tree / "s").symlink_to("target")
    os.mkfifo(tree / "p")
    link = os.open(tree / "s", os.O_PATH | os.O_NOFOLLOW)
    fifo = os.open(tree / "p", os.O_PATH)
    (tree / "s").unlink()
    (tree / "p").unlink()
    assert os.readlink("", dir_fd=link) == "target"
    assert [os.fstat(fd).st_nlink for fd in (link, fifo)] == [0, 0]
    os.close(link)
    os.close(fifo)


@pytest.mark.tree({f"f{n}": f"text {n}" for n in range(50)})
def test_many_at_once(tree):
    fds = [os.open(tree / f"f{n}", os.O_RDWR if n % 2 else os.O_RDONLY) for n in range(50)]
    for n in range(50):
        (tree / f"f{n}").unlink()
    assert [os.pread(fd, 99, 0).decode() for fd in fds] == [f"text {n}" for n in range(50)]
    assert {os.fstat(fd).st_nlink for fd in fds} == {0}
    for fd in fds:
        os.close(fd)
