"""Disk images of a Debian with this product in it: the package, installed by apt, and enabled.

The Debian is made once, and kept; the images are made anew when the product has changed.
"""

import fcntl
import glob
import hashlib
import os
import shutil
import subprocess
import textwrap

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
BUILD = os.path.join(ROOT, "build", "boot")

# What the package is made of.
_PRODUCT = ("unionfs", "boot", "debian", "docs", "tools", "Makefile", "pyproject.toml", "README.md")
# And what else an image is made of.
_OURS = ("image.py", "inroot.sh", "mkroot.sh")

_UNIT = """\
[Unit]
Description=Run the script on the payload disk; it reports on the second serial port
After=multi-user.target
ConditionPathExists=/dev/disk/by-id/virtio-payload
[Service]
Type=simple
ExecStart=/usr/lib/union-test/run
StandardInput=null
TimeoutStopSec=5
[Install]
WantedBy=graphical.target
"""

_RUN = """\
#!/bin/bash
exec >/dev/ttyS1 2>&1
stty -F /dev/ttyS1 -opost 115200
read -r uptime _ </proc/uptime
echo "@@UP uptime=$uptime"
mkdir -p /run/payload && cd /run/payload
for disk in /sys/block/vd*; do [ "$(cat $disk/serial)" != payload ] || break; done
tr -d '\\0' <"/dev/${disk##*/}" >run
bash ./run
echo "@@END status=$?"
sleep 0.2
# Not by logind, which does not start in time on a slow machine.
action=$(cat action 2>/dev/null || echo poweroff)
systemctl start --no-block --job-mode=replace-irreversibly $action.target
"""


class Image:
    """A root directory, the file systems made of it, its kernel and initramfs.

    With *more* it also has LVM, LUKS, and the package overlayroot, which needs busybox.
    """

    def __init__(self, release="bookworm", maker="initramfs-tools", *, more=False):
        self._maker = maker  # of the initramfs
        self._more = more
        name = release if maker == "initramfs-tools" else f"{release}-{maker}"
        base = os.path.join(BUILD, name + ".base")
        self.root = os.path.join(BUILD, name + ("-more" if more else ""))
        self.ext4 = self.root + ".ext4"
        self.squashfs = self.root + ".squashfs"
        os.makedirs(BUILD, exist_ok=True)
        with open(os.path.join(BUILD, "lock"), "w") as lock:  # another run of the tests waits
            fcntl.flock(lock, fcntl.LOCK_EX)
            _run(os.path.join(HERE, "mkroot.sh"), release, maker, base)
            self.package = package()
            self._install(base)
        self.kernel = self._newest("vmlinuz-")
        self.initramfs = self._newest("initrd.img-")
        self.plain_initramfs = max(glob.glob(f"{base}/boot/initrd.img-*"))  # without our script

    def _newest(self, prefix):
        return max(glob.glob(f"{self.root}/boot/{prefix}*"))

    def _install(self, base):
        """Install the product, and make the file systems anew, unless nothing has changed."""
        state = _state_of(*_PRODUCT, *(f"tests/boot/{name}" for name in _OURS))
        stamp = self.root + ".product"
        if os.path.exists(stamp) and _read(stamp) == state:
            return
        place = self.root
        self.root = place + ".new"  # other runs of the tests go on with the old
        _run("rm", "-rf", "--one-file-system", self.root)
        _run("cp", "-a", "--reflink=auto", base, self.root)
        self._fill()
        if os.path.exists(self.squashfs):
            os.unlink(self.squashfs)
        os.rename(make_ext4(self.ext4 + ".new", "rootro", "1400M", self.root), self.ext4)
        if os.path.exists(place):
            os.rename(place, place + ".old")
        os.rename(self.root, place)
        self.root = place
        _run("rm", "-rf", "--one-file-system", place + ".old")
        _write(stamp, state)

    def _fill(self):
        self._install_packages()
        self._write("usr/lib/union-test/run", _RUN)
        os.chmod(os.path.join(self.root, "usr/lib/union-test/run"), 0o755)
        self._write("etc/systemd/system/union-test.service", _UNIT)
        self._write("etc/fstab", "LABEL=rootro / ext4 ro,errors=remount-ro 0 1\n")
        self.run("systemctl", "-q", "enable", "union-test")
        if self._maker == "dracut":
            drivers = 'hostonly="no"\nadd_drivers+=" virtio_pci virtio_blk virtio_net ext4 "\n'
            self._write("etc/dracut.conf.d/test.conf", drivers)
        os.makedirs(os.path.join(self.root, "boot/grub"))  # as grub-install does
        self.run("unionfs", "boot", "enable")

    def run(self, *words):
        """Run a command in the root directory."""
        _run(os.path.join(HERE, "inroot.sh"), self.root, *words)

    def _install_packages(self):
        more = ["lvm2", "cryptsetup-initramfs", "overlayroot", "busybox"] if self._more else []
        shutil.copy(self.package, os.path.join(self.root, "tmp"))
        install = ["apt-get", "-qq", "-o", "Dpkg::Use-Pty=0", "install", "--no-install-recommends"]
        self.run(*install, f"/tmp/{os.path.basename(self.package)}", *more)
        self.run("sh", "-c", "apt-get clean; rm -rf /var/lib/apt/lists/*")
        os.unlink(os.path.join(self.root, "tmp", os.path.basename(self.package)))

    def make_squashfs(self):
        """Make a squashfs, once, and return its path."""
        if not os.path.exists(self.squashfs):
            compression = ["-comp", "zstd", "-Xcompression-level", "3", "-noappend", "-quiet"]
            _run("mksquashfs", self.root, self.squashfs, *compression, "-no-progress")
        return self.squashfs

    def altered(self, path, changes):
        """Make a copy of the ext4 with other contents of files; None: there is no such file."""
        _run("cp", "--sparse=always", self.ext4, path)
        for name, text in changes.items():
            _change(path, name, text)
        return path

    def _write(self, path, text):
        _write(os.path.join(self.root, path), text)


def _change(image, name, text):
    """Change a file in an ext4, without mounting it: debugfs(8)."""
    commands = [f"rm {name}"]
    if text is not None:
        _write(image + ".file", text)
        commands.append(f"write {image}.file {name}")
    for command in commands:
        _run("debugfs", "-w", "-R", command, image, stderr=subprocess.DEVNULL)


def package():
    """Build the Debian package, unless nothing has changed, and return its path."""
    state, stamp = _state_of(*_PRODUCT), os.path.join(BUILD, "package")
    built = glob.glob(os.path.join(ROOT, "build", "pyunionfs_*_all.deb"))
    if not (built and os.path.exists(stamp) and _read(stamp) == state):
        _run("make", "-s", "-C", ROOT, "deb", stdout=subprocess.DEVNULL)
        built = glob.glob(os.path.join(ROOT, "build", "pyunionfs_*_all.deb"))
        _write(stamp, state)
    return built[0]


def make_ext4(path, label, size, content=None):
    """Make a file with an ext4 in it, and the files of the directory *content* in that."""
    command = ["mke2fs", "-q", "-t", "ext4", "-F", "-L", label]
    _run(*command, *(("-d", content) if content else ()), path, size)
    return path


def _run(*words, stdout=None, stderr=None):
    subprocess.run(words, check=True, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr)


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


def _write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write(textwrap.dedent(text))
