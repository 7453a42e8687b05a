"""Nothing of work's own reaches an object of the union, and what its directory passes on does."""

import contextlib
import fcntl
import os
import shutil
import stat
import subprocess

import pytest

from tests.mounted import disks
from tests.mounted.mount import Mount
from tests.mounted.witness import failure, portrait
from tests.trees import Link, Same, plant
from unionfs.layers.iflags import EXTENDED, FLAGS, PROJECT, PROJECT_PASSED_ON

# What chattr(1) sets on the directories of work and is inherited, where a file system has it.
LETTERS = "SDAdcCjs"
TREE = {
    "f": "text",
    "linked": "two names",
    "other": Same("linked"),
    "l": Link("f"),
    "d": {"in": "text", "e": {"deep": "text"}},
    "gone": "text",
    "gone too": {"x": "text"},
    "p": "to be a fifo",
}
KINDS = ("ext4", "xfs", "btrfs", "tmpfs")


def run(*words):
    return subprocess.run([str(word) for word in words], check=True, capture_output=True, text=True)


def chattr(path, letters):
    """Set those flags that there are."""
    for letter in letters:
        subprocess.run(["chattr", f"+{letter}", path], check=False, capture_output=True)


def extended(path):
    fd = os.open(path, os.O_RDONLY)
    try:
        return fcntl.ioctl(fd, EXTENDED.read, bytes(EXTENDED.size))
    finally:
        os.close(fd)


def give_project(path, number):
    data = bytearray(extended(path))
    data[PROJECT] = number.to_bytes(4, "little")
    fd = os.open(path, os.O_RDONLY)
    try:
        flags = EXTENDED.flags(bytes(data)) | PROJECT_PASSED_ON
        fcntl.ioctl(fd, EXTENDED.write, EXTENDED.with_flags(bytes(data), flags))
    finally:
        os.close(fd)


def project(path):
    return int.from_bytes(extended(path)[PROJECT], "little")


def spoil(path):
    """Have a directory pass on all that one can."""
    os.chown(path, 0, 4321)
    path.chmod(0o2777)
    run("setfacl", "-m", "d:u:1234:rwx,u:1234:rwx", path)
    chattr(path, LETTERS)
    os.setxattr(path, "user.own", b"of work")
    with contextlib.suppress(OSError):  # there are no projects
        give_project(path, 77)


def change(top):
    """Copy up and make anew, one of each kind."""
    with (top / "f").open("a") as file:
        file.write("more")
    (top / "linked").chmod(0o640)
    os.chown(top / "l", 5, 5, follow_symlinks=False)
    (top / "d/e/deep").write_text("new")
    (top / "d").chmod(0o711)
    (top / "p").unlink()
    os.mkfifo(top / "p")
    (top / "gone").unlink()
    (top / "gone").write_text("new")
    shutil.rmtree(top / "gone too")
    (top / "gone too").mkdir()
    (top / "gone too/x").write_text("new")
    (top / "l").unlink()
    (top / "l").symlink_to("elsewhere")
    os.mkfifo(top / "made")
    (top / "made").rename(top / "d/made")


def features(top):
    """Tell all that an object may have inherited."""
    shown = {}
    for path, what in portrait(top, inodes=False).items():
        kind, *rest = what
        shown[path] = [kind, *(value for value in rest if not _is_time(value))]
        if stat.S_IFMT(os.lstat(top / path).st_mode) in (stat.S_IFREG, stat.S_IFDIR):
            shown[path].append(_flags(top / path))
    return shown


def _is_time(value):
    return isinstance(value, int) and value > 10**15


def _flags(path):
    """Return flags without those that say how ext4 keeps things, and the project."""
    fd = os.open(path, os.O_RDONLY)
    try:
        flags = FLAGS.flags(fcntl.ioctl(fd, FLAGS.read, bytes(4)))
    finally:
        os.close(fd)
    return flags & ~(0x80000 | 0x1000 | 0x10000000), project(path)


@pytest.fixture(params=KINDS)
def disk(request, base):
    with disks.writable(request.param, base) as path:
        yield path


def layers(disk, *, under=lambda _path: None, earlier=False):
    """Plant the same tree as a lower and as a plain directory; *under* prepares upper and that."""
    for name in ("lower", "plain"):
        plant(disk / name, TREE)
    for name in ("upper", "work"):
        (disk / name).mkdir()
    for name in ("upper", "plain"):
        under(disk / name)
    spoil(disk / "work")
    for name in ("work", "unionfs", "unionfs/links") if earlier else ():
        (disk / "work" / name).mkdir()
        spoil(disk / "work" / name)


@contextlib.contextmanager
def union(base, disk):
    mount = Mount(base, lowers=[disk / "lower"], upper=disk / "upper", work=disk / "work")
    try:
        yield mount.start()
        mount.stop()
    finally:
        mount.kill()


@pytest.mark.parametrize("earlier", [False, True])
def test_what_work_has_reaches_nothing_that_is_copied_up_or_made(base, disk, earlier):
    layers(disk, earlier=earlier)
    change(disk / "plain")
    with union(base, disk) as mount:
        change(mount.path)
        names = {name for name in os.listdir(disk / "plain") if name != "other"}
        assert set(os.listdir(mount.path)) == names | {"other"}
        assert features(mount.path) == features(disk / "plain")


def _passing_on(top):
    """Have directories pass on what new objects in them shall have."""
    os.chown(top, 0, 4322)
    top.chmod(0o2775)
    run("setfacl", "-m", "d:u:99:rx", top)
    chattr(top, "Ad")


def test_what_its_directory_passes_on_reaches_a_new_object(base, disk):
    layers(disk, under=_passing_on, earlier=True)
    umask = os.umask(0o077)
    change(disk / "plain")
    with union(base, disk) as mount:
        change(mount.path)
        shown, wanted = features(mount.path), features(disk / "plain")
        os.umask(umask)
        made = ["gone", "gone too", "gone too/x", "l", "p", "d/made"]
        assert {name: shown[name] for name in made} == {name: wanted[name] for name in made}
        assert "system.posix_acl_access" in str(shown["gone"])


# ext4 keeps projects where the kernel is built with quotas (CONFIG_QFMT_V2), which not all are.
@pytest.mark.parametrize("disk", ["xfs"], indirect=True)
@pytest.mark.parametrize("in_work", [0, 77])
@pytest.mark.parametrize("in_upper", [0, 78])
def test_objects_belong_to_uppers_project(base, disk, in_upper, in_work):
    layers(disk, earlier=True)
    for name, number in (("upper", in_upper), ("work", in_work)):
        if number:
            give_project(disk / name, number)
    with union(base, disk) as mount:
        change(mount.path)
        numbers = {
            project(os.path.join(top, name))
            for top, _, files in os.walk(disk / "upper")
            for name in files
            if stat.S_ISREG(os.lstat(os.path.join(top, name)).st_mode)
        }
        assert numbers == {in_upper}


def test_a_staging_area_that_may_not_be_changed_is_cleared_all_the_same(base, disk):
    layers(disk, earlier=True)
    (disk / "work/work/left").write_text("by a daemon that was killed")
    chattr(disk / "work/work", "a")
    with union(base, disk) as mount:
        (mount.path / "gone").unlink()
        (mount.path / "gone").write_text("new")
    assert os.listdir(disk / "work/work") == []


@pytest.mark.parametrize("disk", ["xfs"], indirect=True)
def test_what_another_project_within_upper_forbids_is_a_limit(base, disk):
    layers(disk)
    with union(base, disk) as mount:
        (mount.path / "d/in").chmod(0o600)
        give_project(disk / "upper/d", 79)
        assert failure((mount.path / "d/e/deep").write_text, "new") == "EXDEV"
        (mount.path / "d/in").unlink()
        (mount.path / "d/in").write_text("new")
        assert project(disk / "upper/d/in") == 79
