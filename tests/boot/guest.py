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
        pairs = (line.split("=", 1) for line in self.report.splitlines() if "=" in line)
        return {key: value.strip() for key, value in pairs if key.isidentifier()}


class Guest:
    """A machine with its disks; it can be booted more than once."""

    def __init__(self, image, path, *, root=None, disk=None, memory=1024):
        self._image = image
        self._path = str(path)
        self._root = root or image.ext4
        self._writable_root = root is not None
        self.disk = disk
        self._memory = memory
        self._boots = 0
        self._process = None

    def boot(self, words, script="", *, initramfs=True, until=None, seconds=SECONDS):
        """Boot with *words* on the kernel command line; return how it ended.

        When the report has *until* in it, the power is cut.
        """
        self._boots += 1
        for name in ("console", "report"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._file(name))
        with open(self._file("script"), "wb") as file:
            file.write(script.encode())
            file.truncate(_SIZE)
        started = time.monotonic()
        self._process = subprocess.Popen(self._command(words, initramfs), stdin=subprocess.DEVNULL)
        self._wait(started + seconds, until)
        return self._ended(time.monotonic() - started)

    def _wait(self, deadline, until):
        try:
            while self._process.poll() is None and time.monotonic() < deadline:
                if until and until in self._read("report"):
                    break
                time.sleep(0.2)
        finally:
            self._process.kill()
            self._process.wait()

    def _file(self, name):
        return os.path.join(self._path, f"{self._boots}.{name}")

    def _read(self, name):
        with contextlib.suppress(FileNotFoundError), open(self._file(name), "rb") as file:
            return file.read().decode(errors="replace").replace("\r", "")
        return ""

    def _command(self, words, initramfs):
        patient = "systemd.default_timeout_start_sec=900 systemd.default_device_timeout_sec=900"
        append = f"root=/dev/vda ro console=ttyS0 panic=-1 loglevel=6 {patient} {words}"
        disks = [(self._root, "" if self._writable_root else ",readonly=on", "root")]
        if self.disk:
            disks.append((self.disk, "", "upper"))
        disks.append((self._file("script"), ",readonly=on", "payload"))
        command = [
            "nice", "qemu-system-x86_64", "-machine", "q35", "-accel", "tcg,thread=multi",
            "-cpu", "max", "-smp", "2", "-m", str(self._memory), "-display", "none", "-nodefaults",
            "-no-reboot", "-serial", f"file:{self._file('console')}",
            "-serial", f"file:{self._file('report')}",
            "-kernel", self._image.kernel, "-append", append,
        ]  # fmt: skip
        if initramfs:
            command += ["-initrd", self._image.initramfs]
        for number, (path, options, serial) in enumerate(disks):
            # unsafe: flushes of the guest wait for nothing.  What it has written is in this
            # machine's page cache, and stays when QEMU is killed.
            drive = f"file={path},format=raw,cache=unsafe,if=none,id=d{number}{options}"
            command += ["-drive", drive]
            command += ["-device", f"virtio-blk-pci,drive=d{number},serial={serial}"]
        return command

    def _ended(self, seconds):
        report, console = self._read("report"), self._read("console")
        end, down = _END.search(report), _DOWN.search(console)
        return Ended(
            int(end[1]) if end else None, report, console, down[1] if down else None, seconds
        )
