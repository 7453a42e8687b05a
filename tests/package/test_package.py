"""The Debian package, in a Debian that has nothing else: what it brings, and what it leaves."""

import pytest

from .conftest import INSTALL

REMOVE = "apt-get remove -qq -y pyunionfs"
# What a Raspberry Pi boots by: the boot loader that needs nothing but files.
PI = """
mkdir -p /boot/firmware
echo >/boot/firmware/config.txt
echo 'console=tty1 root=/dev/mmcblk0p2' >/boot/firmware/cmdline.txt
"""
UNION = """
mkdir -p /l /m && echo below >/l/file
"""
# All names, and the kind of each; not those that say what dpkg and apt have done, nor caches.
FILES = """
find / -xdev -printf '%y %p\\n' | LC_ALL=C sort |
    grep -vE ' /(var/(log|lib/(dpkg|apt)|cache/(man|apt|debconf))/|root/|run/|tmp/)'
"""


def test_the_commands_are_there_with_their_pages_and_completion(machine):
    said = machine.must("""
    for name in unionfs pyunionfs; do $name --help | head -n 1; $name --version; done
    for page in 1/unionfs 1/pyunionfs 1/unionfs-status 5/unionfs; do
        man -w ${page%/*} ${page#*/} >/dev/null && echo $page
    done
    MANWIDTH=80 man 5 unionfs | grep -m 1 'unionfs=tmpfs'
    . /usr/share/bash-completion/bash_completion
    for name in unionfs pyunionfs; do
        _completion_loader $name || [ $? = 124 ]
        COMP_WORDS=($name sta) COMP_CWORD=1
        _unionfs && echo ${COMPREPLY[@]}
    done
    systemd-analyze verify --man=no /lib/systemd/system/unionfs-status.* \\
        /usr/share/doc/pyunionfs/examples/etc.mount
    ls /usr/share/doc/pyunionfs/examples
    """)
    assert said.splitlines() == [
        *["usage: unionfs [-h] [--version] COMMAND ...", "unionfs 0.1.0"] * 2,
        "1/unionfs", "1/pyunionfs", "1/unionfs-status", "5/unionfs",
        "       unionfs=tmpfs",
        "status", "status",
        "etc.mount", "fstab", "unionfs.toml",
    ]  # fmt: skip


def test_mount_knows_its_types(machine):
    said = machine.must(f"""{UNION}
    for type in fuse.unionfs fuse.pyunionfs; do
        mount -t $type unionfs /m -o lowerdir=/l,ram=20M
        echo above >/m/file
        cat /l/file && findmnt -no FSTYPE /m && umount /m
    done
    echo 'unionfs /m fuse.pyunionfs lowerdir=/l,ram=20M 0 0' >>/etc/fstab
    mount /m && cat /m/file && umount /m
    """)
    assert said.splitlines() == ["below", "fuse.unionfs", "below", "fuse.pyunionfs", "below"]


def test_who_logs_in_is_told_that_an_upper_fills_up(machine):
    said = machine.must(f"""{UNION}
    unionfs mount --lower /l --ram 20M /m
    head -c 17M /dev/zero >/m/f
    unionfs status /m | grep ^warning || true
    for second in $(seq 60); do [ ! -e /run/unionfs/motd ] || break; sleep 1; done
    pamtester login root open_session
    umount /m
    for second in $(seq 60); do [ -e /run/unionfs/motd ] || break; sleep 1; done
    pamtester login root open_session | grep upper || echo nothing
    """)
    lines = said.splitlines()
    assert lines[0] == "warning      upper is 85 % full, 17M of 20M"
    told = "unionfs: /m: upper is 85 % full, 17M of 20M: 'unionfs status /m' lists what takes most"
    assert lines.count(told) == 1
    assert lines[-1] == "nothing"


def test_it_is_not_removed_while_the_machine_boots_on_it(machine):
    machine.must(f"{PI} pyunionfs boot enable --init")
    for verb in ("remove", "purge"):
        status, said = machine.run(f"apt-get {verb} -y pyunionfs")
        assert (
            status,
            "pyunionfs is not removed: this machine is going to boot on it" in said,
        ) == (
            100,
            True,
        )
        assert "say 'pyunionfs boot disable' first" in said
    said = machine.must("""
    dpkg-query --show --showformat='${db:Status-Abbrev}\\n' pyunionfs
    pyunionfs boot disable && cat /boot/firmware/cmdline.txt
    apt-get remove -qq -y pyunionfs >/dev/null
    ls /usr/bin/unionfs /usr/bin/pyunionfs 2>&1 || true
    dpkg-query --show --showformat='${db:Status-Abbrev}\\n' pyunionfs
    """)
    assert said.splitlines() == [
        "ii ",
        "change /boot/firmware/cmdline.txt",
        "console=tty1 root=/dev/mmcblk0p2",
        "ls: cannot access '/usr/bin/unionfs': No such file or directory",
        "ls: cannot access '/usr/bin/pyunionfs': No such file or directory",
        "rc ",
    ]


@pytest.mark.parametrize(
    ("name", "line", "status"),
    [
        ("/etc/default/grub", 'GRUB_CMDLINE_LINUX="quiet unionfs=tmpfs"', 100),
        ("/boot/loader/entries/a.conf", "options root=/dev/vda unionfs=LABEL=changes", 100),
        ("/boot/cmdline.txt", "root=/dev/sda1 init=/usr/lib/unionfs/init", 100),
        ("/etc/default/grub", '# GRUB_CMDLINE_LINUX="unionfs=tmpfs"', 0),
        ("/etc/kernel/cmdline", "root=/dev/vda notunionfs=tmpfs unionfs=disabled", 0),
    ],
)
def test_words_of_the_administrators_own_count_and_comments_do_not(machine, name, line, status):
    write = f"mkdir -p $(dirname {name}) && echo '{line}' >{name}"
    assert machine.run(f"{write} && {REMOVE}")[0] == status


def test_a_machine_that_runs_on_it_keeps_it(machine):
    status, said = machine.run(f"""{UNION}
    unionfs mount --lower / --ram /m
    for place in proc dev sys run; do mount --rbind /$place /m/$place; done
    chroot /m apt-get remove -y pyunionfs
    """)
    assert (status, "pyunionfs is not removed: it serves this machine's root" in said) == (
        100,
        True,
    )


def test_after_purge_nothing_is_left(debian, tmp_path):
    machine = debian.above(tmp_path)
    machine.must(f"{INSTALL} fuse3 python3-pyfuse3 python3-trio {PI}")
    before = machine.must(FILES)
    machine.must(f"""
    {INSTALL} /root/pyunionfs.deb
    systemctl enable unionfs-status.timer
    unionfs boot enable --init && unionfs boot disable
    {UNION} mount -t fuse.unionfs unionfs /m -o lowerdir=/l,ram=20M && umount /m && rm -r /l /m
    apt-get purge -qq -y pyunionfs
    [ ! -e /run/unionfs ]
    """)
    assert machine.must(FILES) == before
    assert "/usr/bin/fusermount3" in before
