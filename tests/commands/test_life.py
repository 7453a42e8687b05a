"""The life of a mount: it serves when the command returns, and leaves nothing behind."""

import argparse
import json
import os
import signal
import subprocess
import time

import pytest

from tests.commands.conftest import SECONDS, kill, wait_for
from unionfs.commands import umount
from unionfs.host import mountcalls

LAYERS = "--lower lower --upper upper --work work"


def flags(bench):
    """The flags of the mount point, as the mount table shows them."""
    return set(bench.mounts()[-1][3].split(","))


def test_a_mount_serves_when_the_command_returns(bench):
    assert bench.unionfs(f"mount {LAYERS} mnt") == (0, "", "")
    assert bench.read("mnt/file") == "lower\n"
    bench.write("mnt/new", "new\n")
    assert bench.read("upper/new") == "new\n"
    assert bench.unionfs("umount mnt") == (0, "", "")
    assert bench.processes() == []
    assert bench.ls("mnt") == []
    assert bench.ls("work/work") == []


def test_a_ram_upper_takes_changes_and_forgets_them(bench):
    for _ in range(2):
        assert bench.unionfs("mount --lower lower --ram 4M mnt") == (0, "", "")
        assert bench.ls("mnt") == ["file"]
        figures = os.statvfs(bench.at("mnt"))
        assert figures.f_blocks * figures.f_frsize == 4 << 20
        bench.write("mnt/new", "new\n")
        assert bench.unionfs("umount mnt") == (0, "", "")
    assert bench.ls("lower") == ["file"]


def test_the_root_of_a_ram_union_takes_after_the_lower(bench):
    os.chown(bench.at("lower"), 12, 34)
    os.chmod(bench.at("lower"), 0o2751)
    os.utime(bench.at("lower"), ns=(10**18, 10**18 + 5))
    assert bench.unionfs("mount --lower lower --ram mnt").status == 0
    st = os.stat(bench.at("mnt"))
    assert (st.st_uid, st.st_gid, st.st_mode & 0o7777) == (12, 34, 0o2751)
    assert st.st_mtime_ns == 10**18 + 5
    assert bench.unionfs("umount mnt").status == 0


def test_without_an_upper_it_is_read_only(bench):
    assert bench.unionfs("mount --lower lower mnt") == (0, "", "")
    with pytest.raises(OSError, match="Read-only file system"):
        bench.write("mnt/new", "")
    result = bench.unionfs("mount -o remount,rw mnt")
    assert result.status == 2
    assert "has no upper layer, so it stays read-only" in result.err
    assert bench.unionfs("umount mnt") == (0, "", "")


@pytest.mark.parametrize("command", ["umount", "fusermount3 -u"])
def test_other_commands_unmount_too(bench, command):
    assert bench.unionfs(f"mount {LAYERS} mnt").status == 0
    subprocess.run([*command.split(), bench.at("mnt")], check=True)
    wait_for(lambda: not bench.processes())


def test_a_busy_mount_stays_and_a_lazy_one_ends_with_its_last_user(bench):
    assert bench.unionfs(f"mount {LAYERS} mnt").status == 0
    with open(bench.at("mnt/file")) as held:
        result = bench.unionfs("umount mnt")
        assert result.status == 1
        assert "Device or resource busy" in result.err
        assert len(bench.mounts()) == 1
        assert bench.unionfs("umount -l mnt") == (0, "", "")
        assert bench.mounts() == []
        assert len(bench.processes()) == 1
        assert held.read() == "lower\n"
    wait_for(lambda: not bench.processes())


def umounted_when_first_busy(bench, monkeypatch, meanwhile):
    """Unmount a union that is in use at the first try; do *meanwhile* before the next one."""
    assert bench.unionfs(f"mount {LAYERS} mnt").status == 0
    using, really = os.open(bench.at("mnt/file"), os.O_RDONLY), mountcalls.umount

    def tried(target, flags):
        try:
            really(target, flags)
        except OSError:
            os.close(using)
            meanwhile()
            raise

    with monkeypatch.context() as patch:
        patch.setattr(mountcalls, "umount", tried)
        return umount.run(argparse.Namespace(mountpoint=[bench.at("mnt")], lazy=False))


def test_who_passes_by_keeps_no_mount_busy(bench, monkeypatch):
    """As a status does, or df(1), at the wrong moment."""
    assert umounted_when_first_busy(bench, monkeypatch, lambda: None) == 0
    assert bench.mounts() == []


def test_what_lies_under_a_union_that_somebody_else_unmounts_stays(bench, monkeypatch):
    mountcalls.mount("under", bench.at("mnt"), "tmpfs", 0)
    really = mountcalls.umount
    assert umounted_when_first_busy(bench, monkeypatch, lambda: really(bench.at("mnt"))) == 0
    assert [mount[0] for mount in bench.mounts()] == ["under"]
    mountcalls.umount(bench.at("mnt"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_unmounts(bench, number):
    assert bench.unionfs(f"mount {LAYERS} mnt").status == 0
    os.kill(bench.processes()[0][0], number)
    wait_for(lambda: not bench.processes())
    assert bench.mounts() == []


def test_a_signal_unmounts_a_busy_mount_when_its_last_user_has_gone(bench):
    assert bench.unionfs(f"mount {LAYERS} mnt").status == 0
    with open(bench.at("mnt/file")) as held:
        os.kill(bench.processes()[0][0], signal.SIGTERM)
        wait_for(lambda: not bench.mounts())
        assert held.read() == "lower\n"
    wait_for(lambda: not bench.processes())


def test_a_signal_does_not_unmount_what_hides_the_union(bench):
    assert bench.unionfs(f"mount {LAYERS} mnt").status == 0
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", bench.at("mnt")], check=True)
    os.kill(bench.processes()[0][0], signal.SIGTERM)
    time.sleep(0.2)  # nothing is to happen
    assert len(bench.mounts()) == 2
    subprocess.run(["umount", bench.at("mnt")], check=True)
    assert bench.unionfs("umount mnt") == (0, "", "")


def test_a_mount_over_what_the_daemon_itself_uses_serves(bench):
    """Of /run, say: after the mount a daemon must not look up a name that leads through it."""
    mount, umount = (
        " ".join(bench.words(words)) for words in ("mount --lower /run --ram /run", "umount /run")
    )
    script = f"{mount} && ls -d /run/unionfs && {umount}"
    done = bench.run(["unshare", "-m", "--propagation", "private", "sh", "-c", script])
    assert done == (0, "/run/unionfs\n", "")


def test_a_dead_daemon_is_told_and_its_mount_removed(bench):
    assert bench.unionfs(f"mount {LAYERS} mnt").status == 0
    kill(bench.processes()[0][0])
    result = bench.unionfs("status mnt")
    assert result == (1, "daemon       is dead: unmount it\n", "")
    assert bench.unionfs("umount mnt") == (0, "", "")
    assert bench.unionfs(f"mount {LAYERS} mnt").status == 0
    assert bench.unionfs("umount mnt").status == 0


def test_in_the_foreground_it_stays_until_unmounted(bench):
    daemon = bench.start(f"mount -f -v {LAYERS} mnt", stderr=subprocess.PIPE)
    wait_for(bench.mounts)
    assert bench.read("mnt/file") == "lower\n"
    assert bench.unionfs("umount mnt").status == 0
    _, err = daemon.communicate(timeout=SECONDS)
    assert daemon.returncode == 0
    assert "unionfs: info: mounted at " in err
    assert "unionfs: info: unmounted from " in err


def test_the_daemon_lets_go_of_the_terminal(bench):
    # The pipes come to their end: nobody holds them any more.
    assert bench.unionfs("mount --lower lower --ram mnt") == (0, "", "")
    pid = bench.processes()[0][0]
    links = {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in range(3)}
    assert links == {"/dev/null"}
    assert os.readlink(f"/proc/{pid}/cwd") != bench.path
    assert os.getsid(pid) == pid
    assert bench.unionfs("umount mnt").status == 0


def test_many_mounts_at_once(bench):
    for number in range(3):
        os.mkdir(bench.at(f"mnt{number}"))
        assert bench.unionfs(f"mount --lower lower --ram mnt{number}").status == 0
        bench.write(f"mnt{number}/mine", str(number))
    assert [bench.read(f"mnt{number}/mine") for number in range(3)] == ["0", "1", "2"]
    assert bench.unionfs("umount mnt0 mnt1 mnt2") == (0, "", "")


def test_128_lowers(bench):
    for number in range(128):
        os.mkdir(bench.at(f"l{number:03}"))
        bench.write(f"l{number:03}/f{number:03}", "")
        bench.write(f"l{number:03}/common", str(number))
    lowers = ":".join(f"l{number:03}" for number in range(128))
    assert bench.unionfs(f"mount -o lowerdir={lowers} mnt") == (0, "", "")
    assert len(bench.ls("mnt")) == 129
    assert bench.read("mnt/common") == "0"
    assert bench.unionfs("umount mnt").status == 0


@pytest.mark.parametrize("place", ["lower", "upper", "upper/deep/er", "lower/deep"])
def test_a_mount_point_inside_a_layer_is_no_loop(bench, place):
    os.makedirs(bench.at(place), exist_ok=True)
    assert bench.unionfs(f"mount {LAYERS} {place}").status == 0
    assert "file" in os.listdir(bench.at(place))
    for _, _, _ in os.walk(bench.at(place)):
        pass
    bench.write(f"{place}/new", "")
    assert bench.unionfs(f"umount {place}") == (0, "", "")


def test_layers_below_the_mount_point_are_no_loop(bench):
    for name in ("lower", "upper", "work"):
        os.rename(bench.at(name), bench.at(f"mnt/{name}"))
    line = "mount --lower mnt/lower --upper mnt/upper --work mnt/work mnt"
    assert bench.unionfs(line).status == 0
    bench.write("mnt/new", "")
    assert bench.ls("mnt") == ["file", "new"]
    assert bench.unionfs("umount mnt") == (0, "", "")
    assert bench.ls("mnt/upper") == ["new"]


def test_names_with_odd_characters(bench):
    name = "a b,c:d\\e\tü"
    for kind in ("lower", "upper", "work", "mnt"):
        os.mkdir(bench.at(kind + name))
    escaped = name.replace("\\", "\\\\").replace(",", "\\,").replace(":", "\\:")
    options = f"lowerdir=lower{escaped},upperdir=upper{escaped},workdir=work{escaped}"
    words = [*bench.words("mount -o"), options, "mnt" + name]
    assert bench.run(words) == (0, "", "")
    bench.write(f"mnt{name}/new", "")
    assert bench.ls("upper" + name) == ["new"]
    assert bench.run([*bench.words("umount"), "mnt" + name]) == (0, "", "")


def test_later_mounts_below_a_lower_do_not_appear(bench):
    os.mkdir(bench.at("lower/place"))
    assert bench.unionfs(f"mount {LAYERS} mnt").status == 0
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", bench.at("lower/place")], check=True)
    bench.write("lower/place/foreign", "")
    names = bench.ls("mnt/place")
    subprocess.run(["umount", bench.at("lower/place")], check=True)
    assert names == []
    assert bench.unionfs("umount mnt").status == 0


def test_flags_are_honoured_and_remounted(bench):
    assert bench.unionfs(f"mount {LAYERS} -o nosuid,nodev,noexec,noatime mnt").status == 0
    assert {"rw", "nosuid", "nodev", "noexec", "noatime"} <= flags(bench)
    assert bench.unionfs("mount -o remount,ro mnt") == (0, "", "")
    assert {"ro", "nosuid", "nodev", "noexec", "noatime"} <= flags(bench)
    with pytest.raises(OSError, match="Read-only file system"):
        bench.write("mnt/new", "")
    assert bench.unionfs("mount -o remount,rw,suid,exec mnt") == (0, "", "")
    assert {"rw", "nodev"} <= flags(bench)
    assert not {"nosuid", "noexec"} & flags(bench)
    bench.write("mnt/new", "")
    assert bench.unionfs("umount mnt").status == 0


def test_status_tells_layers_and_options(bench):
    assert bench.unionfs(f"mount {LAYERS} -o fsync=strict,metacopy=off mnt").status == 0
    said = json.loads(bench.unionfs("status --json mnt").out)
    assert said["pid"] == bench.processes()[0][0]
    layers = said["layers"]
    assert layers["upper"]["name"] == bench.at("upper")
    assert [layer["name"] for layer in layers["lowers"]] == [bench.at("lower")]
    assert os.path.samefile(f"/proc/{said['pid']}/fd/{layers['work']['fd']}", bench.at("work"))
    assert (said["options"]["fsync"], said["options"]["metacopy"]) == ("strict", "off")
    assert "flags" in said["kernel"]
    text = bench.unionfs("status mnt").out
    assert f"upper        {bench.at('upper')}\n" in text
    assert bench.unionfs("umount mnt").status == 0


def test_the_names_in_the_mount_table_can_be_chosen(bench):
    assert bench.unionfs(f"mount {LAYERS} -o 'fsname=my root,subtype=other' mnt").status == 0
    assert bench.mounts()[0][0] == "my\\040root"
    assert bench.mounts()[0][2] == "fuse.other"
    assert bench.unionfs("umount mnt").status == 0


@pytest.mark.parametrize("handshake", ["on", "off"])
def test_a_mount_may_be_of_plain_type_fuse(bench, handshake):
    options = f"subtype=,handshake={handshake}"
    assert bench.unionfs(f"mount {LAYERS} -o {options} mnt") == (0, "", "")
    assert bench.mounts()[0][2] == "fuse"
    assert bench.unionfs("mount -o remount,ro mnt") == (0, "", "")
    assert "ro" in flags(bench)
    assert bench.unionfs("umount mnt").status == 0


@pytest.mark.parametrize("kind", ["plain", "overlay"])
def test_files_on_a_kernel_overlay_are_read_right(bench, kind):
    for name in ("ovl", "ovlupper", "ovlwork"):
        os.mkdir(bench.at(name))
    options = "lowerdir=lower,upperdir=ovlupper,workdir=ovlwork"
    if kind == "overlay":
        words = ["mount", "-t", "overlay", "overlay", "ovl", "-o", options]
        subprocess.run(words, cwd=bench.path, check=True)
    bench.write("ovl/data", "x" * 1000000)
    assert bench.unionfs("mount --lower ovl --ram -o passthrough=all mnt") == (0, "", "")
    text = bench.read("mnt/data")
    assert bench.unionfs("umount mnt") == (0, "", "")
    if kind == "overlay":
        subprocess.run(["umount", bench.at("ovl")], check=True)
    assert text == "x" * 1000000


def test_umount_says_what_it_waits_for(bench):
    assert bench.unionfs(f"mount {LAYERS} mnt").status == 0
    holder = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", "echo ready; exec cat"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert holder.stdout.readline() == b"ready\n"
    umount = bench.start("umount mnt", stderr=subprocess.PIPE)
    assert "goes on until it is unmounted in all mount namespaces" in umount.stderr.readline()
    assert bench.mounts() == []
    assert umount.poll() is None
    holder.communicate()
    umount.communicate(timeout=SECONDS)
    assert umount.returncode == 0
