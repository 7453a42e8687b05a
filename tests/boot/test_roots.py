"""Kinds of roots, of initramfs and of kernels: each comes up, changes, and powers off."""

import pytest

from .guest import Disk
from .image import CRYPT_KEY, CRYPT_UUID, Image
from .scripts import BARE, CHANGE, CHANGED, LEFT, RAM, SHOWN, STATE, WRAPPER

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


# /dev/vda is copied: what is in use there, without the free space.
MAKE_CRYPT = f"""
set -e
echo '{CRYPT_KEY.strip()}' >/run/key
cryptsetup luksFormat -q --uuid {CRYPT_UUID} --pbkdf pbkdf2 --pbkdf-force-iterations 1000 \\
    /dev/disk/by-id/virtio-crypt /run/key
cryptsetup open --key-file /run/key /dev/disk/by-id/virtio-crypt crypt
pvcreate /dev/mapper/crypt && vgcreate vg /dev/mapper/crypt && lvcreate -n root -L 1450M vg
e2image -ra /dev/disk/by-id/virtio-root /dev/vg/root
vgchange -an vg && cryptsetup close crypt
"""


def test_lvm_in_luks(machine, tmp_path):
    image = Image(more=True)
    path = str(tmp_path / "crypt")
    with open(path, "wb") as file:
        file.truncate(1600 << 20)
    made = machine(image=image, disks=[Disk(path, "crypt")]).boot(BARE, MAKE_CRYPT)
    assert made.status == 0, made.report
    guest = machine(image=image, root=Disk(path, "crypt"))
    ended = guest.boot(
        "unionfs=tmpfs", f"{SCRIPT}{SHOWN}", root="/dev/mapper/vg-root",
        initramfs=image.crypt_initramfs,
    )  # fmt: skip
    values = ended.values()
    values = {key: values.get(key) for key in {**RAM, **CHANGED}}
    assert (values, ended.status, ended.down) == ({**RAM, **CHANGED}, 0, "Power down")
