"""Kinds of roots, of initramfs and of kernels: each comes up, changes, and powers off."""

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


# The root is copied: what is in use there, without the free space.
MAKE_VOLUME = """
set -e
disk=/dev/disk/by-id/virtio-lvm
pvcreate $disk && vgcreate vg $disk && lvcreate -n root -L 1450M vg
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
