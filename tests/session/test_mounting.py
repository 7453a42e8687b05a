"""Mounting, serving with every combination of switches, and going away."""

import errno
import itertools
import os
import signal
import subprocess

import pytest

from tests.session.conftest import CLEAN, mounts_at, until
from unionfs.host import mountcalls

SWITCHES = [
    dict(zip(("loop", "handshake", "passthrough"), each, strict=True))
    for each in itertools.product((True, False), repeat=3)
]
PLAIN = {"loop": False, "handshake": False, "passthrough": False}
HANDSHAKES = [{"handshake": True}, {"handshake": False}]


def write(path, text):
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


def read(path):
    with open(path, encoding="ascii") as file:
        return file.read()


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
def test_it_serves_with_each_combination_of_switches(mirror, switches):
    served = mirror({"f": "old"}, switches=switches, passthrough=True, cache_listing=True)
    assert served.greeting == "serving\n"
    assert read(served.point + "/f") == "old"
    write(served.point + "/g", "new")
    os.rename(served.point + "/g", served.point + "/h")
    assert read(served.source + "/h") == "new"
    assert sorted(os.listdir(served.point)) == ["f", "h"]
    granted = served.ask()["granted"]
    asked = {**switches, "passthrough": switches["handshake"] and switches["passthrough"]}
    assert {name: granted[name] for name in switches} == asked


def test_what_the_kernel_granted_is_reported(mirror):
    granted = mirror().ask()["granted"]
    wished = {
        "PARALLEL_DIROPS",
        "DONT_MASK",
        "CACHE_SYMLINKS",
        "HANDLE_KILLPRIV_V2",
        "POSIX_ACL",
        "INIT_EXT",
        "PASSTHROUGH",
    }
    assert wished & set(granted["offered"]) - set(granted["flags"]) == set()
    assert granted["protocol"].startswith("7.")
    assert granted["max_write"] == 1 << 20
    assert granted["refused"] == ""


def test_without_the_handshake_no_flag_is_known(mirror):
    granted = mirror(switches={"handshake": False}).ask()["granted"]
    assert (granted["flags"], granted["handshake"], granted["protocol"]) == ([], False, None)


def test_without_the_privilege_to_mount_libfuse_does_it(mirror):
    served = mirror({"f": "text"}, unprivileged=True, passthrough=True)
    assert read(served.point + "/f") == "text"
    granted = served.ask()["granted"]
    assert (granted["handshake"], granted["passthrough"]) == (False, False)
    assert granted["refused"].startswith("mount(2): ")
    served.ask("stop")
    # umount(2) is forbidden, too, and libfuse takes uid 0 for a reason not to ask fusermount3.
    assert served.wait() == (0, {**CLEAN, "mounts": 1})
    os.truncate(served.errors_path, 0)  # libfuse has said so
    subprocess.run(["umount", served.point], check=True)


@pytest.mark.parametrize("switches", HANDSHAKES, ids=str)
def test_the_mount_shows_type_source_and_flags(mirror, switches):
    flags = (
        mountcalls.MS_NOSUID | mountcalls.MS_NODEV | mountcalls.MS_NOATIME | mountcalls.MS_RDONLY
    )
    served = mirror(switches=switches, flags=flags, fsname="a,b:c")
    (kind, source, options) = mounts_at(served.point)[0]
    assert (kind, source) == ("fuse.mirror", "a,b:c")
    wanted = {"ro", "nosuid", "nodev", "noatime", "allow_other", "default_permissions"}
    assert wanted <= set(options.split(","))


@pytest.mark.parametrize("switches", HANDSHAKES, ids=str)
def test_set_uid_and_devices_work_unless_forbidden(mirror, switches):
    served = mirror(switches=switches)
    options = set(mounts_at(served.point)[0][2].split(","))
    assert options & {"nosuid", "nodev", "noexec", "ro"} == set()


@pytest.mark.parametrize("switches", [{}, PLAIN], ids=str)
def test_it_ends_when_unmounted_and_leaves_nothing(mirror, switches):
    served = mirror({"f": ""}, switches=switches)
    read(served.point + "/f")
    subprocess.run(["umount", served.point], check=True)
    assert served.wait() == (0, CLEAN)


@pytest.mark.parametrize("switches", [{}, PLAIN], ids=str)
def test_it_unmounts_when_terminated(mirror, switches):
    served = mirror(switches=switches)
    os.listdir(served.point)
    served.ask("terminate")
    assert served.wait() == (0, CLEAN)
    assert not mounts_at(served.point)


def test_it_unmounts_when_files_are_open(mirror):
    served = mirror({"f": "text", "unread": "text"})
    read(served.point + "/f")  # from here on the kernel knows that flush is needless
    fd = os.open(served.point + "/unread", os.O_RDONLY)
    served.ask("stop")
    assert served.wait() == (0, CLEAN)
    with pytest.raises(OSError, match="not connected"):
        os.pread(fd, 1, 0)
    os.close(fd)


def test_it_leaves_alone_a_later_mount_that_got_its_numbers(mirror):
    first = mirror()
    first.process.send_signal(signal.SIGSTOP)  # so that it notices its end late
    mountcalls.umount(first.point)  # umount(8) would ask for a stat
    second = mirror({"f": "text"})
    first.process.send_signal(signal.SIGCONT)
    assert first.wait() == (0, CLEAN)
    assert read(second.point + "/f") == "text"


def test_it_leaves_alone_what_is_mounted_over_it(mirror):
    served = mirror()
    subprocess.run(["mount", "-t", "tmpfs", "over", served.point], check=True)
    served.ask("stop")
    assert served.wait() == (0, {**CLEAN, "mounts": 1})
    assert [kind for kind, *_ in mounts_at(served.point)] == ["fuse.mirror", "tmpfs"]
    subprocess.run(["umount", served.point], check=True)
    subprocess.run(["umount", served.point], check=True)


def test_it_unmounts_where_it_has_been_moved_to(mirror, tmp_path):
    served = mirror({"f": "text"}, command=("unshare", "--mount", "--propagation", "private"))
    moved = str(tmp_path / "moved here")
    os.mkdir(moved)
    script = 'mount --move "$1" "$2" && cat "$2/f"'
    enter = ["nsenter", f"--mount=/proc/{served.process.pid}/ns/mnt", "sh", "-c", script, "sh"]
    said = subprocess.run([*enter, served.point, moved], check=True, stdout=subprocess.PIPE)
    assert said.stdout == b"text"
    served.end()


@pytest.mark.parametrize("switches", HANDSHAKES, ids=str)
def test_a_mount_point_that_is_missing_is_an_error(mirror, switches, tmp_path):
    served = mirror(switches=switches, mountpoint=str(tmp_path / "missing"))
    assert '"errno"' in served.greeting
    assert served.wait() == (0, CLEAN)
    if switches["handshake"]:
        assert served.greeting == f'{{"errno": {errno.ENOENT}}}\n'
    else:
        os.truncate(served.errors_path, 0)  # libfuse has said what it thinks


def test_a_mount_point_that_is_no_directory_is_an_error(mirror, tmp_path):
    (tmp_path / "file").touch()
    served = mirror(mountpoint=str(tmp_path / "file"))
    assert served.greeting == f'{{"errno": {errno.ENOTDIR}}}\n'
    assert served.wait() == (0, CLEAN)


def test_it_serves_soon(mirror):
    until(lambda: mirror().ask()["start_seconds"] < 0.3)  # a busy machine may hold some up


def test_a_signal_is_received_while_nothing_happens(mirror):
    served = mirror()
    served.process.send_signal(signal.SIGUSR1)
    until(lambda: served.ask()["signals"] == 1)
