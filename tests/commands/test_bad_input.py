"""What cannot work is refused: status 2, a message that says what to do, and nothing changed."""

import fcntl
import os
import subprocess
import sys

import pytest

from tests.commands.conftest import wait_for

LAYERS = "--lower lower --upper upper --work work"


def snapshot(bench):
    """All names below the bench, with the mounts."""
    names = [
        os.path.join(top, name)
        for top, directories, files in os.walk(bench.path)
        for name in directories + files
    ]
    return sorted(names), bench.mounts()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("mount mnt", "no lower layer: give --lower DIR"),
        ("mount --lower nope mnt", "lower 'nope' does not exist: make it first"),
        ("mount --lower lower/file mnt", "lower 'lower/file' is not a directory"),
        ("mount --lower lower --upper nope --work work mnt", "upper 'nope' does not exist"),
        ("mount --lower lower --upper upper --work nope mnt", "work 'nope' does not exist"),
        ("mount --lower lower --upper upper/x/y --work work mnt", "upper/x/y' does not exist"),
        ("mount --lower lower --upper upper mnt", "needs a work directory on the same"),
        ("mount --lower lower --work work mnt", "work 'work' without an upper"),
        ("mount --lower lower --upper upper --work upper mnt", "are the same directory: give two"),
        ("mount --lower lower --upper upper --work upper/in mnt", "is inside upper"),
        ("mount --lower lower --upper work/in --work work mnt", "is inside work"),
        ("mount --lower lower --upper upper --work /dev/shm mnt", "on different file systems"),
        ("mount --lower lower --lower lower/../lower mnt", "are the same directory: leave one"),
        ("mount --lower upper --upper upper --work work mnt", "is inside upper"),
        ("mount --lower upper/in --upper upper --work work mnt", "is inside upper"),
        ("mount --lower work --upper upper --work work mnt", "is inside work"),
        (f"mount {LAYERS} nope", "nope' does not exist: make it first"),
        (f"mount {LAYERS} lower/file", "file' is not a directory"),
        (f"mount {LAYERS} work/in", "is inside work"),
        (f"mount {LAYERS} -o bogus mnt", "unknown option 'bogus'"),
        (f"mount {LAYERS} --bogus mnt", "unrecognized arguments: --bogus"),
        (f"mount {LAYERS} -o upperdir=upper mnt", "upper is given twice"),
        ("mount --lower lower -o lowerdir=upper mnt", "lower layers are given twice"),
        (f"mount {LAYERS} --ram mnt", "exclude each other"),
        ("mount --lower lower --ram 12Q mnt", "bad size '12Q'"),
        ("mount --lower lower --ram=lots mnt", "bad size 'lots'"),
        ("mount --lower lower -o ram=0 mnt", "bad size '0'"),
        (f"mount {LAYERS}", "the following arguments are required: MOUNTPOINT"),
        (f"mount {LAYERS} mnt mnt", "unrecognized arguments: mnt"),
        ("mount -o lowerdir=" + ":".join(["lower"] * 501) + " mnt", "501 lower layers: at most"),
        ("source mnt -o lowerdir=nope", "lower 'nope' does not exist"),
        ("source mnt -o lowerdir=lower,user", "only root can mount"),
        ("mont", "unknown command 'mont'"),
        ("umount mnt", "no union is mounted at 'mnt'"),
        ("umount nope", "mount point 'nope' does not exist"),
        ("status mnt", "no union is mounted at 'mnt'"),
        ("mount -o remount,ro mnt", "no union is mounted at 'mnt'"),
        ("run", "the following arguments are required: COMMAND"),
        ("run --lower nope -- true", "lower 'nope' does not exist"),
        ("run --keep a/b -- true", "cannot keep changes in 'a/b'"),
        ("run --lower nope --keep kept -- true", "lower 'nope' does not exist"),
        ("run --keep kept --ram 1M -- true", "--keep and another upper exclude each other"),
        ("run --ram 1Q -- true", "bad size '1Q'"),
    ],
)
def test_bad_input_is_refused(bench, line, message):
    os.mkdir(bench.at("upper/in"))
    os.mkdir(bench.at("work/in"))
    before = snapshot(bench)
    result = bench.unionfs(line)
    assert (result.status, result.out) == (2, "")
    assert result.err.startswith("unionfs: ")
    assert message in result.err
    assert len(result.err.splitlines()) <= 2  # a complaint, and where to read on
    assert snapshot(bench) == before


def test_an_upper_of_a_live_union_is_refused(bench):
    assert bench.unionfs(f"mount {LAYERS} mnt").status == 0
    for name in ("lower2", "upper2", "work2", "mnt2"):
        os.mkdir(bench.at(name))
    for layers in ("--upper upper --work work2", "--upper upper2 --work work",
                   "--upper work --work upper2"):  # fmt: skip
        result = bench.unionfs(f"mount --lower lower2 {layers} mnt2")
        assert result.status == 2
        assert "is in use by another union (process " in result.err
    assert bench.unionfs("umount mnt").status == 0
    assert bench.unionfs(f"mount {LAYERS} mnt").status == 0
    assert bench.unionfs("umount mnt").status == 0


def test_a_lower_that_is_a_live_upper_is_warned_of(bench):
    assert bench.unionfs(f"mount {LAYERS} mnt").status == 0
    os.mkdir(bench.at("mnt2"))
    result = bench.unionfs("mount --lower upper mnt2")
    assert result.status == 0
    assert "is the upper of a live union" in result.err
    assert bench.unionfs("umount mnt mnt2").status == 0


@pytest.mark.parametrize("upper", ["upper", "work"])
def test_an_upper_of_a_kernel_overlay_is_refused(bench, upper):
    os.mkdir(bench.at("a,b"))
    options = r"lowerdir=lower,upperdir=a\,b,workdir=work"
    words = ["mount", "-t", "overlay", "overlay", "mnt", "-o", options]
    if upper == "upper":
        words[-1] = "lowerdir=lower,upperdir=upper,workdir=work"
    subprocess.run(words, cwd=bench.path, check=True)
    for name in ("other", "mnt2"):
        os.mkdir(bench.at(name))
    result = bench.unionfs(f"mount --lower lower --upper {upper} --work other mnt2")
    subprocess.run(["umount", bench.at("mnt")], check=True)
    assert result.status == 2
    assert "is in use by the overlay mounted at" in result.err


def test_an_upper_that_cannot_hold_whiteouts_is_refused(bench):
    vfat = bench.at("vfat")
    os.mkdir(vfat)
    subprocess.run(["mount", "-t", "ramfs", "ramfs", vfat], check=True)
    for name in ("upper", "work"):
        os.mkdir(f"{vfat}/{name}")
    result = bench.unionfs("mount --lower lower --upper vfat/upper --work vfat/work mnt")
    left = os.listdir(f"{vfat}/work")
    subprocess.run(["umount", vfat], check=True)
    assert result.status == 2
    assert "is on a file system that cannot" in result.err
    assert "choose a directory on ext4, xfs, btrfs or tmpfs" in result.err
    assert left == []


def test_an_upper_on_a_read_only_file_system_is_refused(bench):
    os.mkdir(bench.at("fs"))
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", bench.at("fs")], check=True)
    for name in ("upper", "work"):
        os.mkdir(bench.at(f"fs/{name}"))
    subprocess.run(["mount", "-o", "remount,ro", bench.at("fs")], check=True)
    result = bench.unionfs("mount --lower lower --upper fs/upper --work fs/work mnt")
    subprocess.run(["umount", bench.at("fs")], check=True)
    assert result.status == 2
    assert "is on a read-only file system: mount that read-write" in result.err


def test_upper_and_work_through_two_mounts_are_refused(bench):
    os.mkdir(bench.at("other"))
    subprocess.run(["mount", "--bind", bench.at("work"), bench.at("other")], check=True)
    result = bench.unionfs("mount --lower lower --upper upper --work other mnt")
    subprocess.run(["umount", bench.at("other")], check=True)
    assert result.status == 2
    assert "are on different mounts of one file system" in result.err


def test_a_full_upper_is_mounted_all_the_same(bench):
    os.mkdir(bench.at("fs"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1M", "tmpfs", bench.at("fs")], check=True)
    for name in ("upper", "work", "work/work", "work/unionfs", "work/unionfs/links"):
        os.mkdir(bench.at(f"fs/{name}"))
    subprocess.run(["dd", "if=/dev/zero", f"of={bench.at('fs/upper/big')}"], check=False)
    result = bench.unionfs("mount --lower lower --upper fs/upper --work fs/work mnt")
    if result.status == 0:
        os.unlink(bench.at("mnt/big"))
        wait_for(lambda: os.statvfs(bench.at("mnt")).f_bfree)  # the kernel's FORGET frees it
        bench.write("mnt/small", "fits")
        bench.unionfs("umount mnt")
    subprocess.run(["umount", bench.at("fs")], check=True)
    assert (result.status, result.err) == (0, "")


def test_a_mount_point_with_content_is_warned_of(bench):
    bench.write("mnt/hidden", "")
    result = bench.unionfs(f"mount {LAYERS} mnt")
    assert result.status == 0
    assert "mnt' is not empty: its content is hidden" in result.err
    assert bench.ls("mnt") == ["file"]
    assert bench.unionfs("umount mnt").status == 0
    assert bench.ls("mnt") == ["hidden"]


def test_others_than_root_are_refused(bench):
    # The modules are loaded before: another user may be unable to read this checkout.
    program = (
        "import os, sys; from unionfs import cli;"
        "from unionfs.commands import commands; from unionfs.mounting import opening;"
        "commands.command_parser('mount')[0].format_help();"
        f"sys.argv = ['unionfs', 'mount', *{LAYERS.split()!r}, 'mnt'];"
        "os.setuid(65534); sys.exit(cli.main())"
    )
    result = bench.run([sys.executable, "-c", program])
    assert result.status == 2
    assert "not permitted: only root can mount a union" in result.err


def test_root_without_the_capability_is_refused(bench):
    words = bench.words(f"mount {LAYERS} mnt")
    result = bench.run(["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin", *words])
    assert result.status == 2
    assert "not permitted: mounting needs CAP_SYS_ADMIN" in result.err


def test_what_a_daemon_would_lack_later_is_told_at_once(bench):
    words = bench.words(f"mount {LAYERS} mnt")
    result = bench.run(["setpriv", "--bounding-set=-chown,-setgid", *words])
    assert result == (2, "", "unionfs: not permitted: a union also needs CAP_CHOWN, CAP_SETGID\n")


def test_a_machine_without_fuse_is_told_apart(bench):
    inner = " ".join(bench.words(f"mount {LAYERS} mnt"))
    hidden = f"mount -t tmpfs tmpfs /dev && {inner}"
    result = bench.run(["unshare", "--mount", "sh", "-c", hidden])
    assert result.status == 2
    assert "/dev/fuse: No such file or directory: load the module (modprobe fuse)" in result.err


def test_a_lock_of_a_reader_of_lower_is_no_matter(bench):
    fd = os.open(bench.at("lower"), os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_SH)
    result = bench.unionfs(f"mount {LAYERS} mnt")
    os.close(fd)
    assert (result.status, result.err) == (0, "")
    assert bench.unionfs("umount mnt").status == 0
