"""Kinds of roots, of initramfs and of kernels: each comes up, changes, and powers off."""

import copy

import pytest

from .guest import Disk
from .image import Image
from .scripts import BARE, CHANGE, CHANGED, LEFT, RAM, STATE, WRAPPER

SCRIPT = f"{STATE}{CHANGE}{LEFT}"
KERNEL = "echo kernel=$(uname -r | cut -d. -f1,2)\n"


def test_a_squashfs(machine, image):
    root = Disk(image.make_squashfs(), "root", writable=False)
    ended = machine(root=root).boot("rootfstype=squashfs unionfs=tmpfs", SCRIPT)
    expected = {**RAM, **CHANGED, "ro": "squashfs,ro"}
    assert (ended.values(), ended.status, ended.down) == (expected, 0, "Power down")


def test_an_initramfs_made_by_dracut(machine):
    ended = machine(image=Image(maker="dracut")).boot("unionfs=tmpfs", SCRIPT)
    assert (ended.values(), ended.status, ended.down) == ({**RAM, **CHANGED}, 0, "Power down")


@pytest.mark.parametrize("words", ["", WRAPPER], ids=["initramfs", "init="])
def test_debian_13(machine, words):
    ended = machine(image=Image("trixie")).boot(f"{words} unionfs=tmpfs", KERNEL + SCRIPT)
    expected = {**RAM, **CHANGED, "kernel": "6.12"}
    assert (ended.values(), ended.status, ended.down) == (expected, 0, "Power down")


# The root is copied: what is in use there, without the free space.  -An: LVM keeps what it has done
# in /etc, which is only read.
MAKE_VOLUME = """
set -e
disk=/dev/disk/by-id/virtio-lvm
pvcreate $disk && vgcreate -An vg $disk && lvcreate -An -n root -L 1450M vg
e2image -ra /dev/disk/by-id/virtio-root /dev/vg/root
vgchange -an vg
"""


def test_lvm(machine, tmp_path):
    image = Image(more=True)
    path = str(tmp_path / "lvm")
    with open(path, "wb") as file:
        file.truncate(1600 << 20)
    made = machine(image=image, disks=[Disk(path, "lvm")]).boot(BARE, MAKE_VOLUME)
    assert made.status == 0, made.report
    guest = machine(image=image, root=Disk(path, "lvm"))
    ended = guest.boot("unionfs=tmpfs", SCRIPT, root="/dev/mapper/vg-root")
    assert (ended.values(), ended.status, ended.down) == ({**RAM, **CHANGED}, 0, "Power down")


# As an administrator who moves his machine to an encrypted disk: the key is in the initramfs.
ENCRYPT = """
set -e
disk=/dev/disk/by-id/virtio-luks
head -c 64 /dev/urandom >key
cryptsetup -q luksFormat --pbkdf pbkdf2 --pbkdf-force-iterations 1000 $disk key
cryptsetup open --key-file key $disk crypt
e2image -ra /dev/disk/by-id/virtio-root /dev/mapper/crypt
mount /dev/mapper/crypt /mnt
for name in dev proc sys run; do mount --bind /$name /mnt/$name; done
install -D -m 600 key /mnt/etc/keys/crypt.key
echo "crypt $disk /etc/keys/crypt.key luks,initramfs" >/mnt/etc/crypttab
echo 'KEYFILE_PATTERN=/etc/keys/*.key' >>/mnt/etc/cryptsetup-initramfs/conf-hook
chroot /mnt update-initramfs -u
cat /mnt/boot/initrd.img-* >/dev/disk/by-id/virtio-initramfs
umount -R /mnt
cryptsetup close crypt
"""


def test_luks(machine, tmp_path):
    image = Image(more=True)
    disks = {"luks": 1600 << 20, "initramfs": 64 << 20}
    for name, size in disks.items():
        with open(tmp_path / name, "wb") as file:
            file.truncate(size)
    made = machine(image=image, disks=[Disk(str(tmp_path / name), name) for name in disks])
    ended = made.boot(BARE, ENCRYPT)
    assert ended.status == 0, ended.report
    image = copy.copy(image)
    image.initramfs = str(tmp_path / "initramfs")
    guest = machine(image=image, root=Disk(str(tmp_path / "luks"), "luks"))
    ended = guest.boot("unionfs=tmpfs", SCRIPT, root="/dev/mapper/crypt")
    assert (ended.values(), ended.status, ended.down) == ({**RAM, **CHANGED}, 0, "Power down")
