"""Inode flags: lsattr(1) and chattr(1), and what is immutable (+i) or append-only (+a)."""

import contextlib
import fcntl
import mmap
import os
import shutil
import subprocess

import pytest

from tests.mounted import disks
from tests.mounted.mount import Mount
from tests.mounted.witness import as_user, failure, portrait
from tests.trees import plant
from unionfs.host.syscalls import RENAME_EXCHANGE, fallocate, renameat2
from unionfs.layers.iflags import APPEND, EXTENDED, FLAGS, IMMUTABLE

NODUMP, NOATIME, SYNC, COMPRESSED, JOURNALLED = 0x40, 0x80, 0x8, 0x4, 0x4000
EXTENTS, NOTAIL = 0x80000, 0x8000  # ext4: how blocks are found; what ext4 keeps and does not heed
PROTATTR, METACOPY = "trusted.overlay.protattr", "trusted.overlay.metacopy"

# libfuse and pyfuse3 do not answer FUSE_IOCTL.
direct = pytest.mark.without("direct=off", "loop=off", "handshake=off")


@contextlib.contextmanager
def opened(path):
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        yield fd
    finally:
        os.close(fd)


def shown(path, form=FLAGS):
    with opened(path) as fd:
        return form.flags(fcntl.ioctl(fd, form.read, bytes(form.size)))


def change(path, *, add=0, take=0, form=FLAGS):
    with opened(path) as fd:
        data = fcntl.ioctl(fd, form.read, bytes(form.size))
        fcntl.ioctl(fd, form.write, form.with_flags(data, form.flags(data) & ~take | add))


def tmpfile(path):
    os.close(os.open(path, os.O_TMPFILE | os.O_RDWR))


def write(path, flags):
    fd = os.open(path, os.O_WRONLY | flags)
    try:
        os.write(fd, b"more")
    finally:
        os.close(fd)


def exchange(path, other):
    renameat2(-100, os.fsencode(path), -100, os.fsencode(other), RENAME_EXCHANGE)


# What is done to a file `f` or a directory `d`, and how it fails where that is +i, and +a.
TO_A_FILE = {
    "read": (lambda d: (d / "f").read_bytes(), "", ""),
    "write": (lambda d: write(d / "f", 0), "EPERM", "EPERM"),
    "append": (lambda d: write(d / "f", os.O_APPEND), "EPERM", ""),
    "empty": (lambda d: write(d / "f", os.O_APPEND | os.O_TRUNC), "EPERM", "EPERM"),
    "truncate": (lambda d: os.truncate(d / "f", 1), "EPERM", "EPERM"),
    "chmod": (lambda d: (d / "f").chmod(0o600), "EPERM", "EPERM"),
    "chown": (lambda d: os.chown(d / "f", 7, -1), "EPERM", "EPERM"),
    "set times": (lambda d: os.utime(d / "f", ns=(1, 2)), "EPERM", "EPERM"),
    "touch": (lambda d: os.utime(d / "f"), "EPERM", ""),
    "setxattr": (lambda d: os.setxattr(d / "f", "user.new", b"1"), "EPERM", "EPERM"),
    "removexattr": (lambda d: os.removexattr(d / "f", "user.none"), "EPERM", "EPERM"),
    "link": (lambda d: os.link(d / "f", d / "new"), "EPERM", "EPERM"),
    "rename": (lambda d: (d / "f").rename(d / "new"), "EPERM", "EPERM"),
    "replace": (lambda d: (d / "other").rename(d / "f"), "EPERM", "EPERM"),
    "exchange": (lambda d: exchange(d / "other", d / "f"), "EPERM", "EPERM"),
    "unlink": (lambda d: (d / "f").unlink(), "EPERM", "EPERM"),
}  # fmt: skip
TO_A_DIRECTORY = {
    "create": (lambda d: (d / "d/new").touch(), "EPERM", ""),
    "mkdir": (lambda d: (d / "d/new").mkdir(), "EPERM", ""),
    "symlink": (lambda d: (d / "d/new").symlink_to("x"), "EPERM", ""),
    "mkfifo": (lambda d: os.mkfifo(d / "d/new"), "EPERM", ""),
    "link into": (lambda d: os.link(d / "other", d / "d/new"), "EPERM", ""),
    "rename into": (lambda d: (d / "other").rename(d / "d/new"), "EPERM", ""),
    "rename out": (lambda d: (d / "d/in").rename(d / "new"), "EPERM", "EPERM"),
    "rename within": (lambda d: (d / "d/in").rename(d / "d/new"), "EPERM", "EPERM"),
    "replace in": (lambda d: (d / "other").rename(d / "d/in"), "EPERM", "EPERM"),
    "unlink in": (lambda d: (d / "d/in").unlink(), "EPERM", "EPERM"),
    "rmdir in": (lambda d: (d / "d/e").rmdir(), "EPERM", "EPERM"),
    "write in": (lambda d: (d / "d/in").write_text("new"), "", ""),
    "chmod in": (lambda d: (d / "d/in").chmod(0o600), "", ""),
    "chmod": (lambda d: (d / "d").chmod(0o700), "EPERM", "EPERM"),
    "setxattr": (lambda d: os.setxattr(d / "d", "user.new", b"1"), "EPERM", "EPERM"),
    "rename": (lambda d: (d / "d").rename(d / "new"), "EPERM", "EPERM"),
    "rmdir": (lambda d: (d / "d").rmdir(), "EPERM", "EPERM"),
    "a file without a name": (lambda d: tmpfile(d / "d"), "EPERM", ""),
}
TREE = {"f": "text", "other": "other", "d": {"in": "text", "e": {}}}
OPERATIONS = {"f": TO_A_FILE, "d": TO_A_DIRECTORY}
FLAG_NAMES = {"i": IMMUTABLE, "a": APPEND}
CASES = [
    (name, what, flag) for name, table in OPERATIONS.items() for what in table for flag in "ia"
]


def _plant_cases(tree):
    """Give each case a tree of its own."""
    for case in CASES:
        plant(tree / " ".join(case), TREE)


def _protect_cases(tree):
    for case in CASES:
        name, _, flag = case
        change(tree / " ".join(case) / name, add=FLAG_NAMES[flag])


def _plant_protected(tree):
    _plant_cases(tree)
    _protect_cases(tree)


def _attempt_cases(tree):
    """Try each case; what fails changes nothing."""
    results = {}
    for case in CASES:
        name, what, _ = case
        directory = tree / " ".join(case)
        before = portrait(directory)
        results[case] = failure(OPERATIONS[name][what][0], directory)
        assert not results[case] or portrait(directory) == before, case
    return results


def _expected():
    return {
        (name, what, flag): result
        for name, table in OPERATIONS.items()
        for what, (_, *results) in table.items()
        for flag, result in zip("ia", results, strict=True)
    }


# Flags of upper's host bind the daemon as well; only what is beside the union sets them there.
@pytest.mark.without("upper")
@pytest.mark.tree({}, prepare=_plant_protected)
def test_what_the_host_protects_is_protected(tree, variant):
    expected = _expected()
    if variant in {"direct=off", "loop=off", "handshake=off"}:  # what pyfuse3 does not tell
        expected[("f", "set times", "a")] = ""
        expected |= {("d", "a file without a name", flag): "EOPNOTSUPP" for flag in "ia"}
    assert _attempt_cases(tree) == expected


@direct
@pytest.mark.tree({}, prepare=_plant_cases)
def test_what_is_protected_by_chattr_is_protected_until_it_is_no_more(tree):
    _protect_cases(tree)
    assert _attempt_cases(tree) == _expected()
    for case in CASES:
        name, _, flag = case
        path = tree / " ".join(case) / name
        assert shown(path) & (IMMUTABLE | APPEND) == FLAG_NAMES[flag]
        change(path, take=FLAG_NAMES[flag])
        os.setxattr(path, "user.free", b"1")
        path.rename(path.with_name("moved"))
        shutil.rmtree(tree / " ".join(case))


@direct
@pytest.mark.tree({"f": "text"})
def test_an_open_file_that_becomes_immutable_gets_no_room_and_no_copies(tree):
    with (tree / "f").open("r+b") as file, (tree / "other").open("w+b") as other:
        other.write(b"other")
        other.flush()
        change(tree / "f", add=IMMUTABLE)
        assert failure(fallocate, file.fileno(), 0, 0, 4096) == "EPERM"
        copy = os.copy_file_range, other.fileno(), file.fileno(), 5, 0, 0
        assert failure(*copy) == "EPERM"
        change(tree / "f", add=APPEND, take=IMMUTABLE)
        assert failure(fallocate, file.fileno(), 2 | 1, 0, 4096) == "EPERM"
        fallocate(file.fileno(), 1, 0, 4096)
        change(tree / "f", take=APPEND)
        os.copy_file_range(*copy[1:])
    assert (tree / "f").read_text() == "other"


@direct
@pytest.mark.tree({"f": "text", "d": {"in": ""}, "other": ""})
@pytest.mark.parametrize("form", [FLAGS, EXTENDED], ids=["flags", "extended"])
@pytest.mark.parametrize("name", ["f", "d"])
def test_flags_are_set_and_taken_back_one_by_one(tree, name, form):
    path = tree / name
    nodump, noatime = (NODUMP, NOATIME) if form is FLAGS else (0x80, 0x40)
    before, other = shown(path, form), shown(tree / "other", form)
    flags = form.immutable, form.append, nodump, noatime
    for flag in flags:
        change(path, add=flag, form=form)
    assert shown(path, form) == before | sum(flags)
    for flag in reversed(flags):
        change(path, take=flag, form=form)
        assert not shown(path, form) & flag
    assert (shown(path, form), shown(tree / "other", form)) == (before, other)


@direct
@pytest.mark.tree({"f": "text"})
def test_the_change_time_is_that_of_the_change(tree):
    before = os.stat(tree / "f")
    change(tree / "f", add=NODUMP)
    after = os.stat(tree / "f")
    assert (after.st_ctime_ns > before.st_ctime_ns, after.st_ino) == (True, before.st_ino)
    assert after.st_mtime_ns == before.st_mtime_ns


@direct
@pytest.mark.tree({"f": "text", "mine": ""}, prepare=lambda tree: os.chown(tree / "mine", 1000, -1))
def test_who_may_change_flags(tree):
    def attempt(name, flag):
        return as_user(lambda: failure(change, tree / name, add=flag), uid=1000)

    assert attempt("f", NODUMP) == "EPERM"
    assert [attempt("mine", flag) for flag in (NODUMP, IMMUTABLE, APPEND)] == ["", "EPERM", "EPERM"]


@direct
@pytest.mark.tree({"f": "text"})
def test_a_file_without_a_name_is_protected_too(tree):
    fd = os.open(tree, os.O_TMPFILE | os.O_RDWR, 0o600)
    change(f"/proc/self/fd/{fd}", add=IMMUTABLE)
    proc = os.open("/proc/self/fd", os.O_RDONLY)
    link = os.link, str(fd), tree / "new"
    assert failure(*link, src_dir_fd=proc, follow_symlinks=True) == "EPERM"
    change(f"/proc/self/fd/{fd}", take=IMMUTABLE)
    os.link(*link[1:], src_dir_fd=proc, follow_symlinks=True)
    os.close(proc)
    os.close(fd)
    assert (tree / "new").read_bytes() == b""


def _flag_all(tree):
    change(tree / "f", add=NODUMP | NOATIME)
    change(tree / "d", add=NODUMP)


@direct
@pytest.mark.tree({"f": "text", "d": {"in": ""}}, prepare=_flag_all)
def test_copy_up_takes_flags_along(tree):
    before = shown(tree / "f"), shown(tree / "d")
    (tree / "d/in").write_text("new")
    (tree / "f").chmod(0o600)
    assert (shown(tree / "f"), shown(tree / "d")) == before
    (tree / "f").write_text("new")
    assert shown(tree / "f") == before[0]


@pytest.mark.tree({"f": "text"})
def test_a_map_of_an_immutable_file_is_read(tree):
    with (tree / "f").open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as map_:
        assert map_[:] == b"text"


# On disk


@pytest.fixture
def disk(base):
    with disks.writable("ext4", base) as path:
        yield path


@contextlib.contextmanager
def union(base, disk, lower):
    """Yield a union over *lower*, with upper on *disk*."""
    for name in ("upper", "work"):
        (disk / name).mkdir(exist_ok=True)
    mount = Mount(base, lowers=[lower], upper=disk / "upper", work=disk / "work")
    try:
        yield mount.start()
        mount.stop()
    finally:
        mount.kill()


@contextlib.contextmanager
def overlay(disk, lower):
    """Yield the kernel's union of the same layers."""
    options = f"lowerdir={lower},upperdir={disk}/upper,workdir={disk}/work,metacopy=on"
    with disks.mounted(disk / "mnt", "-t", "overlay", "-o", options, "overlay") as path:
        yield path


def test_an_upper_with_protected_files_passes_between_us_and_the_kernel(base, disk):
    lower = plant(base / "lower", {"f": "text", "g": "text", "d": {"in": ""}, "low": "text"})
    change(lower / "low", add=IMMUTABLE)
    with union(base, disk, lower) as mount:
        (mount.path / "u").write_text("new")
        change(mount.path / "f", add=IMMUTABLE | NODUMP)
        change(mount.path / "u", add=APPEND)
        change(mount.path / "d", add=IMMUTABLE | APPEND)
    assert not [path for path in (disk / "upper").iterdir() if shown(path) & (IMMUTABLE | APPEND)]
    with overlay(disk, lower) as theirs:
        assert shown(theirs / "f") & (IMMUTABLE | NODUMP) == IMMUTABLE | NODUMP
        assert failure((theirs / "f").unlink) == "EPERM"
        write(theirs / "u", os.O_APPEND)
        assert failure(write, theirs / "u", 0) == "EPERM"
        assert failure((theirs / "d/new").touch) == "EPERM"
        change(theirs / "d", take=IMMUTABLE)
        (theirs / "d/new").touch()
        change(theirs / "g", add=IMMUTABLE)
    with union(base, disk, lower) as mount:
        assert shown(mount.path / "f") & (IMMUTABLE | NODUMP) == IMMUTABLE | NODUMP
        for name in ("f", "g", "u", "low", "d/new"):
            assert failure((mount.path / name).unlink) == "EPERM"
        assert failure(write, mount.path / "g", os.O_APPEND) == "EPERM"
        assert (mount.path / "u").read_text() == "newmore"
        (mount.path / "d/newer").touch()
        for name, flag in (("f", IMMUTABLE), ("g", IMMUTABLE), ("u", APPEND), ("d", APPEND)):
            change(mount.path / name, take=flag)
    assert not [path for path in (disk / "upper").iterdir() if PROTATTR in os.listxattr(path)]
    with overlay(disk, lower) as theirs:
        (theirs / "f").unlink()
        (theirs / "d/new").unlink()
    change(lower / "low", take=IMMUTABLE)


def test_flags_that_say_how_content_is_kept_come_with_the_content(base, disk):
    lower = plant(base / "lower", {"f": "text" * 1000, "g": "text"})
    with union(base, disk, lower) as mount:
        change(mount.path / "f", add=COMPRESSED)
        change(mount.path / "g", add=NODUMP)
        assert (mount.path / "f").read_text() == "text" * 1000
        marks = [os.listxattr(disk / "upper" / name) for name in "fg"]
        assert [METACOPY in names for names in marks] == [False, True]
        (mount.path / "f").write_text("new")
        (mount.path / "g").write_text("new")
        assert shown(mount.path / "f") & COMPRESSED
        assert shown(mount.path / "g") & NODUMP


def test_journalled_data_is_not_for_everybody(base, disk):
    lower = plant(base / "lower", {"f": ""})
    with union(base, disk, lower) as mount:
        for top in (disk / "upper", mount.path):
            (top / "mine").touch()
            os.chown(top / "mine", 1000, -1)
            attempt = as_user(
                lambda top=top: failure(change, top / "mine", add=JOURNALLED), uid=1000
            )
            assert attempt == "EPERM"


def test_a_lower_of_another_kind_shows_flags_and_upper_takes_those_it_knows(base, disk):
    lower = plant(disk / "lower", {"f": "text", "g": "text"})
    for name in "fg":
        change(lower / name, add=NODUMP | SYNC)
    with disks.writable("tmpfs", base) as ram, union(base, ram, lower) as mount:
        assert shown(mount.path / "f") & (NODUMP | SYNC) == NODUMP | SYNC
        change(mount.path / "f", add=NOATIME)
        (mount.path / "g").chmod(0o600)
        assert shown(mount.path / "f") == NODUMP | NOATIME
        assert shown(mount.path / "g") == NODUMP
        assert failure(change, mount.path / "g", add=SYNC) == "EOPNOTSUPP"


def test_what_upper_alone_has_stays_when_content_comes_for_other_flags(base, disk):
    with disks.writable("xfs", base) as other:
        lower = plant(other / "lower", {"f": "text" * 10000})
        with union(base, disk, lower) as mount:
            change(mount.path / "f", add=NOTAIL)
        assert shown(lower / "f") & EXTENTS == 0
        assert shown(disk / "upper/f") & (EXTENTS | NOTAIL) == EXTENTS | NOTAIL


@pytest.mark.parametrize("kind", ["squashfs", "erofs"])
def test_a_lower_without_flags_protects_nothing_and_has_none(base, disk, kind):
    def fill(directory):
        plant(directory, {"f": "text", "g": "text", "d": {}})

    with disks.lower(kind, base, fill) as lower, union(base, disk, lower) as mount:
        assert [shown(mount.path / name) for name in "fd"] == [0, 0]
        (mount.path / "f").write_text("new")
        (mount.path / "d").rmdir()
        change(mount.path / "g", add=IMMUTABLE)
        assert failure((mount.path / "g").unlink) == "EPERM"
        change(mount.path / "g", take=IMMUTABLE)


def test_without_an_upper_flags_are_the_lowers(mounted):
    mount = mounted(None, {"f": ""}, prepare=lambda base: change(base / "lower1/f", add=NODUMP))
    assert shown(mount.path / "f") == NODUMP
    assert failure(change, mount.path / "f", add=NOATIME) == "EROFS"


def test_lsattr_and_chattr_agree_with_a_plain_directory(mounted, base):
    mount = mounted({}, {"f": ""})
    plain = plant(base / "plain", {"f": ""})

    def say(*words):
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout

    for words in (("chattr", "+iad"), ("lsattr",), ("chattr", "-ia"), ("lsattr",)):
        ours, theirs = (say(*words, top / "f") for top in (mount.path, plain))
        assert ours == (theirs[0], theirs[1].replace(str(plain), str(mount.path)))
