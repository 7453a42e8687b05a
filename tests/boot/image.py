"""Disk images of a Debian with this product in it, made from this working tree."""

import hashlib
import os
import shutil
import subprocess
import textwrap

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(ROOT, "build", "boot")

_UNIT = """\
[Unit]
Description=Run the script on the payload disk; it reports on the second serial port
After=multi-user.target
ConditionPathExists=/dev/disk/by-id/virtio-payload
[Service]
Type=simple
ExecStart=/bin/bash /usr/lib/union-test/run
StandardInput=null
[Install]
WantedBy=graphical.target
"""

# An emulated machine took 165 s to start udev when this one was busy.
_SLOW = """\
[Service]
TimeoutSec=900
"""

_RUN = """\
exec >/dev/ttyS1 2>&1
stty -F /dev/ttyS1 -opost 115200
mkdir -p /run/payload && cd /run/payload
tr -d '\\0' </dev/disk/by-id/virtio-payload >run
bash ./run
echo "@@END status=$?"
sleep 0.2
[ -e stay ] || systemctl --no-block $(cat action 2>/dev/null || echo poweroff)
"""

_COMMAND = """\
#!/usr/bin/python3
import sys
from unionfs.cli import main
sys.exit(main())
"""


class Image:
    """A root directory, the file systems made of it, its kernel and initramfs."""

    def __init__(self, release="bookworm", maker="initramfs-tools"):
        self._maker = maker  # of the initramfs
        self.root = os.path.join(
            BUILD, release if maker == "initramfs-tools" else f"{release}-{maker}"
        )
        self.ext4 = self.root + ".ext4"
        self.squashfs = self.root + ".squashfs"
        os.makedirs(BUILD, exist_ok=True)
        make = os.path.join(ROOT, "tests", "boot", "mkroot.sh")
        subprocess.run([make, release, maker, self.root], check=True)
        self._install()
        self.kernel = self._newest("vmlinuz-")
        self.initramfs = self._newest("initrd.img-")

    def _newest(self, prefix):
        names = (n for n in os.listdir(os.path.join(self.root, "boot")) if n.startswith(prefix))
        return os.path.join(self.root, "boot", max(names))

    def _install(self):
        """Install the product, and make the file systems anew, unless nothing has changed."""
        state = _state_of("unionfs", "boot", "tests/boot/image.py")
        stamp = os.path.join(BUILD, os.path.basename(self.root) + ".product")
        if os.path.exists(stamp) and _read(stamp) == state:
            return
        self._install_package()
        self.write("usr/lib/union-test/run", _RUN)
        self.write("etc/systemd/system/union-test.service", _UNIT)
        self.write("etc/fstab", "LABEL=rootro / ext4 ro,errors=remount-ro 0 1\n")
        subprocess.run(
            ["systemctl", f"--root={self.root}", "-q", "enable", "union-test"], check=True
        )
        self._make_initramfs()
        self._make_file_systems()
        self.write(stamp, state)

    def _install_package(self):
        target = os.path.join(self.root, "usr/lib/python3/dist-packages/unionfs")
        shutil.rmtree(target, ignore_errors=True)
        hidden = shutil.ignore_patterns("__pycache__")
        shutil.copytree(os.path.join(ROOT, "unionfs"), target, ignore=hidden)
        compile_all = [
            "python3",
            "-m",
            "compileall",
            "-q",
            "/usr/lib/python3/dist-packages/unionfs",
        ]
        subprocess.run(["chroot", self.root, *compile_all], check=True)
        self.write("usr/bin/pyunionfs", _COMMAND)
        os.chmod(os.path.join(self.root, "usr/bin/pyunionfs"), 0o755)
        shutil.rmtree(os.path.join(self.root, "usr/lib/unionfs"), ignore_errors=True)
        subprocess.run(
            ["make", "-s", "-C", ROOT, "install-boot", f"DESTDIR={self.root}"], check=True
        )

    def _make_initramfs(self):
        command = ["update-initramfs", "-u", "-k", "all"]
        if self._maker == "dracut":
            version = os.listdir(os.path.join(self.root, "lib/modules"))[0]
            image = f"/boot/initrd.img-{version}"
            drivers = "virtio_pci virtio_blk ext4"
            command = [
                "dracut",
                "-q",
                "-f",
                "--no-hostonly",
                "--add-drivers",
                drivers,
                image,
                version,
            ]
        subprocess.run(["chroot", self.root, *command], check=True)

    def _make_file_systems(self):
        for path in (self.ext4, self.squashfs):
            if os.path.exists(path):
                os.unlink(path)
        make_ext4(self.ext4, "rootro", "1G", self.root)

    def write(self, path, text):
        path = os.path.join(self.root, path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(textwrap.dedent(text))


def make_ext4(path, label, size, content=None):
    """Make a file with an ext4 in it, and the files of the directory *content* in that."""
    command = ["mke2fs", "-q", "-t", "ext4", "-F", "-L", label]
    subprocess.run([*command, *(("-d", content) if content else ()), path, size], check=True)
    return path


def _state_of(*paths):
    """Return a digest of all files below *paths*."""
    digest = hashlib.sha256()
    for path in paths:
        for directory, _, names in sorted(os.walk(os.path.join(ROOT, path))) or [("", "", [path])]:
            if "__pycache__" in directory:
                continue
            for name in sorted(names):
                with open(os.path.join(ROOT, directory, name), "rb") as file:
                    digest.update(f"{directory}/{name}\n".encode() + file.read())
    return digest.hexdigest()


def _read(path):
    with open(path) as file:
        return file.read()
