"""Files made without a name (O_TMPFILE), and those that get one later by linkat(2)."""

import ctypes
import functools
import os
import stat
import subprocess

import pytest

from tests.mounted.witness import as_user, failure
from tests.trees import harvest

# FUSE_TMPFILE is not known to libfuse.
pytestmark = pytest.mark.without("direct=off", "loop=off", "handshake=off")

LARGE = os.urandom(3 << 20)  # passes through
AT_EMPTY_PATH = 0x1000

_libc = ctypes.CDLL(None, use_errno=True)


def unnamed(directory, flags=os.O_RDWR, mode=0o666):
    return os.open(directory, flags | os.O_TMPFILE, mode)


def link_through_proc(fd, path):
    proc = os.open("/proc/self/fd", os.O_RDONLY)
    try:
        os.link(str(fd), path, src_dir_fd=proc, follow_symlinks=True)
    finally:
        os.close(proc)


def link_by_descriptor(fd, path):
    if _libc.linkat(fd, b"", -100, os.fsencode(path), AT_EMPTY_PATH) != 0:
        raise OSError(ctypes.get_errno(), "linkat")


linking = pytest.mark.parametrize("link", [link_through_proc, link_by_descriptor])


def facts(path):
    st = os.stat(path)
    return stat.filemode(st.st_mode), st.st_uid, st.st_gid, st.st_nlink, st.st_size


@pytest.mark.tree({"f": ""})
def test_no_name_shows_and_the_file_is_there(tree):
    before = os.stat(tree).st_mtime_ns
    fd = unnamed(tree, mode=0o640)
    os.write(fd, b"content")
    st = os.fstat(fd)
    assert (stat.filemode(st.st_mode), st.st_nlink, st.st_size) == ("-rw-r-----", 0, 7)
    assert os.pread(fd, 99, 0) == b"content"
    assert os.listdir(tree) == ["f"]
    assert os.stat(tree).st_mtime_ns == before
    os.close(fd)


@pytest.mark.tree({"d": {}})
def test_in_a_removed_directory_it_is_as_on_the_disk(tree, aside):
    """Tmpfs makes one, ext4 says EPERM; none says that the directory is not there."""
    said = []
    for top in (tree, aside("plain")):
        os.makedirs(top / "d", exist_ok=True)
        directory = os.open(top / "d", os.O_RDONLY)
        os.rmdir(top / "d")
        make = functools.partial(os.open, ".", os.O_TMPFILE | os.O_RDWR, 0o600, dir_fd=directory)
        said.append(failure(lambda make=make: os.close(make())))
        os.close(directory)
    assert said[0] == said[1]


def test_it_is_changed_as_any_other_file(tree):
    fd = unnamed(tree)
    os.posix_fallocate(fd, 0, 9000)
    os.pwrite(fd, b"end", 8997)
    os.fchmod(fd, 0o600)
    os.fchown(fd, 7, 8)
    os.setxattr(fd, "user.a", b"value")
    os.utime(fd, ns=(1, 2))
    os.fsync(fd)
    again = os.open(f"/proc/self/fd/{fd}", os.O_RDWR)
    st = os.fstat(again)
    assert (stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid, st.st_mtime_ns) == (0o600, 7, 8, 2)
    assert (st.st_size, st.st_nlink, st.st_ino) == (9000, 0, os.fstat(fd).st_ino)
    assert os.listxattr(again) == ["user.a"]
    assert os.pread(again, 99, 8990) == bytes(7) + b"end"
    os.ftruncate(again, 2)
    assert os.fstat(fd).st_size == 2
    os.close(fd)
    os.close(again)


@linking
@pytest.mark.tree({"gone": "old", "e": {}})
def test_it_gets_a_name(tree, link):
    (tree / "gone").unlink()
    for name in ("new", "gone", "e/new"):
        fd = unnamed(tree)
        os.write(fd, name.encode())
        link(fd, tree / name)
        assert (tree / name).read_text() == name
        st = os.stat(tree / name)
        assert (st.st_ino, st.st_nlink) == (os.fstat(fd).st_ino, 1)
        assert os.fstat(fd).st_nlink == 1
        os.close(fd)
        assert (tree / name).read_text() == name


@linking
@pytest.mark.tree({"f": "old"})
def test_a_name_that_is_taken_stays(tree, link):
    fd = unnamed(tree)
    assert failure(link, fd, tree / "f") == "EEXIST"
    assert (tree / "f").read_text() == "old"
    link(fd, tree / "g")
    os.close(fd)


@linking
def test_one_that_is_opened_with_o_excl_never_gets_a_name(tree, link):
    fd = unnamed(tree, os.O_RDWR | os.O_EXCL)
    assert failure(link, fd, tree / "f") == "ENOENT"
    os.close(fd)
    assert os.listdir(tree) == []


def test_with_a_name_it_is_a_file_as_others_are(tree):
    fd = unnamed(tree)
    os.write(fd, b"content")
    link_through_proc(fd, tree / "f")
    os.close(fd)
    (tree / "f").rename(tree / "g")
    os.link(tree / "g", tree / "h")
    (tree / "g").unlink()
    fd = os.open(tree / "h", os.O_RDWR)
    assert os.fstat(fd).st_nlink == 1
    (tree / "h").unlink()
    assert (os.fstat(fd).st_nlink, os.pread(fd, 99, 0)) == (0, b"content")
    assert failure(link_through_proc, fd, tree / "i") == "ENOENT"
    os.close(fd)
    assert os.listdir(tree) == []


def test_two_names_and_none_while_it_is_open(tree):
    fd = unnamed(tree)
    link_through_proc(fd, tree / "f")
    link_through_proc(fd, tree / "g")
    assert os.fstat(fd).st_nlink == 2
    (tree / "f").unlink()
    (tree / "g").unlink()
    assert os.fstat(fd).st_nlink == 0
    os.write(fd, b"content")
    assert os.pread(fd, 99, 0) == b"content"
    os.close(fd)


def test_a_large_one_is_read_back_with_and_without_a_name(tree):
    fd = unnamed(tree)
    os.write(fd, LARGE)
    assert os.pread(fd, len(LARGE), 0) == LARGE
    link_through_proc(fd, tree / "f")
    assert (tree / "f").read_bytes() == LARGE
    os.pwrite(fd, b"!", 0)
    assert (tree / "f").read_bytes() == b"!" + LARGE[1:]
    os.close(fd)
    assert (tree / "f").stat().st_size == len(LARGE)


@pytest.mark.tree({"d": {"e": {}}})
def test_its_directory_may_go_before_it_gets_a_name(tree):
    fd = unnamed(tree / "d/e")
    os.write(fd, b"content")
    (tree / "d/e").rmdir()
    assert os.pread(fd, 99, 0) == b"content"
    link_through_proc(fd, tree / "d/f")
    assert (tree / "d/f").read_text() == "content"
    os.close(fd)


def _prepare_directories(tree):
    (tree / "group").chmod(0o2777)
    os.chown(tree / "group", 0, 1234)
    (tree / "acl").chmod(0o777)
    command = ["setfacl", "-d", "-m", "u:1234:rwx,g::rx,o::-", tree / "acl"]
    subprocess.run(command, check=True)


@pytest.mark.parametrize("directory", ["group", "acl"])
@pytest.mark.tree({"group": {}, "acl": {}}, prepare=_prepare_directories)
def test_owner_group_mode_and_acl_are_those_of_any_new_file(tree, directory):
    place = tree / directory

    def make(mode):
        with_name = os.open(place / f"{mode}", os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)
        without = unnamed(place, mode=mode)
        link_through_proc(without, place / f"{mode} too")
        assert os.listxattr(with_name) == os.listxattr(without)
        for name in os.listxattr(with_name):
            assert os.getxattr(with_name, name) == os.getxattr(without, name)

    for mode in (0o666, 0o600, 0o2775, 0o4777):
        as_user(make, mode, uid=1000, gid=1000, umask=0o027)
        assert facts(place / f"{mode}") == facts(place / f"{mode} too")


@pytest.mark.tree({"d": {}}, prepare=lambda tree: (tree / "d").chmod(0o755))
def test_who_may_not_write_to_the_directory_makes_none(tree):
    def attempt():
        return failure(unnamed, tree / "d")

    assert as_user(attempt) == "EACCES"
    assert failure(unnamed, tree / "d", os.O_RDONLY) == "EINVAL"


def test_nothing_of_it_is_in_the_layers_until_it_has_a_name(mounted):
    mount = mounted({}, {"d": {"gone": "old"}})
    path = mount.path / "d"
    (path / "gone").unlink()
    fd = unnamed(path)
    os.write(fd, LARGE)
    assert [os.listdir(mount.upper / "d"), os.listdir(mount.work / "work")] == [["gone"], []]
    link_through_proc(fd, path / "gone")
    os.link(path / "gone", path / "other")
    os.close(fd)
    mount.remount()
    assert (path / "gone").read_bytes() == LARGE
    (path / "gone").write_text("new")
    assert harvest(mount.upper) == {"d": {"gone": "new", "other": "new"}}


def test_a_killed_daemon_leaves_nothing_of_it(mounted):
    mount = mounted({}, {"d": {}})
    fd = unnamed(mount.path / "d")
    os.write(fd, b"content")
    mount.kill()
    failure(os.close, fd)  # ENOTCONN, for the descriptor is closed all the same
    assert harvest(mount.upper) == {"d": {}}
    assert os.listdir(mount.work / "work") == []
