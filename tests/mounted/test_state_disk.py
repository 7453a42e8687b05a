"""The disk of a state side fails under a live union: full, made read-only, or gone.

Programs get what they get in a plain directory on a disk of the same fate, scratch goes on, and it
is said.  What was acknowledged before is on the disk.
"""

import contextlib
import fcntl
import os
import struct
import subprocess

import pytest

from tests.mounted import disks
from tests.mounted.mount import PATIENCE, Mount
from tests.mounted.witness import failure

_SHUTDOWN = 0x8004587D  # ioctl FS_IOC_SHUTDOWN: include/uapi/linux/fs.h
_NOLOGFLUSH = struct.pack("I", 2)  # without writing what is not on the disk yet

LOWER = {"etc": {"passwd": "root", "hosts": "local"}, "keep": {"low": "l", "old": "o", "d": {}}}
RULES = "/etc/passwd:/keep"


class Ward:
    """A union whose state is on a disk, and a plain directory on another such disk."""

    def __init__(self, base, mount, state, plain):
        self.base, self.mount, self.state, self.plain = base, mount, state, plain

    def shown(self, name):
        return self.mount.path / name

    def status(self):
        done = subprocess.run(
            self.mount.command("status", self.mount.path),
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.returncode, [line for line in done.stdout.splitlines() if "critical" in line]

    def end_badly(self):
        """Unmount; the daemon says that not all is on the disk."""
        disks.run(*self.mount.command("umount", self.mount.path))
        assert self.mount.process.wait(PATIENCE) == 1
        self.mount.process = None
        assert f"state '{self.state}' is not all on disk" in self.mount.take_log()


@pytest.fixture
def ward(base):
    with contextlib.ExitStack() as held:
        roots = []
        for name in ("state", "plain"):
            (base / name).mkdir()
            roots.append(held.enter_context(disks.writable("ext4", base / name, 8)))
        for at in (roots[1] / "keep", roots[1] / "etc"):
            at.mkdir()
        for name in ("etc/passwd", "keep/low", "keep/old"):
            (roots[1] / name).write_text("old")
        (roots[1] / "keep/d").mkdir()
        sides = ("ram=8M", f"statedir={roots[0]}", f"persist={RULES}", "state-required")
        mount = Mount.planted(base, None, LOWER, options=sides).start()
        try:
            yield Ward(base, mount, *roots)
            if mount.process is not None:
                mount.take_log()
                mount.stop()
        finally:
            mount.kill()


def _fill(root):
    with contextlib.suppress(OSError), (root / "junk").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 12))
    os.sync()


def _make_read_only(root):
    disks.run("mount", "-o", "remount,ro", root)


def _shut(root):
    fd = os.open(root, os.O_RDONLY)
    try:
        fcntl.ioctl(fd, _SHUTDOWN, _NOLOGFLUSH)
    finally:
        os.close(fd)


def _write(path, text="x" * 100_000):
    with path.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


CALLS = {
    "write": lambda top: _write(top / "keep/low"),
    "create": lambda top: _write(top / "keep/new"),
    "append": lambda top: (top / "etc/passwd").open("a").close(),
    "mkdir": lambda top: (top / "keep/sub").mkdir(),
    "rmdir": lambda top: (top / "keep/d").rmdir(),
    "unlink": lambda top: (top / "keep/old").unlink(),
    "rename": lambda top: (top / "keep/old").rename(top / "keep/other"),
    "chmod": lambda top: (top / "etc/passwd").chmod(0o600),
    "symlink": lambda top: (top / "keep/s").symlink_to("x" * 900),
    "link": lambda top: (top / "keep/l").hardlink_to(top / "keep/old"),
    "truncate": lambda top: os.truncate(top / "etc/passwd", 1),
    "setxattr": lambda top: os.setxattr(top / "keep/old", "user.a", b"1" * 3000),
}


@pytest.fixture
def persisted(ward):
    """Have all that the calls change in state; it is on the disk."""
    for name in ("etc/passwd", "keep/low", "keep/old"):
        _write(ward.shown(name), "old")
    ward.shown("keep/d/x").mkdir()
    ward.shown("keep/d/x").rmdir()
    return ward


def scratch_goes_on(ward):
    ward.shown("etc/hosts").write_text("mine")
    ward.shown("etc/new").write_text("new")
    ward.shown("etc/new").rename(ward.shown("etc/newer"))
    assert ward.shown("etc/hosts").read_text() == "mine"
    assert sorted(os.listdir(ward.shown("etc"))) == ["hosts", "newer", "passwd"]
    ward.shown("etc/newer").unlink()


@pytest.mark.parametrize("harm", [_make_read_only, _shut])
def test_a_failing_disk_is_told_to_each_caller_as_by_the_disk_itself(persisted, harm):
    harm(persisted.state)
    harm(persisted.plain)
    for call, do in CALLS.items():
        said = failure(do, persisted.mount.path)
        assert (call, said) == (call, failure(do, persisted.plain))
        assert said in ("EROFS", "EIO")
    scratch_goes_on(persisted)
    code, critical = persisted.status()
    assert (code, len(critical)) == (1, 1)
    assert "state takes no changes" in critical[0]
    if harm is _shut:
        persisted.end_badly()


def test_what_crosses_to_a_failing_disk_stays_where_it_was(persisted):
    _make_read_only(persisted.state)
    new, passwd = persisted.shown("etc/npasswd"), persisted.shown("etc/passwd")
    new.write_text("new")
    for call in (
        lambda: new.rename(passwd),
        lambda: passwd.rename(new),
        lambda: persisted.shown("keep/l").hardlink_to(new),
    ):
        assert failure(call) == "EROFS"
        assert (new.read_text(), passwd.read_text()) == ("new", "old")
    persisted.shown("etc/l").hardlink_to(passwd)  # takes nothing of state's
    assert persisted.shown("etc/l").read_text() == "old"


def test_when_the_disk_takes_changes_again_so_does_the_union(persisted):
    _make_read_only(persisted.state)
    assert failure(CALLS["write"], persisted.mount.path) == "EROFS"
    disks.run("mount", "-o", "remount,rw", persisted.state)
    _write(persisted.shown("keep/low"), "new")
    assert (persisted.state / "keep/low").read_text() == "new"
    assert persisted.status() == (0, [])


def test_a_full_disk_is_told_and_tears_nothing(persisted):
    _fill(persisted.state)
    passwd = persisted.shown("etc/passwd")
    persisted.shown("etc/npasswd").write_text("x" * 100_000)
    assert failure(CALLS["create"], persisted.mount.path) == "ENOSPC"
    assert failure(persisted.shown("etc/npasswd").rename, passwd) == "ENOSPC"
    assert passwd.read_text() == "old"
    scratch_goes_on_with = persisted.shown("etc/hosts")
    scratch_goes_on_with.write_text("mine")
    assert persisted.status()[0] == 1
    (persisted.state / "junk").unlink()  # beside the mount: no name of the union
    persisted.shown("etc/npasswd").rename(passwd)
    assert passwd.read_text() == "x" * 100_000


def test_what_was_acknowledged_is_on_the_disk_that_was_shut(persisted):
    """The disk takes nothing from a moment on: as if its plug was pulled."""
    with persisted.shown("keep/low").open("w") as file:
        file.write("acknowledged")
        file.flush()
        os.fsync(file.fileno())
    persisted.shown("etc/npasswd").write_text("new")
    persisted.shown("etc/npasswd").rename(persisted.shown("etc/passwd"))
    fd = os.open(persisted.shown("etc"), os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
    _shut(persisted.state)
    image = persisted.base / "state/ext4.img"
    copy = persisted.base / "copy.img"
    disks.run("cp", image, copy)  # journal and all
    with disks.mounted(persisted.base / "copy", "-o", "loop", copy) as root:
        assert (root / "keep/low").read_text() == "acknowledged"
        assert (root / "etc/passwd").read_text() == "new"
    persisted.end_badly()
