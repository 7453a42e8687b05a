"""Where the same program is played: a plain directory, kernel overlayfs, and the union.

Lowers lie on an ext4 and on a tmpfs, both made for the test, and all that is
written to on the ext4, which uses inode numbers again at once.  Mounting costs
most of a second, an example 20 ms; so one
mount serves many examples, each in a directory of its own.  The layers get it
under the mount, where nobody has asked for that name before.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

from unionfs.host import mountcalls

from .strategies import LOWERS

KERNEL = ("redirect_dir=on", "metacopy=on")
_TIMEOUT = 60  # s; for machines that are busy


def run(*command: str) -> None:
    """Run a command that must succeed and say nothing."""
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=_TIMEOUT,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stderr}"
    assert not done.stderr, f"{command} complains: {done.stderr}"


class Mount:
    """One union of layers, mounted by us or by the kernel; it can go and come back."""

    def __init__(self, target: str, lowers: list[str], upper: str, work: str) -> None:
        self.target = target
        self.lowers = lowers
        self.upper = upper
        self.work = work
        self._log = upper + ".log"
        self._daemon: subprocess.Popen | None = None
        for directory in (target, upper, work):
            os.makedirs(directory, exist_ok=True)

    def mount(self, kind: str, *options: str) -> None:
        """Mount with overlayfs ("overlay") or with us ("unionfs")."""
        layers = ",".join(
            [f"lowerdir={':'.join(self.lowers)}", f"upperdir={self.upper}", f"workdir={self.work}",
             *options]
        )  # fmt: skip
        if kind == "overlay":
            run("mount", "-t", "overlay", "overlay", "-o", layers, self.target)
        else:
            self._start(layers)

    def _start(self, layers: str) -> None:
        """Start the daemon in the foreground, so that its log can be read."""
        with open(self._log, "w", encoding="utf-8") as log:
            self._daemon = subprocess.Popen(
                [sys.executable, "-m", "unionfs.cli", "mount", "-f", "-o", layers, self.target],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        deadline = time.monotonic() + _TIMEOUT
        while not os.path.ismount(self.target):
            assert self._daemon.poll() is None and time.monotonic() < deadline, self.log()  # noqa: PT018
            time.sleep(0.01)

    def log(self) -> str:
        """Return what the daemon has logged."""
        with open(self._log, encoding="utf-8") as file:
            return file.read()

    def umount(self, kind: str) -> None:
        """Unmount; our daemon must then have ended well and logged nothing."""
        if kind == "overlay":
            run("umount", self.target)
            return
        words = [sys.executable, "-m", "unionfs.cli", "umount", self.target]
        done = subprocess.run(words, capture_output=True, check=False, timeout=_TIMEOUT)
        assert done.returncode == 0, done.stderr  # it may say that a busy disk is waited for
        assert self._daemon is not None
        assert (self._daemon.wait(_TIMEOUT), self.log()) == (0, "")

    def leave(self) -> None:
        """Unmount after whatever happened."""
        if os.path.ismount(self.target):
            subprocess.run(["umount", "-l", self.target], check=False, timeout=_TIMEOUT)
        if self._daemon is not None:
            self._daemon.kill()
            self._daemon.wait()

    def leftovers(self) -> list[str]:
        """Return what is in work that should not be there while nothing is under way."""
        return os.listdir(os.path.join(self.work, "work"))


class Place:
    """Directories for layers and mounts: `disk` on ext4, `ram` on tmpfs."""

    def __init__(self, top: str) -> None:
        self.top = top
        self.disk = os.path.join(top, "disk")
        self.ram = os.path.join(top, "ram")
        self.plain = os.path.join(self.disk, "plain")
        self.lowers = [
            os.path.join((self.disk, self.ram)[number % 2], f"lower{number}")
            for number in range(1, LOWERS + 1)
        ]
        self._mounts: list[Mount] = []

    def make(self) -> None:
        # A mount namespace that another process makes from the common one would keep our
        # mounts alive, and a daemon serves until its last mount has gone.
        mountcalls.unshare_mounts()
        run("mount", "-t", "tmpfs", "-o", "noatime,size=2g", "oracle", self.top)
        os.mkdir(self.disk)
        os.mkdir(self.ram)
        image = os.path.join(self.top, "image")
        with open(image, "xb") as file:
            file.truncate(1 << 30)
        run("mke2fs", "-q", "-t", "ext4", "-N", "400000", "-E", "lazy_itable_init=1", image)
        run("mount", "-o", "loop,noatime", image, self.disk)
        for directory in (self.plain, *self.lowers):
            os.mkdir(directory)

    def union(self, name: str, lowers: list[str] | None = None) -> Mount:
        """Return a stack over the lowers with an upper of its own, not yet mounted."""
        mount = Mount(
            os.path.join(self.top, name),
            lowers or self.lowers,
            os.path.join(self.disk, name, "upper"),
            os.path.join(self.disk, name, "work"),
        )
        self._mounts.append(mount)
        return mount

    def leave_too(self, mount: Mount) -> None:
        """Let a union be left with this place."""
        self._mounts.append(mount)

    def leave(self) -> None:
        for mount in self._mounts:
            mount.leave()
        for directory in (self.disk, self.top):
            if os.path.ismount(directory):
                subprocess.run(["umount", "-l", directory], check=False, timeout=_TIMEOUT)


@contextlib.contextmanager
def place() -> Iterator[Place]:
    """Yield a place that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="unionfs-oracle-", dir="/dev/shm") as top:
        made = Place(top)
        try:
            made.make()
            yield made
        finally:
            made.leave()
