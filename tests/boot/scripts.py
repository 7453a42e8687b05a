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
apt-get update
apt-get install -y hello-union
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

# The kernel starts our script, without an initramfs.
WRAPPER = "init=/usr/lib/unionfs/init"
