"""Accounts, keys and a conffile persist in a union of this machine's root; all else does not."""

import subprocess
import sys

from tests.mounted.mount import ROOT

KEPT = ("/etc/passwd", "/etc/shadow", "/etc/group", "/etc/gshadow", "/etc/ssh", "/etc/tool.conf")

# What is mounted here goes with the mount namespace.
SCRIPT = """
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount --make-rprivate /
mount -t tmpfs tmpfs "$1"
cd "$1"
mkdir disk mnt
truncate -s 64M image
mke2fs -q -t ext4 image
mount -o loop image disk
mkdir disk/state
up() {
    $UNIONFS mount --lower / --ram --state disk/state --state-required $PERSIST mnt
    mount --rbind /dev mnt/dev
    mount -t proc proc mnt/proc
}
down() {
    pid=$($UNIONFS status --json mnt | sed -n 's/^  "pid": \\([0-9]*\\),/\\1/p')
    kill -9 "$pid"
    umount -R -l mnt
    while kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
}
up
chroot mnt sh -euc '%(inside)s'
down
up
chroot mnt sh -euc '%(after)s'
umount -R mnt/dev mnt/proc
umount mnt
sync
$UNIONFS check disk/state
"""

INSIDE = """
useradd -m -u 54321 -s /bin/sh ada
echo ada:some-Word3 | chpasswd
usermod -c Ada ada
sed -i /^ada:/s,/bin/sh,/bin/false, /etc/passwd
mkdir -p /etc/ssh
ssh-keygen -q -t ed25519 -N "" -f /tmp/key
mv /tmp/key /etc/ssh/ssh_host_test_key
ln /etc/ssh/ssh_host_test_key /root/link-of-key
mkdir -p /tmp/deb/DEBIAN /tmp/deb/etc
for version in 1 2; do
    for line in "Package: tool" "Version: $version" "Architecture: all" "Maintainer: x <x@y>" \\
        "Description: x"
    do echo "$line"; done >/tmp/deb/DEBIAN/control
    echo /etc/tool.conf >/tmp/deb/DEBIAN/conffiles
    echo "version $version" >/tmp/deb/etc/tool.conf
    dpkg-deb --build /tmp/deb /tmp/tool-$version.deb >/dev/null
done
dpkg -i /tmp/tool-1.deb >/dev/null
echo "changed by hand" >>/etc/tool.conf
dpkg -i --force-confold /tmp/tool-2.deb >/dev/null 2>&1
cat /etc/tool.conf
cat /etc/tool.conf.dpkg-dist
stat -c "%h" /etc/ssh/ssh_host_test_key
echo scratch >/etc/other
"""

AFTER = """
getent passwd ada
passwd --status ada | cut -d " " -f 1,2
stat -c "%a %h %U" /etc/ssh/ssh_host_test_key
cat /etc/tool.conf
ls -d /etc/other /home/ada /root/link-of-key /etc/tool.conf.dpkg-dist 2>&1 | grep -c "No such"
ls /etc | grep -E "^(passwd|shadow|group|gshadow)" | grep -E "[+]|lock|[.][0-9]" || true
"""


def test_accounts_keys_and_a_conffile_are_there_after_the_daemon_was_killed(tmp_path):
    unionfs = f"{sys.executable} -m unionfs.cli"
    persist = " ".join(f"--persist {path}" for path in KEPT)
    done = subprocess.run(
        ["unshare", "--mount", "--", "sh", "-eu", "-c",
         SCRIPT % {"inside": INSIDE, "after": AFTER}, "sh", str(tmp_path)],
        env={"UNIONFS": unionfs, "PERSIST": persist, "PYTHONPATH": str(ROOT), "LC_ALL": "C"},
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    *lines, checked = done.stdout.splitlines()
    assert lines == [
        "version 1",
        "changed by hand",
        "version 2",
        "2",
        "ada:x:54321:54321:Ada:/home/ada:/bin/false",
        "ada P",
        "600 1 root",
        "version 1",
        "changed by hand",
        "4",
    ]
    assert "clean" in checked
