"""The root below a union, on this machine's kernel: what works, and what fails safe, in seconds."""

import os
import subprocess

import pytest

from . import namespaces
from .image import make_ext4
from .scripts import CHANGE, CHANGED, LEFT, UNCHANGED

SHOWN = """
echo mode=$(cat /run/unionfs/mode)
echo root=$(findmnt -no FSTYPE / | tail -1)
echo ro=$(findmnt -no FSTYPE /ro),$(stat -c %a /ro/etc/shadow)
echo rw=$(findmnt -no FSTYPE /rw),$(stat -c %a /rw)
"""
WRITABLE = "touch /etc/new && echo writable=yes\n"
UNION = {"root": "fuse.pyunionfs", "ro": "ext4,640", "rw": "tmpfs,700"}
LOST = "CHANGES ARE KEPT IN RAM AND WILL BE LOST"


def values(ended):
    pairs = (line.split("=", 1) for line in ended.console.splitlines() if "=" in line)
    return {key: value.strip() for key, value in pairs if key.isidentifier()}


@pytest.fixture
def loop(tmp_path):
    """A disk for the changes."""
    file = make_ext4(str(tmp_path / "upper.ext4"), "changes", "64M")
    said = subprocess.run(["losetup", "-f", "--show", file], capture_output=True, check=True)
    device = said.stdout.decode().strip()
    yield device
    subprocess.run(["losetup", "-d", device], check=True)


def test_accounts_and_packages_change_in_ram_and_the_root_does_not(image, tmp_path):
    ended = namespaces.boot(
        image.ext4, tmp_path, "unionfs=tmpfs:size=40%", f"{SHOWN}{CHANGE}{LEFT}"
    )
    assert (ended.status, values(ended)) == (0, {"mode": "RAM upper", **UNION, **CHANGED})
    assert "warning" not in ended.log
    (tmp_path / "again").mkdir()
    again = namespaces.boot(image.ext4, tmp_path / "again", "unionfs=tmpfs", LEFT)
    assert values(again) == UNCHANGED


def test_mounts_may_be_shared_as_in_an_initramfs_with_systemd(image, tmp_path):
    ended = namespaces.boot(image.ext4, tmp_path, "unionfs=tmpfs", SHOWN, shared=True)
    assert (ended.status, values(ended)) == (0, {"mode": "RAM upper", **UNION})
    assert "warning" not in ended.log


def test_a_disk_keeps_what_was_changed(image, tmp_path, loop):
    expected = {"mode": f"disk upper {loop}", **UNION, "rw": "ext4,700", **CHANGED}
    for script, name in ((f"{SHOWN}{CHANGE}{LEFT}", "first"), (f"{SHOWN}{LEFT}", "second")):
        (tmp_path / name).mkdir()
        ended = namespaces.boot(image.ext4, tmp_path / name, f"unionfs={loop}", script, disk=loop)
        assert values(ended) == expected


def test_a_disk_can_only_be_made_read_only_while_the_union_is_there(image, tmp_path, loop):
    script = """
    echo changed >/etc/new
    umount /rw 2>&- || echo unmounted=no
    mount -o remount,ro /rw && echo readonly=$(findmnt -no FS-OPTIONS /rw | cut -d, -f1)
    echo still=$(cat /etc/new)
    """
    ended = namespaces.boot(image.ext4, tmp_path, f"unionfs={loop}", script, disk=loop)
    assert values(ended) == {"unmounted": "no", "readonly": "ro", "still": "changed"}


IDENTITY = """
echo name=$(cat /etc/hostname),$(grep -c union-test /etc/hosts)
echo keys=$(ls /etc/ssh | grep -c ssh_host_)
echo seed=$(ls /var/lib/systemd/random-seed 2>&-)
cmp -s /etc/machine-id /ro/etc/machine-id || echo own=$(grep -cE '^[0-9a-f]{32}$' /etc/machine-id)
echo unit=$(ls /run/systemd/system/ssh.service.d 2>&-)
"""


def test_a_machine_gets_a_name_and_an_identity_of_its_own_once(image, tmp_path, loop):
    words = f"unionfs={loop} unionfs.hostname=other unionfs.identity=own"
    first = namespaces.boot(image.ext4, tmp_path, words, IDENTITY + "ssh-keygen -qA", disk=loop)
    own = {"name": "other,0", "seed": "", "own": "1"}
    assert values(first) == {**own, "keys": "0", "unit": "unionfs.conf"}
    (tmp_path / "again").mkdir()
    again = namespaces.boot(image.ext4, tmp_path / "again", words, IDENTITY, disk=loop)
    assert values(again) == {**own, "keys": "6", "unit": ""}
    assert "warning" not in first.log + again.log


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("unionfs.hostname=a/b", "'unionfs.hostname=a/b' on the kernel command line is no host"),
        ("unionfs.identity=new", "'unionfs.identity=new' on the kernel command line is unknown"),
    ],
)
def test_a_name_or_identity_that_cannot_be_had_is_said(image, tmp_path, words, said):
    ended = namespaces.boot(image.ext4, tmp_path, f"unionfs=tmpfs {words}", IDENTITY)
    assert values(ended) == {"name": "union-test,1", "keys": "6", "seed": "", "unit": ""}
    assert said in ended.log


@pytest.mark.parametrize("words", ["", "unionfs=disabled", "quiet overlayroot=disabled"])
def test_without_a_word_nothing_changes(image, tmp_path, words):
    script = "echo root=$(findmnt -no FSTYPE /); echo run=$(ls /run); echo ro=$(ls -d /ro 2>&-)"
    ended = namespaces.boot(image.ext4, tmp_path, words, script)
    assert (values(ended), ended.log) == ({"root": "ext4", "run": "init", "ro": ""}, "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("unionfs=status", f"{LOST}: 'status' on the kernel command line is unknown"),
        (
            "unionfs=LABEL=none unionfs.wait=1",
            "the disk LABEL=none did not appear within 1 seconds",
        ),
        ("unionfs=/dev/null unionfs.wait=1", f"{LOST}: the disk /dev/null cannot be used"),
        ("unionfs=tmpfs:size=many", "tmpfs does not take 'size=many'"),
        ("unionfs=tmpfs:size=1m", "less than 16 MB is too little for 'size=1m'"),
        ("aufs=tmpfs:colour=red", "'colour=red' after tmpfs: is unknown, and ignored"),
        (
            "unionfs=tmpfs unionfs.options=copyup=page",
            "unionfs.options=copyup=page is left out: unionfs: bad option 'copyup=page'",
        ),
    ],
)
def test_a_word_that_cannot_be_followed_becomes_ram_and_is_said(image, tmp_path, words, said):
    script = f"{SHOWN}{WRITABLE}cat /run/motd.d/unionfs"
    ended = namespaces.boot(image.ext4, tmp_path, words, script)
    assert values(ended) == {"mode": "RAM upper", **UNION, "writable": "yes"}
    assert said in ended.log
    assert said in ended.console


def test_the_command_line_has_options_of_the_union(image, tmp_path):
    script = "unionfs status --json / | grep -o '\"noopen\": [a-z]*' | tr -d '\" ' | tr : ="
    words = "unionfs=tmpfs unionfs.options=noopen=on,passthrough=off"
    ended = namespaces.boot(image.ext4, tmp_path, words, script)
    assert values(ended) == {"noopen": "true"}


@pytest.mark.parametrize(
    ("hidden", "said"),
    [
        ("/usr/bin/python3", "the daemon cannot serve"),
        ("/usr/lib/python3/dist-packages/unionfs/mounting/options.py", "the daemon cannot serve"),
        ("/dev/fuse", "the daemon cannot serve: unionfs: error: cannot mount"),
    ],
)
def test_without_a_daemon_overlayfs_keeps_the_root_unharmed(image, tmp_path, hidden, said):
    ended = namespaces.boot(
        image.ext4, tmp_path, "unionfs=tmpfs", f"{SHOWN}{WRITABLE}", hidden=hidden
    )
    expected = {**UNION, "mode": "overlayfs instead of the union", "root": "overlay"}
    assert values(ended) == {**expected, "writable": "yes"}
    assert said in ended.log
    assert LOST in ended.log


def oom_score_of_the_spared():
    """What oom_score_adj is lowered to, where this process may."""
    attempt = "echo -1000 2>&- >/proc/self/oom_score_adj; cat /proc/self/oom_score_adj"
    return subprocess.check_output(["sh", "-c", attempt], text=True).strip()


def test_the_daemon_is_spared_and_watched(image, tmp_path):
    score = oom_score_of_the_spared()
    script = """
    for pid in $(pgrep '^unionfs'); do
        cd /proc/$pid
        echo $(tr - _ <comm)=$(tr '\\0' ' ' <cmdline),$(cat oom_score_adj)
        grep -q 'THP_enabled:.*0' status && echo small_$(tr - _ <comm)=yes
        kill -TERM $pid; kill -HUP $pid
    done
    echo omitted=$(sort -n /run/sendsigs.omit.d/* | diff - <(pgrep '^unionfs') && echo yes)
    sleep 0.5; echo alive=$(pgrep -c '^unionfs')
    grep -q VmLck:.*[1-9] /proc/$pid/status && echo locked=yes
    echo after=$(ls -d /etc)
    """
    ended = namespaces.boot(image.ext4, tmp_path, "unionfs=tmpfs", script)
    assert values(ended) == {
        "unionfs": f"@unionfs ,{score}",
        "unionfs_watch": f"@unionfs-watch ,{score}",
        "small_unionfs": "yes",
        "small_unionfs_watch": "yes",
        "omitted": "yes",
        "alive": "2",
        "locked": "yes",
        "after": "/etc",
    }


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        ("", 129, "the machine restarts"),
        ("unionfs.dead=halt", 130, "the machine halts"),
        ("unionfs.dead=nothing", 0, "nothing is done"),
    ],
)
def test_a_dead_daemon_is_seen_and_what_was_told_is_done(image, tmp_path, words, status, said):
    seconds = 60 if status else 5  # for the watcher
    script = f"pkill -9 '^unionfs$' & exec chroot /ro sleep {seconds}"  # PID 1 does without a union
    ended = namespaces.boot(image.ext4, tmp_path, f"unionfs=tmpfs {words}", script)
    assert ended.status == status
    assert f"unionfs: the daemon of / died (killed by SIGKILL): {said}" in ended.log


def test_what_is_not_cached_is_answered_although_everybody_was_stopped(image, tmp_path):
    script = """
    for name in one two three; do kill -STOP -1; [ -e /etc/$name ] || echo $name=missing; done
    kill -CONT -1
    """
    ended = namespaces.boot(image.ext4, tmp_path, "unionfs=tmpfs", script)
    assert values(ended) == dict.fromkeys(("one", "two", "three"), "missing")


def test_a_machine_whose_processes_are_all_stopped_shuts_down(image, tmp_path):
    script = (
        "exec env -u SYSTEMD_IN_INITRD /usr/lib/systemd/systemd-shutdown poweroff"
        " --log-level debug --log-target console --log-color=0"
    )
    ended = namespaces.boot(image.ext4, tmp_path, "unionfs=tmpfs", script)
    assert ended.status == 130
    assert "Powering off." in ended.console


def test_the_scripts_are_sound():
    root = os.path.join(os.path.dirname(namespaces.HERE), "..")
    scripts = [
        "init",
        "stage",
        "words.sh",
        "messages.sh",
        "identity.sh",
        "sides.sh",
        "initramfs.sh",
    ]
    scripts += [f"dracut/90unionfs/{name}.sh" for name in ("module-setup", "pre-pivot")]
    scripts += [f"initramfs-tools/{kind}/unionfs" for kind in ("hooks", "scripts/init-bottom")]
    subprocess.run(
        ["shellcheck", "-x", *(f"boot/{name}" for name in scripts)], cwd=root, check=True
    )
