"""Layers on every file system that people have, in numbers from one to 500."""

import contextlib
import os
import subprocess

import pytest

from tests.mounted import disks
from tests.mounted.mount import ROOT, Mount, wait_until
from tests.mounted.witness import failure, portrait
from tests.trees import WHITEOUT, File, Link, Same, harvest, plant
from unionfs.mounting import live

LOWERS = ("ext4", "ext4-untyped", "xfs", "btrfs", "tmpfs", "squashfs", "erofs", "overlay")
UPPERS = ("ext4", "ext4-untyped", "xfs", "btrfs", "tmpfs")

TREE = {
    "f": File("text", 0o640, (("user.a", b"1"),)),
    "h": "one",
    "h2": Same("h"),
    "big": "x" * 3000000,
    "l": Link("f"),
    "d": {"x": "x", "e": {"y": "y"}},
    "gone": {"z": "z"},
}
AFTER = {
    "f": "texttail",
    "h": "new",
    "h2": "new",
    "big": "y" + "x" * 2999999,
    "l": Link("F"),
    "D": {"x": "x", "e": {"y": "Y", "new": ""}},
    "gone": {},
    "g": "r-",
}


def _plant(directory):
    plant(directory, TREE)
    os.chown(directory / "f", 11, 22)
    os.mkfifo(directory / "p")


def _change(path):
    """Carry the tree from TREE to AFTER."""
    os.chown(path / "d/e", 5, 5)
    with (path / "f").open("a") as file:
        file.write("tail")
    (path / "h2").write_text("new")
    with (path / "big").open("r+b", buffering=0) as file:
        file.write(b"y")
    (path / "l").unlink()
    (path / "l").symlink_to("F")
    (path / "d").rename(path / "D")
    (path / "D/e/y").write_text("Y")
    (path / "D/e/new").write_text("")
    (path / "gone/z").unlink()
    (path / "gone").rmdir()
    (path / "gone").mkdir()
    (path / "p").rename(path / "q")
    (path / "q").unlink()
    (path / "g").write_text("r-")


@contextlib.contextmanager
def _union(base, lower, upper_root, *options):
    upper, work = upper_root / "upper", upper_root / "work"
    upper.mkdir()
    work.mkdir()
    mount = Mount(base, lowers=[lower], upper=upper, work=work, options=options)
    try:
        yield mount.start()
        if mount.process is not None:
            mount.stop()
    finally:
        mount.kill()


def _changes_and_stays(mount):
    before = portrait(mount.lowers[0], inodes=False)
    shown = portrait(mount.path, inodes=False)
    assert {**shown, ".": ()} == {**before, ".": ()}  # the root is upper's
    _change(mount.path)
    assert harvest(mount.path) == AFTER
    assert (mount.path / "f").stat().st_uid == 11
    assert os.getxattr(mount.path / "f", "user.a") == b"1"
    changed = portrait(mount.path)
    mount.remount()
    assert portrait(mount.path) == changed
    assert portrait(mount.lowers[0], inodes=False) == before
    mount.stop()


@pytest.mark.parametrize("kind", LOWERS)
def test_a_lower_on_any_file_system(base, kind):
    with (
        disks.lower(kind, base, _plant) as lower,
        _directory(base) as upper,
        _union(base, lower, upper) as mount,
    ):
        _changes_and_stays(mount)


@contextlib.contextmanager
def _directory(base):
    (base / "plain").mkdir()
    yield base / "plain"


@pytest.mark.parametrize("kind", UPPERS)
def test_upper_and_work_on_any_file_system(base, kind):
    (base / "lower").mkdir()
    _plant(base / "lower")
    with disks.writable(kind, base) as upper, _union(base, base / "lower", upper) as mount:
        _changes_and_stays(mount)


@contextlib.contextmanager
def _kernel_overlay(base):
    (base / "below").mkdir()
    with disks.overlay(base, base / "below") as path:
        yield path


@contextlib.contextmanager
def _union_below(base):
    (base / "below").mkdir()
    beneath = Mount.planted(base / "below", {}, {})
    try:
        yield beneath.start().path
        beneath.stop()
    finally:
        beneath.kill()


@pytest.mark.parametrize("root", [_kernel_overlay, _union_below])
def test_an_upper_where_overlayfs_could_have_none(base, root):
    """Whiteouts that are devices, and exchange, are not to be had everywhere; names are."""
    (base / "lower").mkdir()
    _plant(base / "lower")
    with root(base) as upper:
        for name in ("u", "w"):
            (upper / name).mkdir()
        layers = ["--lower", base / "lower", "--upper", upper / "u", "--work", upper / "w"]
        command = Mount(base, lowers=[]).command("mount", *layers, base / "mnt")
        refused = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT)
        assert refused.returncode == 2
        assert "or -o whiteout=aufs" in refused.stderr
        with _union(base, base / "lower", upper, "whiteout=aufs") as mount:
            _changes_and_stays(mount)


def test_whiteouts_of_both_kinds_where_directories_tell_no_kinds(base):
    """Each is asked for its kind then, while the daemon looks at others."""
    with disks.writable("ext4-untyped", base) as root:
        gone = {"gone1": File("", xattrs=(("trusted.overlay.whiteout", b"y"),))}
        stays = {f"stays{n}": "" for n in range(5)}
        plant(root / "top", {"d": {**gone, **stays, "sub": {"f": ""}}})
        os.setxattr(root / "top/d", "trusted.overlay.opaque", b"x")
        plant(root / "bottom", {"d": {"gone1": "", "gone2": "", "low": "", "lowsub": {}}})
        for name in ("upper", "work"):
            (root / name).mkdir()
        lowers = [root / "top", root / "bottom"]
        mount = Mount(base, lowers=lowers, upper=root / "upper", work=root / "work")
        try:
            mount.start()
            (mount.path / "d/gone2").unlink()
            (mount.path / "d/sub/f").unlink()
            (mount.path / "d/sub").rmdir()
            expected = {"d": {**stays, "low": "", "lowsub": {}}}
            assert harvest(mount.path) == expected
            mount.remount()
            assert harvest(mount.path) == expected
            diff = subprocess.run(
                mount.command("diff", mount.path),
                check=True,
                capture_output=True,
                text=True,
                cwd=ROOT,
            )
            assert diff.stdout == "deleted  /d/gone2\ndeleted  /d/sub\n"
            mount.stop()
            subprocess.run(mount.command("check", mount.upper), check=True, cwd=ROOT)
        finally:
            mount.kill()


@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
def test_a_copy_shares_its_data_where_the_file_system_can(base, kind):
    def plant_big(directory):
        (directory / "lower").mkdir()
        (directory / "lower/big").write_bytes(os.urandom(1 << 20) * 40)

    with disks.writable(kind, base) as root:
        assert disks.reflinks(root)
        plant_big(root)
        os.sync()
        with _union(base, root / "lower", root) as mount:
            free = os.statvfs(root).f_bavail * os.statvfs(root).f_frsize
            os.close(os.open(mount.path / "big", os.O_RDWR))
            os.sync()
            assert free - os.statvfs(root).f_bavail * os.statvfs(root).f_frsize < 8 << 20
            assert (mount.upper / "big").stat().st_size == 40 << 20
            assert (mount.path / "big").read_bytes() == (root / "lower/big").read_bytes()


def test_lowers_on_different_file_systems_in_one_stack(base):
    (base / "a").mkdir()
    (base / "b").mkdir()
    with (
        disks.writable("ext4", base) as one,
        disks.writable("tmpfs", base) as two,
        disks.packed("squashfs", base, plant(base / "tree", {"d": {"3": ""}, "x": "3"})) as three,
    ):
        plant(one / "l", {"d": {"1": ""}, "x": WHITEOUT})
        plant(two / "l", {"d": {"2": ""}, "x": "2"})
        for name in ("upper", "work"):
            (base / name).mkdir()
        mount = Mount(
            base, lowers=[one / "l", two / "l", three], upper=base / "upper", work=base / "work"
        )
        try:
            mount.start()
            assert harvest(mount.path) == {"d": {"1": "", "2": "", "3": ""}}
            numbers = [p.lstat().st_ino for p in (mount.path / "d").iterdir()]
            assert len(set(numbers)) == 3
            assert len({p.lstat().st_dev for p in (mount.path / "d").iterdir()}) == 1
            mount.stop()
        finally:
            mount.kill()


def test_500_lowers(mounted):
    lowers = [{f"f{n}": str(n), "same": str(n), "d": {f"f{n}": ""}} for n in range(500)]
    union = mounted({}, *lowers)
    assert len(live.find(union.path).status["layers"]["lowers"]) == 500
    too_long = union.take_log()  # for an attribute of upper, where that is on ext4
    assert len(os.listdir(union.path)) == 502
    assert (union.path / "same").read_text() == "0"
    assert len(os.listdir(union.path / "d")) == 500
    (union.path / "f499").write_text("new")
    (union.path / "d").rename(union.path / "e")
    (union.path / "same").unlink()
    assert union.on_upper() == {
        "d": WHITEOUT,
        "e": {},
        "f499": "new",
        "same": WHITEOUT,
    }
    union.stop()
    union.start()
    assert len(os.listdir(union.path / "e")) == 500
    assert union.take_log() == too_long


READ_ONLY_CALLS = [
    (os.unlink, "f"),
    (os.rmdir, "d/e"),
    (os.mkdir, "new"),
    (os.mkfifo, "new"),
    (os.chmod, "f", 0o600),
    (os.chown, "f", 1, 1),
    (os.utime, "f"),
    (os.truncate, "f", 0),
    (os.setxattr, "f", "user.a", b""),
    (os.removexattr, "f", "user.a"),
    (os.open, "f", os.O_WRONLY),
    (os.open, "new", os.O_CREAT | os.O_RDONLY),
]


def test_without_an_upper_all_is_read_only(mounted):
    union = mounted(None, TREE, {"f": "hidden", "d": {"low": ""}})
    expected = {n: (w.text if isinstance(w, File) else w) for n, w in TREE.items()}
    expected |= {"h2": "one", "d": TREE["d"] | {"low": ""}}
    assert harvest(union.path) == expected
    for call, name, *words in READ_ONLY_CALLS:
        assert failure(call, union.path / name, *words) == "EROFS", call
    assert failure(os.rename, union.path / "f", union.path / "g") == "EROFS"
    assert failure(os.link, union.path / "f", union.path / "g") == "EROFS"
    assert os.statvfs(union.path).f_flag & os.ST_RDONLY
    assert not os.access(union.path / "f", os.W_OK)
    before = portrait(union.path)
    union.remount()
    assert portrait(union.path) == before


def test_a_single_lower_without_an_upper(mounted):
    assert harvest(mounted(None, {"d": {"f": "text"}}).path) == {"d": {"f": "text"}}


def test_100_000_entries(mounted):
    def fill(base):
        (base / "lower1/d").mkdir()
        directory = os.open(base / "lower1/d", os.O_RDONLY)
        for n in range(100_000):
            os.mknod(str(n), dir_fd=directory)
        os.close(directory)

    union = mounted({"d": {"new": ""}}, {}, prepare=fill)
    (union.path / "d/7").unlink()
    names = os.listdir(union.path / "d")
    assert len(names) == len(set(names)) == 100_000
    assert set(names) == {"new", *map(str, range(100_000))} - {"7"}


# Mount flags


def test_nosuid_nodev_and_noexec_are_honoured(mounted):
    def special(base):
        os.mknod(base / "lower1/null", 0o20666, os.makedev(1, 3))
        (base / "lower1/true").chmod(0o755)

    tree = {"true": "#!/bin/sh\n"}
    union = mounted({}, tree, options=("nosuid", "nodev", "noexec"), prepare=special)
    assert failure(os.open, union.path / "null", os.O_RDONLY) == "EACCES"
    assert failure(os.execv, union.path / "true", ["true"]) == "EACCES"
    flags = os.statvfs(union.path).f_flag
    wanted = os.ST_NOSUID | os.ST_NODEV | os.ST_NOEXEC
    assert flags & wanted == wanted


def test_by_default_set_uid_programs_and_devices_work(mounted):
    def special(base):
        subprocess.run(["cp", "/usr/bin/id", base / "lower1/id"], check=True)
        (base / "lower1/id").chmod(0o4755)

    union = mounted({}, {}, prepare=special)
    words = ["setpriv", "--reuid=65534", "--clear-groups", union.path / "id", "-u"]
    assert subprocess.run(words, check=True, capture_output=True).stdout == b"0\n"


def test_remount_to_read_only_and_back(mounted):
    union = mounted({}, {"f": "text"})
    remount = union.command("mount", "-o", "remount,ro", union.path)
    assert subprocess.run(remount, check=False, cwd=ROOT).returncode == 0
    assert failure((union.path / "f").write_text, "new") == "EROFS"
    assert (union.path / "f").read_text() == "text"
    remount = union.command("mount", "-o", "remount,rw", union.path)
    assert subprocess.run(remount, check=False, cwd=ROOT).returncode == 0
    (union.path / "f").write_text("new")


# Things that go wrong below


DAMAGE = {
    "redirect out of the tree": ("trusted.overlay.redirect", b"/../../etc"),
    "redirect with empty names": ("trusted.overlay.redirect", b"a//b"),
    "redirect to a path in one name": ("trusted.overlay.redirect", b"a/b"),
    "redirect to nothing said": ("trusted.overlay.redirect", b""),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_marker_gives_eio_and_a_line_with_the_path(mounted, damage):
    def spoil(base):
        os.setxattr(base / "upper/bad/worse", *DAMAGE[damage])

    union = mounted({"bad": {"worse": {"x": ""}}, "good": "good"}, {"bad": {}}, prepare=spoil)
    assert failure(os.listdir, union.path / "bad/worse") == "EIO"
    assert (union.path / "good").read_text() == "good"
    lines = union.take_log().splitlines()
    assert any("bad/worse" in line for line in lines), lines


def test_metadata_without_content_below_gives_eio_and_a_line(mounted):
    def spoil(base):
        os.setxattr(base / "upper/f", "trusted.overlay.metacopy", b"")

    union = mounted({"f": "", "good": "good"}, {}, prepare=spoil)
    assert failure(os.open, union.path / "f", os.O_RDONLY) == "EIO"
    assert (union.path / "good").read_text() == "good"
    lines = union.take_log().splitlines()
    assert any("upper: f:" in line for line in lines), lines


def test_an_upper_made_read_only_says_so_and_recovers(base):
    (base / "lower").mkdir()
    (base / "lower/f").write_text("text")
    with disks.writable("tmpfs", base) as root, _union(base, base / "lower", root) as mount:
        (mount.path / "before").write_text("b")
        read_only = ["mount", "-o", "remount,ro", root]  # EBUSY until the last file is released
        wait_until(lambda: not subprocess.run(read_only, check=False).returncode)
        assert failure((mount.path / "f").write_text, "new") == "EROFS"
        assert failure((mount.path / "new").mkdir) == "EROFS"
        assert failure((mount.path / "before").unlink) == "EROFS"
        assert (mount.path / "f").read_text() == "text"
        subprocess.run(["mount", "-o", "remount,rw", root], check=True)
        (mount.path / "f").write_text("new")
        assert harvest(mount.path) == {"before": "b", "f": "new"}
        mount.take_log()


def test_a_full_upper_changes_nothing(base):
    (base / "lower").mkdir()
    (base / "lower/big").write_bytes(os.urandom(1 << 20) * 8)
    (base / "lower/small").write_text("small")
    with disks.writable("tmpfs", base, mib=4) as root, _union(base, base / "lower", root) as mount:
        before = portrait(mount.path)
        assert failure(os.open, mount.path / "big", os.O_RDWR) == "ENOSPC"
        assert portrait(mount.path) == before
        assert harvest(mount.upper) == {}
        (mount.path / "small").write_text("other")
        with (mount.path / "fill").open("wb", buffering=0) as file:
            assert failure(lambda: [file.write(bytes(1 << 16)) for _ in range(99)]) == "ENOSPC"
        assert failure(os.truncate, mount.path / "small", 0) == ""
        (mount.path / "fill").unlink()
        (mount.path / "small").write_text("again")
        assert (mount.path / "small").read_text() == "again"
        mount.take_log()


def test_a_lower_that_fails_gives_eio_and_the_mount_goes_on(base):
    """The lower lies on a FUSE mount whose daemon is killed."""
    (base / "below").mkdir()
    (base / "own").mkdir()
    beneath = Mount.planted(base / "below", {}, {"f": "text", "d": {"x": ""}, "g": "g"})
    (base / "upper").mkdir()
    (base / "work").mkdir()
    union = None
    try:
        beneath.start()
        union = Mount(base, lowers=[beneath.path], upper=base / "upper", work=base / "work")
        union.start()
        (union.path / "own").write_text("own")
        (union.path / "g").write_text("up")
        beneath.process.kill()
        beneath.process.wait()
        assert failure((union.path / "f").read_text) in ("EIO", "ENOTCONN")
        assert failure(os.listdir, union.path / "d") in ("EIO", "ENOTCONN")
        assert (union.path / "own").read_text() == "own"
        assert (union.path / "g").read_text() == "up"
        (union.path / "own").write_text("more")
        assert (union.path / "own").read_text() == "more"
        lines = union.take_log().splitlines()
        assert any("f" in line for line in lines), lines
        union.stop()
    finally:
        if union is not None:
            union.kill()
        beneath.kill()


def test_a_file_that_vanishes_from_a_lower_is_no_longer_there(mounted):
    union = mounted({}, {"f": "text", "d": {"x": ""}, "g": "g"})
    assert sorted(os.listdir(union.path)) == ["d", "f", "g"]
    (union.lowers[0] / "f").unlink()
    assert failure((union.path / "f").read_text) in ("ENOENT", "ESTALE", "EIO")
    assert (union.path / "g").read_text() == "g"
    (union.path / "g").write_text("new")
    union.take_log()


def test_killing_the_daemon_leaves_a_mount_that_can_be_removed(mounted):
    union = mounted({}, {"f": "text"})
    (union.path / "f").write_text("new")
    union.process.kill()
    union.process.wait()
    assert failure(os.stat, union.path / "f") == "ENOTCONN"
    union.process = None
    subprocess.run(union.command("umount", union.path), check=True, cwd=ROOT)
    assert union.remains() == []
    union.start()
    assert (union.path / "f").read_text() == "new"
