"""Accounts, keys and a conffile persist in a union of this machine's root; all else does not."""

import subprocess
import sys

from tests.mounted.mount import ROOT

KEPT = (
    "/etc/passwd", "/etc/shadow", "/etc/group", "/etc/gshadow", "/etc/ssh", "/etc/machine-id",
    "/var/lib/dbus", "/etc/tool.conf", "/etc/plain.conf",
)  # fmt: skip

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
mkdir disk/state disk/upper disk/work
up() {
    $UNIONFS mount --lower / --upper disk/upper --work disk/work \\
        --state disk/state --state-required $PERSIST mnt
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
$UNIONFS check disk/state
$UNIONFS check disk/upper
up
chroot mnt sh -euc '%(after)s'
umount -R mnt/dev mnt/proc
$UNIONFS umount mnt
$UNIONFS check disk/state
$UNIONFS check disk/upper
"""

INSIDE = """
useradd -m -u 54321 -s /bin/sh ada
echo ada:some-Word3 | chpasswd
usermod -c Ada -aG daemon ada
useradd -M bob
printf "first-Word1\\nfirst-Word1\\n" | passwd bob 2>/dev/null
printf "#!/bin/sh\\nsed -i s,bob:/bin,bob:/sbin, \\$1\\n" >/tmp/edit
chmod 755 /tmp/edit
touch -d @1 /etc/passwd  # vipw goes by whole seconds
EDITOR=/tmp/edit VISUAL=/tmp/edit vipw >/dev/null
cmp -s /etc/passwd /etc/passwd- || echo "vipw has kept the old"
sed -i /^ada:/s,/bin/sh,/bin/false, /etc/passwd
mkdir -p /etc/ssh
ssh-keygen -q -t ed25519 -N "" -f /tmp/key
mv /tmp/key /etc/ssh/ssh_host_test_key
ssh-keygen -q -t ed25519 -N "" -f /etc/ssh/ssh_host_other_key
echo 0123456789abcdef0123456789abcdef >/tmp/id
mv /tmp/id /etc/machine-id
mkdir -p /var/lib/dbus
ln -sf /etc/machine-id /var/lib/dbus/machine-id
ln /etc/ssh/ssh_host_test_key /root/link-of-key
mkdir -p /tmp/deb/DEBIAN /tmp/deb/etc
for version in 1 2; do
    for line in "Package: tool" "Version: $version" "Architecture: all" "Maintainer: x <x@y>" \\
        "Description: x"
    do echo "$line"; done >/tmp/deb/DEBIAN/control
    for name in tool plain; do
        echo "version $version" >/tmp/deb/etc/$name.conf
        echo /etc/$name.conf
    done >/tmp/deb/DEBIAN/conffiles
    dpkg-deb --build /tmp/deb /tmp/tool-$version.deb >/dev/null
done
dpkg -i /tmp/tool-1.deb >/dev/null
echo "changed by hand" >>/etc/tool.conf
dpkg -i --force-confold /tmp/tool-2.deb >/dev/null 2>&1
cat /etc/tool.conf
cat /etc/tool.conf.dpkg-dist /etc/plain.conf
ls /etc/*.dpkg-* | grep -v -e plain -e tool.conf.dpkg-dist || true
stat -c "%h" /etc/ssh/ssh_host_test_key
echo scratch >/etc/other
"""

AFTER = """
getent passwd ada bob
id -Gn ada
passwd --status ada | cut -d " " -f 1,2
passwd --status bob | cut -d " " -f 1,2
stat -c "%a %h %U" /etc/ssh/ssh_host_test_key /etc/ssh/ssh_host_other_key
ssh-keygen -y -f /etc/ssh/ssh_host_other_key | cut -d " " -f 1
cat /var/lib/dbus/machine-id
cat /etc/tool.conf /etc/plain.conf
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
    lines = done.stdout.splitlines()
    checked = [line for line in lines if "clean" in line]
    bob = next(line for line in lines if line.startswith("bob:"))
    assert [line for line in lines if line not in checked] == [
        "vipw has kept the old",
        "version 1",
        "changed by hand",
        "version 2",
        "version 2",
        "2",
        "ada:x:54321:54321:Ada:/home/ada:/bin/false",
        bob,
        "ada daemon",
        "ada P",
        "bob P",
        "600 1 root",
        "600 1 root",
        "ssh-ed25519",
        "0123456789abcdef0123456789abcdef",
        "version 1",
        "changed by hand",
        "version 2",
        "4",
    ]
    assert bob.endswith(":/sbin/sh")  # as vipw's editor has it
    assert len(checked) == 4, done.stdout
