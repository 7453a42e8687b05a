"""What machines do in the tests, and what they say of themselves then."""

# What a machine says of itself.
STATE = """
echo system=$(systemctl is-system-running --wait)
echo failed=$(systemctl --failed --no-legend --plain)
echo mode=$(cat /run/unionfs/mode)
echo root=$(findmnt -no FSTYPE /)
echo ro=$(findmnt -no FSTYPE /ro),$(findmnt -no OPTIONS /ro | cut -d, -f1)
echo rw=$(findmnt -no FSTYPE /rw)
echo motd=$(cat /run/unionfs/motd 2>/dev/null)
echo fstab=$(grep -c '^[^#]' /etc/fstab)
mount -a || echo mount=failed
echo still=$(findmnt -no FSTYPE /)
"""

# What programs show of it that people look at.
SHOWN = """
echo df=$(df --output=source,fstype,target / | tail -n 1)
echo size=$(($(df --output=size / | tail -n 1) == $(df --output=size /rw | tail -n 1)))
echo findmnt=$(findmnt -no SOURCE,FSTYPE /)
echo mount=$(mount | grep -c ' on / ')
echo lsblk=$(lsblk -no MOUNTPOINTS /dev/vda)
echo analyze=$(systemd-analyze | grep -c 'Startup finished')
"""
AS_EXPECTED = {
    "df": "unionfs fuse.pyunionfs /",
    "size": "1",
    "findmnt": "unionfs fuse.pyunionfs",
    "mount": "1",
    "lsblk": "/ro",
    "analyze": "1",
}

# Changes as an administrator makes them, and what is left of them.
CHANGE = """
set -e
useradd -m -s /bin/bash anna
echo anna:secret | chpasswd
groupadd friends && gpasswd -a anna friends
sed -i s/union-test/changed/ /etc/hostname
mkdir -p /root/pkg/DEBIAN /root/pkg/usr/share/hello /root/repository
cd /root
echo hello >pkg/usr/share/hello/file
printf '%s\\n' 'Package: hello-union' 'Version: 1' 'Architecture: all' 'Maintainer: t <t@t>' \\
    'Description: t' >pkg/DEBIAN/control
dpkg-deb -b pkg repository/hello.deb
{
    dpkg-deb -f repository/hello.deb
    echo Filename: ./hello.deb
    echo Size: $(stat -c %s repository/hello.deb)
    echo SHA256: $(sha256sum repository/hello.deb | cut -d' ' -f1)
} >repository/Packages
chmod 755 /root
echo 'deb [trusted=yes] file:/root/repository ./' >/etc/apt/sources.list
apt-get -qq update
apt-get -qq -o Dpkg::Use-Pty=0 install hello-union
mv /usr/share/perl5 /usr/share/perl6 && rm -rf /etc/logrotate.d
cd "$OLDPWD"
set +e
"""
LEFT = """
echo anna=$(getent passwd anna | cut -d: -f6),$(id -Gn anna 2>/dev/null)
echo hostname=$(cat /etc/hostname)
echo package=$(dpkg-query -Wf '${Version}' hello-union 2>&-),$(cat /usr/share/hello/file 2>&-)
echo directories=$(ls -d /usr/share/perl? /etc/logrotate.d 2>/dev/null)
"""
CHANGED = {
    "anna": "/home/anna,anna friends",
    "hostname": "changed",
    "package": "1,hello",
    "directories": "/usr/share/perl6",
}
UNCHANGED = {
    "anna": ",",
    "hostname": "union-test",
    "package": ",",
    "directories": "/etc/logrotate.d /usr/share/perl5",
}
UP = {
    "system": "running",
    "failed": "",
    "root": "fuse.pyunionfs",
    "ro": "ext4,ro",
    "motd": "",
    "fstab": "0",
    "still": "fuse.pyunionfs",
}
RAM = {**UP, "mode": "RAM upper", "rw": "tmpfs"}
DISK = {**UP, "mode": "disk upper LABEL=changes", "rw": "ext4"}

# Without the services of multi-user.target, where these do not matter: in half the time.
BARE = "systemd.unit=basic.target systemd.wants=union-test.service"

# The kernel starts our script; the initramfs, which Debian's kernels need, knows nothing of it.
WRAPPER = "init=/usr/lib/unionfs/init"

# What was written and then reported as synced is there at the next boot, and whole; and what was
# renamed into place after an fsync is either the old or the new.
CHECK = """
PATH=/usr/sbin:/usr/bin
mkdir -p /srv/data
kept=$(cat /srv/data/last 2>/dev/null || echo 0)
for number in $(seq $((kept > 40 ? kept - 40 : 1)) $kept); do
    [ "$(cat /srv/data/f$number)" = "$(yes $number | head -n 300)" ] || echo torn=$number
done
cmp /etc/copy /etc/passwd 2>&- || [ $kept = 0 ] || echo torn=copy
echo kept=$kept
"""
WRITE = """
i=$kept
while :; do
    i=$((i + 1))
    yes $i | head -n 300 >/srv/data/new && sync /srv/data/new && mv /srv/data/new /srv/data/f$i
    cp /etc/passwd /etc/copy.new && sync /etc/copy.new && mv /etc/copy.new /etc/copy
    mv /usr/share/perl5 /usr/share/perl6 2>&- || mv /usr/share/perl6 /usr/share/perl5
    rm -rf /etc/cron.daily && cp -a /ro/etc/cron.daily /etc/
    chown -R 1 /etc/pam.d && chown -R 0 /etc/pam.d
    [ $((i % 5)) = 0 ] || continue
    echo $i >/srv/data/last.new && sync
    mv /srv/data/last.new /srv/data/last && sync && echo synced=$i
done
"""

# What keeps everybody busy until PID 1 ends them; some ignore SIGTERM.
BUSY = """
for n in 1 2; do
    systemd-run -q sh -c 'while :; do cp -r /etc /var/tmp/a'$n'; rm -r /var/tmp/a'$n'; done'
    systemd-run -q sh -c 'while :; do find / -xdev -type f -exec cat {} + ; done'
    (trap '' TERM HUP; while :; do /bin/echo $RANDOM >/etc/busy$((RANDOM % 100)); done) &
    (trap '' TERM HUP; while :; do /bin/ls -lR /usr; done) &
done >/dev/null 2>&1
systemd-run -q python3 -c '
import mmap, os
file = open("/var/tmp/map", "w+b")
file.truncate(1 << 20)
memory = mmap.mmap(file.fileno(), 0)
while True:
    memory[os.urandom(1)[0] << 12] ^= 1
'
sleep $((RANDOM % 5))
echo busy=$(pgrep -fc 'while :|/bin/ls')
sync; echo 3 2>&- >/proc/sys/vm/drop_caches
"""
