"""Things that are neither files nor directories, locks, and what watchers see."""

import contextlib
import ctypes
import fcntl
import os
import socket
import stat
import struct

import pytest

from tests.mounted.witness import apart, failure
from tests.trees import Link

_libc = ctypes.CDLL(None, use_errno=True)


def _special(path):
    os.mkfifo(path / "fifo")
    os.mknod(path / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(path / "loop", stat.S_IFBLK | 0o600, os.makedev(7, 99))
    with socket.socket(socket.AF_UNIX) as listener, contextlib.chdir(path):
        listener.bind("socket")


@pytest.mark.tree({"l": Link("target")}, prepare=_special)
def test_special_files_are_what_they_were(tree):
    shown = {path.name: path.lstat() for path in tree.iterdir()}
    assert {name: stat.S_IFMT(st.st_mode) for name, st in shown.items()} == {
        "fifo": stat.S_IFIFO,
        "null": stat.S_IFCHR,
        "loop": stat.S_IFBLK,
        "socket": stat.S_IFSOCK,
        "l": stat.S_IFLNK,
    }
    assert shown["null"].st_rdev == os.makedev(1, 3)
    assert shown["loop"].st_rdev == os.makedev(7, 99)
    assert os.readlink(tree / "l") == "target"
    assert shown["l"].st_size == 6


@pytest.mark.tree({"l": Link("target")}, prepare=_special)
def test_special_files_are_changed_renamed_linked_and_removed(tree):
    for name in ("fifo", "null", "loop", "socket", "l"):
        before = (tree / name).lstat()
        os.chown(tree / name, 7, 7, follow_symlinks=False)
        (tree / name).rename(tree / "new")
        os.link(tree / "new", tree / name, follow_symlinks=False)
        (tree / "new").unlink()
        after = (tree / name).lstat()
        assert (after.st_mode, after.st_rdev, after.st_ino) == (
            before.st_mode,
            before.st_rdev,
            before.st_ino,
        )
        assert (after.st_uid, after.st_nlink) == (7, 1)
        (tree / name).unlink()
    assert os.listdir(tree) == []


@pytest.mark.tree({}, prepare=_special)
def test_fifos_devices_and_sockets_work(tree):
    def child():
        (tree / "fifo").write_text("through")

    pid = os.fork()
    if not pid:
        child()
        os._exit(0)
    assert (tree / "fifo").read_text() == "through"
    os.waitpid(pid, 0)
    assert (tree / "null").read_bytes() == b""
    (tree / "null").write_bytes(b"swallowed")
    with contextlib.chdir(tree), socket.socket(socket.AF_UNIX) as listener:
        listener.bind("new")
        listener.listen()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect("new")
        assert failure(listener.bind, "new") in ("EINVAL", "EADDRINUSE")


@pytest.mark.tree({"d": {"f": "text"}, "in": Link("d/f"), "loop": Link("loop"), "long": Link("x")})
def test_symlinks_lead_where_they_say(tree):
    assert (tree / "in").read_text() == "text"
    (tree / "in").write_text("new")
    assert (tree / "d/f").read_text() == "new"
    assert failure(os.stat, tree / "loop") == "ELOOP"
    os.symlink("y" * 4000, tree / "far")
    assert os.readlink(tree / "far") == "y" * 4000
    (tree / "d").rename(tree / "e")
    assert failure(os.stat, tree / "in") == "ENOENT"
    (tree / "in").unlink()
    (tree / "in").symlink_to("e/f")
    assert (tree / "in").read_text() == "new"


# Locks; each process asks for its own.


def _lock_fails(path, kind):
    with open(path, "r+") as file:
        if kind == "flock":
            return failure(fcntl.flock, file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return failure(fcntl.lockf, file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.tree({"f": "text"})
@pytest.mark.parametrize("kind", ["flock", "fcntl"])
def test_locks_exclude_other_processes_until_they_are_let_go(tree, kind):
    lock = fcntl.flock if kind == "flock" else fcntl.lockf
    with (tree / "f").open("r+") as file:
        lock(file, fcntl.LOCK_EX)
        assert apart(_lock_fails, tree / "f", kind) == "EAGAIN"
        lock(file, fcntl.LOCK_UN)
        assert apart(_lock_fails, tree / "f", kind) == ""
        lock(file, fcntl.LOCK_EX)
    assert apart(_lock_fails, tree / "f", kind) == ""


@pytest.mark.tree({"f": "text"})
@pytest.mark.parametrize("kind", ["flock", "fcntl"])
def test_a_lock_taken_before_the_first_write_still_holds_after_it(tree, kind):
    fd = os.open(tree / "f", os.O_RDONLY)
    (fcntl.flock if kind == "flock" else fcntl.lockf)(fd, fcntl.LOCK_SH)
    (tree / "f").chmod(0o600)
    with (tree / "f").open("r+b", buffering=0) as file:
        file.write(b"new")
        if kind == "flock":  # closing any descriptor of a file lets the fcntl locks go
            (tree / "f").rename(tree / "g")
            assert apart(_lock_fails, tree / "g", kind) == "EAGAIN"
        else:
            assert apart(_lock_fails, tree / "f", kind) == "EAGAIN"
    os.close(fd)


@pytest.mark.tree({"f": "0123456789"})
def test_ranges_are_locked_apart(tree):
    def other():
        with (tree / "f").open("r+b") as file:
            return [
                failure(fcntl.lockf, file, fcntl.LOCK_EX | fcntl.LOCK_NB, 2, start)
                for start in (0, 4, 8)
            ]

    with (tree / "f").open("r+b") as file:
        fcntl.lockf(file, fcntl.LOCK_EX, 3, 3)
        assert apart(other) == ["", "EAGAIN", ""]
        query = struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0)
        assert struct.unpack("hhqqi4x", fcntl.fcntl(file, fcntl.F_GETLK, query))[0] == fcntl.F_UNLCK


# inotify(7)

IN_MODIFY, IN_ATTRIB, IN_MOVED_TO, IN_CREATE, IN_DELETE = 0x2, 0x4, 0x80, 0x100, 0x200


class Watch:
    """What inotify says of one path; `seen` takes what has come."""

    def __init__(self, path, mask):
        self._fd = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        assert _libc.inotify_add_watch(self._fd, os.fsencode(path), mask) >= 0

    def seen(self):
        """Return the events as (mask, name)."""
        try:
            data = os.read(self._fd, 1 << 16)
        except BlockingIOError:
            return []
        events = []
        while data:
            _, mask, _, length = struct.unpack_from("iIII", data)
            events.append((mask & 0xFFF, data[16 : 16 + length].rstrip(b"\0").decode()))
            data = data[16 + length :]
        return events

    def close(self):
        os.close(self._fd)


@pytest.mark.tree({"f": "text"})
def test_a_watched_file_tells_of_changes_before_and_after_it_is_copied_up(tree):
    watch = Watch(tree / "f", IN_MODIFY | IN_ATTRIB)
    with (tree / "f").open("ab", buffering=0) as file:
        file.write(b"one")
        assert watch.seen() == [(IN_MODIFY, "")]
        file.write(b"two")
        assert watch.seen() == [(IN_MODIFY, "")]
    (tree / "f").chmod(0o600)
    assert watch.seen() == [(IN_ATTRIB, "")]
    watch.close()


@pytest.mark.tree({"f": "text"})
def test_a_watched_directory_tells_of_names(tree):
    watch = Watch(tree, IN_CREATE | IN_DELETE | IN_MOVED_TO | IN_MODIFY)
    (tree / "f").write_text("new")
    assert (IN_MODIFY, "f") in watch.seen()
    (tree / "g").write_text("")
    (tree / "f").rename(tree / "g")
    (tree / "g").unlink()
    assert watch.seen() == [(IN_CREATE, "g"), (IN_MOVED_TO, "g"), (IN_DELETE, "g")]
    watch.close()
