"""Who is compared, and how each is mounted and unmounted.

Each contender is mounted as its documentation says for a writable union over
read-only layers.  A daemon stays in the foreground where it can, so that its
process is ours to watch and to end.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from bench.processes import daemon_of, has_ended
from bench.workload import Mounted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.ground import Ground

PROJECT = Path(__file__).resolve().parent.parent
MOUNT_SECONDS = 20.0  # after which a mount that does not serve is given up
END_SECONDS = 10.0  # that a daemon may take to end after its unmount
POLL_SECONDS = 0.0005  # how exactly the time to a served mount is seen


class CannotMountError(Exception):
    """The contender is not installed, or does not mount here."""


class Contender:
    """Something that shows layers as one tree."""

    name: ClassVar[str]
    program: ClassVar[str | None] = None  # that must be installed
    package: ClassVar[str | None] = None  # of Debian, that has it
    peer: ClassVar[bool] = False  # one of the FUSE unions that we compare with
    only_data: ClassVar[bool] = False  # worth measuring only where data is moved

    def missing(self) -> str | None:
        """Return why this contender cannot run here at all."""
        if self.program and not shutil.which(self.program):
            return f"{self.program} is not installed (python -m bench install)"
        return None

    @contextlib.contextmanager
    def mounted(self, ground: Ground) -> Iterator[Mounted]:
        """Serve the layers of *ground* while the context lasts.

        Raises CannotMountError.
        """
        raise NotImplementedError(ground)
        yield


class Plain(Contender):
    """No union at all: a directory with a copy of all layers."""

    name = "plain"

    @contextlib.contextmanager
    def mounted(self, ground: Ground) -> Iterator[Mounted]:
        yield Mounted(one_tree(ground), pid=None, seconds=None)


def one_tree(ground: Ground) -> Path:
    """Return a directory that holds what the union would show."""
    if ground.only_reads and len(ground.lowers) == 1:
        return ground.lowers[0]
    for lower in ground.lowers:
        subprocess.run(("cp", "-a", "-n", f"{lower}/.", ground.upper), check=True)
    return ground.upper


class Overlayfs(Contender):
    """The kernel's overlayfs with the options of its mount(8) defaults."""

    name = "overlayfs"
    options: ClassVar[str] = ""

    @contextlib.contextmanager
    def mounted(self, ground: Ground) -> Iterator[Mounted]:
        # mount(2) takes 4096 bytes of options; relative paths let a hundred lowers fit
        home = ground.lowers[0].parent
        lowers = ":".join(os.path.relpath(path, home) for path in ground.lowers)
        layers = f"lowerdir={lowers},upperdir={ground.upper},workdir={ground.work}"
        words = ("mount", "-t", "overlay", "overlay", "-o", layers + self.options)
        start = time.perf_counter()
        done = subprocess.run(
            (*words, ground.mountpoint), cwd=home, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise CannotMountError(done.stderr.strip())
        try:
            yield Mounted(ground.mountpoint, pid=None, seconds=time.perf_counter() - start)
        finally:
            unmount(ground.mountpoint)


class OverlayfsMetacopy(Overlayfs):
    """The same, with the options that spare copies."""

    name = "overlayfs metacopy"
    options = ",metacopy=on,redirect_dir=on"


class Daemon(Contender):
    """A FUSE filesystem: a program that is started, and serves until it is unmounted."""

    tree: Path = PROJECT  # where Python finds our modules

    def command(self, ground: Ground) -> tuple[str | Path, ...]:
        """Return the command that mounts *ground*."""
        raise NotImplementedError

    @contextlib.contextmanager
    def mounted(self, ground: Ground) -> Iterator[Mounted]:
        log = ground.base / "stderr"
        start = time.perf_counter()
        process = self._start(ground, log)
        pid = None
        try:
            wait_until_served(process, ground, log)
            seconds = time.perf_counter() - start
            pid = daemon_of(process, ground.mountpoint)
            yield Mounted(ground.mountpoint, pid=pid, seconds=seconds)
        finally:
            unmount(ground.mountpoint)
            end(process, pid)

    def _start(self, ground: Ground, log: Path) -> subprocess.Popen[bytes]:
        path = os.pathsep.join(filter(None, (str(self.tree), os.environ.get("PYTHONPATH"))))
        with log.open("wb") as stderr:
            return subprocess.Popen(
                self.command(ground),
                env=os.environ | {"PYTHONPATH": path},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,  # Ctrl-C is the bench's business
            )


def wait_until_served(process: subprocess.Popen[bytes], ground: Ground, log: Path) -> None:
    """Return when the mount point answers as another filesystem than its parent's."""
    device = ground.base.stat().st_dev
    # stat(2) of a mount whose daemon hangs would hang too; umount -f lets it fail
    watchdog = threading.Timer(MOUNT_SECONDS, unmount, (ground.mountpoint,))
    watchdog.start()
    try:
        deadline = time.monotonic() + MOUNT_SECONDS
        while not _serves(ground.mountpoint, device):
            if process.poll() not in (None, 0) or time.monotonic() > deadline:
                raise CannotMountError(_complaint(log))
            time.sleep(POLL_SECONDS)
    finally:
        watchdog.cancel()


def _serves(mountpoint: Path, device: int) -> bool:
    try:
        return mountpoint.stat().st_dev != device
    except OSError:  # the daemon died, or does not answer yet
        return False


def _complaint(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"does not serve within {MOUNT_SECONDS:.0f} s"


def unmount(mountpoint: Path) -> None:
    """Unmount, gently first: a client that was killed may need a moment to let go."""
    for options in ((), (), (), ("-f",), ("-l",)):
        if not mountpoint.parent.exists() or not _is_mounted(mountpoint):
            return
        done = subprocess.run(("umount", *options, mountpoint), capture_output=True, check=False)
        if done.returncode:
            time.sleep(0.1)


def _is_mounted(mountpoint: Path) -> bool:
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        return any(line.split(" ", 5)[4] == str(mountpoint) for line in file)


def end(process: subprocess.Popen[bytes], pid: int | None) -> None:
    """Wait for the daemon to end by itself; kill it, and say so, if it does not."""
    deadline = time.monotonic() + END_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None and (pid is None or has_ended(pid)):
            return
        time.sleep(POLL_SECONDS)
    print(f"bench: {process.args!r} did not end after its unmount; killed")
    process.kill()
    process.wait()
    if pid is not None and not has_ended(pid):
        os.kill(pid, 9)


class FuseOverlayfs(Daemon):
    """fuse-overlayfs, in C, made for rootless containers."""

    name = program = package = "fuse-overlayfs"
    peer = True

    def command(self, ground: Ground) -> tuple[str | Path, ...]:
        lowers = ":".join(map(str, ground.lowers))
        layers = f"lowerdir={lowers},upperdir={ground.upper},workdir={ground.work}"
        return ("fuse-overlayfs", "-f", "-o", layers, ground.mountpoint)


class UnionfsFuse(Daemon):
    """unionfs-fuse, in C, with copy on write; the options of its man page."""

    name = package = "unionfs-fuse"
    program = "/usr/bin/unionfs"  # our own command may come first in PATH
    peer = True

    def command(self, ground: Ground) -> tuple[str | Path, ...]:
        branches = ":".join((f"{ground.upper}=RW", *(f"{path}=RO" for path in ground.lowers)))
        options = "cow,allow_other,use_ino,suid,dev"
        return (self.program, "-f", "-o", options, branches, ground.mountpoint)


class Mergerfs(Daemon):
    """mergerfs, in C++: merges, but does not copy up and has no whiteouts."""

    name = program = package = "mergerfs"
    peer = True

    def command(self, ground: Ground) -> tuple[str | Path, ...]:
        branches = ":".join((f"{ground.upper}=RW", *(f"{path}=RO" for path in ground.lowers)))
        options = "allow_other,use_ino,cache.files=auto-full,category.create=ff"
        return ("mergerfs", "-f", "-o", options, branches, ground.mountpoint)


class Floor(Daemon):
    """pyfuse3 as it comes, mirroring one directory: what Python costs without a union."""

    name = "pyfuse3 floor"

    def command(self, ground: Ground) -> tuple[str | Path, ...]:
        return (sys.executable, "-m", "bench.floor", one_tree(ground), ground.mountpoint)


class Unionfs(Daemon):
    """Ours."""

    name = "unionfs"
    options: ClassVar[str] = ""

    def command(self, ground: Ground) -> tuple[str | Path, ...]:
        lowers = [word for path in ground.lowers for word in ("--lower", path)]
        layers = (*lowers, "--upper", ground.upper, "--work", ground.work)
        options = ("-o", self.options) if self.options else ()
        program = (sys.executable, "-P", "-m", "unionfs.cli", "mount")
        return (*program, *layers, *options, ground.mountpoint)


class UnionfsAll(Unionfs):
    """Ours, with passthrough for lower files too."""

    name = "unionfs passthrough=all"
    options = "passthrough=all"
    only_data = True


class UnionfsServed(Unionfs):
    """Ours, where the daemon serves all data, as on a kernel before Linux 6.9."""

    name = "unionfs passthrough=off"
    options = "passthrough=off"


class UnionfsNoopen(Unionfs):
    """Ours, without passthrough and without opens."""

    name = "unionfs noopen=on"
    options = "noopen=on"


class UnionfsRam(Unionfs):
    """Ours, with a RAM upper: files are copied up by blocks."""

    name = "unionfs ram"

    def command(self, ground: Ground) -> tuple[str | Path, ...]:
        lowers = [word for path in ground.lowers for word in ("--lower", path)]
        program = (sys.executable, "-P", "-m", "unionfs.cli", "mount")
        return (*program, *lowers, "--ram=2g", ground.mountpoint)


class UnionfsBefore(Unionfs):
    """Ours, as it is in another tree: a checkout of the commit before."""

    name = "unionfs before"

    def __init__(self, tree: Path) -> None:
        self.tree = tree.resolve()


CONTENDERS: tuple[Contender, ...] = (
    Plain(),
    Overlayfs(),
    FuseOverlayfs(),
    UnionfsFuse(),
    Mergerfs(),
    Floor(),
    Unionfs(),
    UnionfsAll(),
    UnionfsNoopen(),
    UnionfsServed(),
    UnionfsRam(),
    OverlayfsMetacopy(),
)
# without those that are only measured when asked for by name
_ASKED_FOR = (OverlayfsMetacopy, UnionfsServed, UnionfsRam)
USUAL = tuple(entry.name for entry in CONTENDERS if not isinstance(entry, _ASKED_FOR))
PEERS = frozenset(entry.name for entry in CONTENDERS if entry.peer)
