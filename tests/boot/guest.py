"""A machine in QEMU: it boots, runs a script after multi-user.target, and ends.

Everything is emulated (tcg), and slow: a boot takes a minute.  The console goes to a file, which is
kept when a test fails; what the script prints comes through a second serial port.
"""

import contextlib
import dataclasses
import os
import re
import subprocess
import time
from typing import NamedTuple

SECONDS = 1200  # for a boot, the script and the end, on a busy machine

_END = re.compile(r"@@END status=(\d+)")
_DOWN = re.compile(r"reboot: (Power down|Restarting system|System halted)")
_SIZE = 1 << 20  # of the disk with the script, which is padded with zeros


@dataclasses.dataclass
class Ended:
    """What became of a machine."""

    status: int | None  # the script's, None: it did not come to its end
    report: str  # what the script printed
    console: str
    down: str | None  # the kernel's last word, None: there was none
    seconds: float

    def values(self):
        """The lines NAME=VALUE of the report."""
        lines = self.report.rpartition("\n")[0].splitlines()  # whole ones: the power may be cut
        pairs = (line.split("=", 1) for line in lines if "=" in line)
        return {key: value.strip() for key, value in pairs if key.isidentifier()}


class Disk(NamedTuple):
    """A disk of a machine."""

    path: str
    serial: str
    writable: bool = True


class Guest:
    """A machine with its disks; it can be booted more than once."""

    def __init__(self, image, path, *, root=None, disks=(), memory=1024, more=()):
        """Make one; *root*: a disk instead of the image's; *more* goes to QEMU."""
        self._image = image
        self._path = str(path)
        self._disks = [root or Disk(image.ext4, "root", writable=False), *disks]
        self._memory = memory
        self._more = more
        self._boots = 0
        self._process = None
        self._started = 0.0

    def boot(self, words, script="", *, until=None, seconds=SECONDS, **how):
        """Boot with *words* on the kernel command line; return how it ended.

        When the report or the console has *until* in it, the power is cut.
        """
        self.start(words, script, **how)
        try:
            self.wait_for(until, seconds)
        finally:
            self.cut_power()
        return self.ended()

    def start(self, words="", script="", *, root="/dev/vda", comes_back=False):
        """Switch the machine on; *words* None: its disk's own boot loader starts it.

        A restart is its end, unless it *comes_back*.
        """
        self._boots += 1
        for name in ("console", "report"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._file(name))
        with open(self._file("script"), "wb") as file:
            file.write(script.encode())
            file.truncate(_SIZE)
        command = self._command()
        if not comes_back:
            command.append("-no-reboot")
        if words is not None:
            initramfs = self._image.initramfs
            if "init=/usr/lib/unionfs/init" in words:
                initramfs = self._image.plain_initramfs
            command += ["-kernel", self._image.kernel, "-initrd", initramfs]
            command += ["-append", _appended(root, words)]
        self._started = time.monotonic()
        # In a session of its own it gets the share of the processor of one: sched(7), autogroup.
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)

    def wait_for(self, until=None, seconds=SECONDS):
        """Wait until *until* is said, or the machine has ended; False: it took too long."""
        deadline = time.monotonic() + seconds
        while self._process.poll() is None:
            if time.monotonic() > deadline:
                return False
            if until and (until in self.report() or until in self._read("console")):
                return True
            time.sleep(0.1)
        return True

    def taken(self):
        """Return the seconds since it was switched on, and those of the processor."""
        with open(f"/proc/{self._process.pid}/stat") as file:
            ticks = file.read().rpartition(") ")[2].split()[11:13]  # utime, stime: proc(5)
        seconds = time.monotonic() - self._started
        return seconds, sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")

    def cut_power(self):
        """Pull the plug."""
        self._process.kill()
        self._process.wait()

    def report(self):
        """Return what the machine has reported so far."""
        return self._read("report")

    def _file(self, name):
        return os.path.join(self._path, f"{self._boots}.{name}")

    def _read(self, name):
        with contextlib.suppress(FileNotFoundError), open(self._file(name), "rb") as file:
            return file.read().decode(errors="replace").replace("\r", "")
        return ""

    def _command(self):
        command = [
            "qemu-system-x86_64", "-machine", "q35", "-accel", "tcg,thread=multi",
            "-cpu", "max", "-smp", "2", "-m", str(self._memory), "-display", "none", "-nodefaults",
            "-serial", f"file:{self._file('console')}",
            "-serial", f"file:{self._file('report')}",
        ]  # fmt: skip
        for number, disk in enumerate(
            [*self._disks, Disk(self._file("script"), "payload", writable=False)]
        ):
            # unsafe: flushes of the guest wait for nothing.  What it has written is in this
            # machine's page cache, and stays when QEMU is killed.
            drive = f"file={disk.path},format=raw,cache=unsafe,if=none,id=d{number}"
            command += ["-drive", drive + ("" if disk.writable else ",readonly=on")]
            command += ["-device", f"virtio-blk-pci,drive=d{number},serial={disk.serial}"]
        return command + list(self._more)

    def ended(self):
        """Return what became of the machine."""
        report, console = self.report(), self._read("console")
        end, down = _END.search(report), _DOWN.search(console)
        status = int(end[1]) if end else None
        seconds = time.monotonic() - self._started
        return Ended(status, report, console, down[1] if down else None, seconds)


def _appended(root, words):
    patient = "systemd.default_timeout_start_sec=900 systemd.default_device_timeout_sec=900"
    return f"root={root} ro console=ttyS0 panic=-1 loglevel=6 {patient} {words}"
