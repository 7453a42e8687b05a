"""Machines as people have them: one that boots by its own boot loader, and two from one image."""

import socket
import struct
import subprocess

from .guest import Disk, Guest
from .scripts import BARE, RAM, STATE

# A machine comes to its own network without any service.
NETWORK = """
name=$(ls /sys/class/net | grep -v lo)
ip link set $name up && ip addr add 10.0.2.15/24 dev $name && ip route add default via 10.0.2.2
"""
WHO = f"""{NETWORK}
echo system=$(systemctl is-system-running --wait)
echo name=$(hostname),$(cat /etc/hostname),$(getent hosts $(hostname) | grep -c .)
echo id=$(cat /etc/machine-id)
echo journal=$(ls /var/log/journal)
echo keys=$(ls /etc/ssh | grep -c 'ssh_host_.*_key$')
echo ssh=$(systemctl is-active ssh)
echo @@READY
for second in $(seq 300); do journalctl -u ssh | grep -q preauth && break; sleep 1; done
"""


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def host_key(port):
    """Return the key by which the machine behind a port is known."""
    scan = ["ssh-keyscan", "-T", "60", "-t", "ed25519", "-p", str(port), "127.0.0.1"]
    said = subprocess.run(scan, capture_output=True, text=True, check=True).stdout
    return said.split()[2]


def networked(image, path, number):
    port = free_port()
    forward = f"hostfwd=tcp:127.0.0.1:{port}-:22"
    more = ["-uuid", f"5e1f4d2c-0000-4000-8000-00000000000{number}"]
    more += ["-netdev", f"user,id=n0,restrict=on,{forward}", "-device", "virtio-net-pci,netdev=n0"]
    path.mkdir()
    return Guest(image, path, more=more), port


def test_two_machines_from_one_image_at_once_are_two_machines(image, tmp_path):
    machines = [networked(image, tmp_path / f"machine{n}", n) for n in (1, 2)]
    try:
        for number, (guest, _) in enumerate(machines, 1):
            words = f"unionfs=tmpfs unionfs.identity=own unionfs.hostname=machine{number}"
            guest.start(words, WHO)
        for guest, _ in machines:
            assert guest.wait_for("@@READY"), guest.report()
        keys = [host_key(port) for _, port in machines]
        for guest, _ in machines:
            assert guest.wait_for(), guest.report()
    finally:
        for guest, _ in machines:
            guest.cut_power()
    said = [guest.ended().values() for guest, _ in machines]
    ids = [values.pop("id") for values in said]
    assert [values.pop("journal") for values in said] == ids
    assert said == [
        {"system": "running", "name": f"machine{n},machine{n},1", "keys": "3", "ssh": "active"}
        for n in (1, 2)
    ]
    baked = subprocess.check_output(
        ["debugfs", "-R", "cat /etc/ssh/ssh_host_ed25519_key.pub", image.ext4],
        stderr=subprocess.DEVNULL, text=True,
    ).split()[1]  # fmt: skip
    assert len({*keys, baked}) == 3
    assert len(set(ids)) == 2


def partitioned(path, size):
    """Make a disk with one Linux partition from 1 MB on: the table of an MBR."""
    entry = struct.pack("<B3xB3xII", 0x80, 0x83, 2048, (size >> 9) - 2048)  # bootable, Linux
    with open(path, "wb") as file:
        file.truncate(size)
        file.seek(446)
        file.write(entry.ljust(64, b"\0") + b"\x55\xaa")
    return path


# Partitioned, with GRUB in front of the partition that has the root.
INSTALL = """
set -e
e2image -ra /dev/disk/by-id/virtio-root /dev/disk/by-id/virtio-whole-part1
mount /dev/disk/by-id/virtio-whole-part1 /mnt
for place in dev proc sys; do
    mount --rbind /$place /mnt/$place
    mount --make-rslave /mnt/$place # the machine keeps its own when these are unmounted
done
sed -i 's/^LABEL=rootro.*/LABEL=rootro \\/ ext4 rw,errors=remount-ro 0 1/' /mnt/etc/fstab
cat >/mnt/etc/default/grub <<-END
GRUB_TIMEOUT=1
GRUB_TERMINAL=serial
GRUB_DISABLE_LINUX_UUID=
GRUB_CMDLINE_LINUX="console=ttyS0 panic=-1 loglevel=6 systemd.default_timeout_start_sec=900"
END
chroot /mnt unionfs boot disable
chroot /mnt grub-install --target=i386-pc /dev/disk/by-id/virtio-whole
chroot /mnt update-grub
umount -R /mnt
"""
ENABLE = """
if [ "$(findmnt -no FSTYPE /)" = ext4 ]; then
    echo before=$(findmnt -no FSTYPE /),$(findmnt -no OPTIONS / | cut -d, -f1)
    unionfs boot enable || exit
    apt-get -y remove pyunionfs 2>&1 | grep -o 'pyunionfs is not removed: .*'
    sync; echo reboot >action
elif [ -e /root/done ]; then
    echo failed=yes
else
    unionfs boot status
    echo status=$?
    unionfs boot disable 2>&1
    if [ -e /ro/root/twice ]; then
        unionfs maintain -- unionfs boot disable
        echo disabled=$?
    else
        touch /root/done
        unionfs maintain -- touch /root/twice
    fi
    echo reboot >action
fi
"""


def test_a_machine_is_enabled_boots_by_grub_and_is_disabled_again(machine, tmp_path):
    path = partitioned(str(tmp_path / "whole"), 1700 << 20)
    made = machine(disks=[Disk(path, "whole")]).boot(f"{BARE} unionfs=tmpfs", INSTALL)
    assert made.status == 0, made.report
    guest = machine(root=Disk(path, "root"))
    first = guest.boot(None, ENABLE)
    assert first.values() == {"before": "ext4,rw"}
    assert "pyunionfs is not removed: this machine is going to boot on it" in first.report
    second = guest.boot(None, STATE + ENABLE)
    assert second.values() == {**RAM, "status": "0"}
    assert "say 'unionfs maintain -- unionfs boot ...'" in second.report
    third = guest.boot(None, STATE + ENABLE)
    assert third.values() == {**RAM, "status": "0", "disabled": "0"}
    last = guest.boot(
        None, "echo root=$(findmnt -no FSTYPE /),$(findmnt -no OPTIONS / | cut -d, -f1)"
    )
    assert last.values() == {"root": "ext4,rw"}
