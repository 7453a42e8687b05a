"""Checks: a rename changes a name, never the file; what is open stays usable."""

import contextlib
import errno
import fcntl
import mmap
import os
import time
from collections.abc import Iterator

from unionfs.probe import trees
from unionfs.probe.model import (
    LACKING,
    DiffersError,
    NotSupportedError,
    Trial,
    beyond,
    expect,
    posix,
)
from unionfs.probe.trees import File, Link

LONG_AGO_NS = 981173106 * 10**9  # 2001-02-03 04:05:06, before anything that happens here
OWNER = 1234


@posix("inode number stays the same", {"source": "new", "source-2": {"a": "b"}, "target": "old"})
def inode_number(_trial: Trial) -> None:
    """POSIX: the same file under a new name: st_dev and st_ino tell files apart (sys/stat.h)."""
    for source, target in (("source", "target"), ("source-2", "target-2")):
        before = os.stat(source)
        os.rename(source, target)
        after = os.stat(target)
        expect((before.st_dev, before.st_ino) == (after.st_dev, after.st_ino), f"{source}: another")


@beyond("d_ino and st_ino agree", {"source": "new", "source-2": {"a": "b"}, "target": "old"})
def listed_inode_number(_trial: Trial) -> None:
    """Linux: readdir(3) gives the inode number, as find, tar and rsync rely on."""
    os.rename("source", "target")
    os.rename("source-2", "target-2")
    expect(sorted(os.listdir()) == ["target", "target-2"], "other names are listed")
    for entry in os.scandir("."):
        seen, listed = os.lstat(entry.name).st_ino, entry.inode()
        expect(seen == listed, f"{entry.name}: listed {listed}, is {seen}")


@posix(
    "mode, owner and times are kept",
    {"source": File("new", mode=0o4751, owner=OWNER, modified_ns=LONG_AGO_NS), "target": "old"},
)
def attributes_kept(_trial: Trial) -> None:
    """POSIX: rename() marks times of the parent directories, not those of the file's data."""

    def attributes(path: str) -> tuple[int, ...]:
        st = os.stat(path)
        return (st.st_mode, st.st_uid, st.st_gid, st.st_size, st.st_mtime_ns)

    before = attributes("source")
    os.rename("source", "target")
    after = attributes("target")
    expect(after == before, f"mode, owner, size, time {before} became {after}")


@beyond("extended attributes are kept", {"source": "new", "target": "old"})
def extended_attributes_kept(_trial: Trial) -> None:
    """Linux: xattr(7): attributes belong to the inode, which stays the same."""
    try:
        os.setxattr("source", "user.unionfs", b"value")
    except OSError as exc:
        if exc.errno in LACKING:
            raise NotSupportedError("no user attributes") from None
        raise
    os.rename("source", "target")
    expect(os.getxattr("target", "user.unionfs") == b"value", "another value")


@posix("times of both parent directories", {"source": {"f": "new"}, "target": {"f": "old"}})
def parents_times(_trial: Trial) -> None:
    """POSIX: marks for update modification and status change times of both parents."""

    def mark() -> tuple[list[int], list[int]]:
        stats = [os.stat(directory) for directory in ("source", "target")]
        return [st.st_mtime_ns for st in stats], [st.st_ctime_ns for st in stats]

    for directory in ("source", "target"):
        os.utime(directory, ns=(LONG_AGO_NS, LONG_AGO_NS))
    _, changed_before = mark()
    _later()
    os.rename("source/f", "target/f")
    modified, changed = mark()
    expect(LONG_AGO_NS not in modified, "modification time is not marked")
    expect(all(map(int.__gt__, changed, changed_before)), "status change time is not marked")


@beyond("status change time of the file", {"source": "new", "target": "old"})
def status_change_time(_trial: Trial) -> None:
    """POSIX leaves it open; Linux file systems mark it, and backups (tar -g) rely on it."""
    before = os.stat("source")
    _later()
    os.rename("source", "target")
    after = os.stat("target")
    expect(after.st_ino == before.st_ino, "another file")
    expect(after.st_ctime_ns > before.st_ctime_ns, "not marked")


def _later() -> None:
    """Let the clock of file times tick: coarse to 10 ms here, 2 s on FAT (as measured)."""
    trees.write("clock", "")
    start = os.stat("clock").st_ctime_ns
    for _ in range(300):
        time.sleep(0.01)
        os.utime("clock")
        if os.stat("clock").st_ctime_ns > start:
            break
    os.unlink("clock")


@posix(
    "the replaced file loses a link", {"source": "new", "target": "old", "target-2": Link("target")}
)
def replaced_loses_link(trial: Trial) -> None:
    """POSIX: the link named by new is removed: one name less for the file it named."""
    os.rename("source", "target")
    trial.shows({"target": "new", "target-2": "old"})
    links = os.stat("target-2").st_nlink
    expect(links == 1, f"link count {links}, not 1")


@posix("open source: read and written on", {"source": "new", "target": "old"})
def open_source(_trial: Trial) -> None:
    """POSIX: open file descriptions refer to files, not to names (open())."""
    with open("source", "r+b", buffering=0) as file:
        expect(file.read(1) == b"n", "another content before")
        os.rename("source", "target")
        expect(file.read() == b"ew", "another content after the rename")
        file.write(b"er")
        expect(trees.read("target") == "newer", "a write through it is not seen by name")
        expect(os.path.samestat(os.fstat(file.fileno()), os.stat("target")), "another file")


@posix("open source: sees what is written later", {"source": "new", "target": "old"})
def open_source_sees_writes(_trial: Trial) -> None:
    """POSIX: read() after a write() to the same file returns what was written."""
    with open("source", "rb", buffering=0) as file:
        os.rename("source", "target")
        trees.write("target", "later")
        seen = file.read()
        expect(seen == b"later", f"still reads {seen!r}")


@posix("open target: read and written on", {"source": "new", "target": "old"})
def open_target(trial: Trial) -> None:
    """POSIX: a replaced file that is open is removed only when its last reference is closed."""
    with open("target", "r+b", buffering=0) as file:
        os.rename("source", "target")
        expect(file.read() == b"old", "another content")
        file.write(b"er")
        os.fchmod(file.fileno(), 0o600)
        st = os.fstat(file.fileno())
        expect((st.st_size, st.st_mode & 0o777) == (5, 0o600), "size or mode is not its own")
        expect(st.st_nlink == 0, f"link count {st.st_nlink}, not 0")
        trial.shows({"target": "new"})
        os.ftruncate(file.fileno(), 1)
        expect(os.pread(file.fileno(), 9, 0) == b"o", "another content after truncation")


@posix("mapped source: read and written on", {"source": "new", "target": "old"})
def mapped_source(_trial: Trial) -> None:
    """POSIX: mmap() maps the file, which the rename leaves the same."""
    with open("source", "r+b") as file, _mapping(file.fileno()) as memory:
        os.rename("source", "target")
        expect(memory[:] == b"new", "another content")
        memory[:] = b"NEW"
        expect(trees.read("target") == "NEW", "a write to the mapping is not seen by name")
        with open("target", "r+b", buffering=0) as again:
            again.write(b"two")
        expect(memory[:] == b"two", "a write by name is not seen in the mapping")


@beyond("mapped source: sees what is written later", {"source": "new", "target": "old"})
def mapped_source_sees_writes(_trial: Trial) -> None:
    """Linux: mmap(2), write(2): both go through one page cache; databases rely on it."""
    with open("source", "rb") as file:
        memory = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    with memory:
        os.rename("source", "target")
        with open("target", "r+b", buffering=0) as again:
            again.write(b"two")
        expect(memory[:] == b"two", f"still shows {memory[:]!r}")


@posix("mapped target: read and written on", {"source": "new", "target": "old"})
def mapped_target(trial: Trial) -> None:
    """POSIX: mmap() adds a reference to the file, which lasts until it is unmapped."""
    with open("target", "r+b") as file:
        memory = _mapping(file.fileno())
    with memory:
        os.rename("source", "target")
        expect(memory[:] == b"old", "another content")
        memory[:] = b"OLD"
        trial.shows({"target": "new"})
        expect(memory[:] == b"OLD", "what was written to the mapping is lost")


def _mapping(fd: int) -> mmap.mmap:
    try:
        return mmap.mmap(fd, 0)
    except OSError as exc:
        if exc.errno in (*LACKING, errno.ENODEV):  # mmap(2)
            raise NotSupportedError("no shared writable mappings") from None
        raise


@posix("open directory: used on", {"source": {"a": "1"}, "target": {}})
def open_directory(trial: Trial) -> None:
    """POSIX: openat(), fchdir() and the current directory follow the directory, not its name."""
    with _opened("source") as fd:
        os.rename("source", "target")
        expect(os.listdir(fd) == ["a"], "another listing")
        os.rename("a", "b", src_dir_fd=fd, dst_dir_fd=fd)
        os.mkdir("c", dir_fd=fd)
    trial.shows({"target": {"b": "1", "c": {}}})


@posix("current directory: used on", {"source": {"deep": {"a": "1"}}})
def current_directory(trial: Trial) -> None:
    """POSIX: rename() of a directory that is the current one of a process, or above it."""
    os.chdir("source/deep")
    os.rename("../../source", "../../target")
    os.rename("a", "b")
    trees.write("c", "2")
    os.chdir("../..")
    trial.shows({"target": {"deep": {"b": "1", "c": "2"}}})


@posix("replaced open directory: empty and dead", {"source": {"a": "1"}, "target": {}})
def replaced_directory(_trial: Trial) -> None:
    """POSIX: as rmdir(): an open directory has no entries any more, and takes none."""
    with _opened("target") as fd:
        os.rename("source", "target")
        os.fstat(fd)
        with contextlib.suppress(FileNotFoundError):  # getdents(2) of a dead directory
            expect(os.listdir(fd) == [], "it still lists names")
        try:
            os.mkdir("b", dir_fd=fd)
        except FileNotFoundError:
            return
        raise DiffersError("a name can be made in it")


@beyond("locks stay on the file", {"source": "new", "target": "old"})
def locks_stay(_trial: Trial) -> None:
    """Linux: flock(2): a lock belongs to the open file description, not to the name."""
    with open("source", "r+b") as holder:
        _lock(holder.fileno())
        os.rename("source", "target")
        with open("target", "r+b") as other:
            try:
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
    raise DiffersError("the file is not locked under its new name")


def _lock(fd: int) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
    except OSError as exc:
        raise NotSupportedError("no flock(2)") from exc


@contextlib.contextmanager
def _opened(directory: str) -> Iterator[int]:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)
