"""File systems to be probed: how each is mounted, and what lies in its layers.

A union gets three layers, top first: `upper`, `lower1` and `lower2`.  A case says
in which of them the sources and in which the targets of all checks lie before
it is mounted; `FRESH` has them made through the mount.
"""

import contextlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LAYERS = ("upper", "lower1", "lower2")
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Case:
    """Where sources and targets lie; nowhere: they are made through the mount."""

    sources: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()

    def __str__(self) -> str:
        if not self.sources:
            return "fresh"
        return f"{'+'.join(self.sources)}-onto-{'+'.join(self.targets)}"


FRESH = Case()
CASES = (
    FRESH,
    *(Case((source,), (target,)) for source, target in itertools.product(LAYERS, LAYERS)),
    Case(("lower1", "lower2"), ("lower1", "lower2")),  # directories merged from both
    Case(LAYERS, LAYERS),
)


@dataclass(frozen=True)
class FileSystem:
    """A kind of file system: the program that it needs, and how it is mounted."""

    name: str
    program: str
    mounted: Callable[[Path], contextlib.AbstractContextManager[Path]]
    layered: bool = True

    @property
    def cases(self) -> tuple[Case, ...]:
        return CASES if self.layered else (FRESH,)

    @property
    def missing(self) -> str:
        """Why it cannot be mounted here; empty when it can."""
        if os.geteuid() != 0:
            return "needs root, to mount"
        if self.program and not shutil.which(self.program):
            return f"{self.program} is not installed"
        return ""


@contextlib.contextmanager
def tmpfs(directory: Path) -> Iterator[Path]:
    """Mount a tmpfs on *directory*."""
    directory.mkdir(parents=True, exist_ok=True)
    _command("mount", "-t", "tmpfs", "tmpfs", directory)
    try:
        yield directory
    finally:
        _unmount(("umount",), directory)


@contextlib.contextmanager
def plain(directory: Path) -> Iterator[Path]:
    yield directory


@contextlib.contextmanager
def overlay(base: Path, extra: str = "") -> Iterator[Path]:
    options = f"lowerdir={base}/lower1:{base}/lower2,upperdir={base}/upper,workdir={base}/work"
    options += extra
    with _unmounted(base / "mnt") as point:
        _command("mount", "-t", "overlay", "overlay", "-o", options, point)
        yield point


@contextlib.contextmanager
def fuse_overlayfs(base: Path) -> Iterator[Path]:
    options = f"lowerdir={base}/lower1:{base}/lower2,upperdir={base}/upper,workdir={base}/work"
    with _unmounted(base / "mnt") as point:
        _command("fuse-overlayfs", "-o", options + ",allow_other,default_permissions", point)
        yield point


@contextlib.contextmanager
def unionfs_fuse(base: Path) -> Iterator[Path]:
    branches = f"{base}/upper=RW:{base}/lower1=RO:{base}/lower2=RO"
    with _unmounted(base / "mnt") as point:
        options = "cow,allow_other,default_permissions,suid,dev"
        _command("unionfs-fuse", "-o", options, branches, point)
        yield point


@contextlib.contextmanager
def mergerfs(base: Path) -> Iterator[Path]:
    branches = f"{base}/upper:{base}/lower1:{base}/lower2"
    with _unmounted(base / "mnt") as point:
        _command("mergerfs", "-o", "allow_other,suid,dev", branches, point)
        yield point


@contextlib.contextmanager
def unionfs(base: Path) -> Iterator[Path]:
    lowers = [f"--lower={base}/lower1", f"--lower={base}/lower2"]
    own = [sys.executable, "-m", "unionfs.cli"]
    with _unmounted(base / "mnt", *own, "umount") as point:
        _command(*own, "mount", *lowers, f"--upper={base}/upper", f"--work={base}/work", point)
        yield point


def unionfs_sides(*rules: str) -> Callable[[Path], contextlib.AbstractContextManager[Path]]:
    """Return what mounts a union over the same lowers in which the paths of *rules* persist."""

    @contextlib.contextmanager
    def mounted(base: Path) -> Iterator[Path]:
        (base / "state").mkdir()
        words = [f"--lower={base}/lower1", f"--lower={base}/lower2", "--ram"]
        words += [f"--state={base}/state", *(f"--persist={rule}" for rule in rules)]
        own = [sys.executable, "-m", "unionfs.cli"]
        with _unmounted(base / "mnt", *own, "umount") as point:
            _command(*own, "mount", *words, point)
            yield point

    return mounted


PLAIN = FileSystem("ext4", "", plain, layered=False)
TMPFS = FileSystem("tmpfs", "", lambda base: tmpfs(base / "mnt"), layered=False)
OVERLAY = FileSystem("overlayfs", "", overlay)
OVERLAY_ON = FileSystem(
    "overlayfs, all on", "", lambda base: overlay(base, ",redirect_dir=on,index=on,metacopy=on")
)
FUSE_OVERLAYFS = FileSystem("fuse-overlayfs", "fuse-overlayfs", fuse_overlayfs)
UNIONFS_FUSE = FileSystem("unionfs-fuse", "unionfs-fuse", unionfs_fuse)
MERGERFS = FileSystem("mergerfs", "mergerfs", mergerfs)
UNIONFS = FileSystem("unionfs", "", unionfs)
PEERS = (OVERLAY, OVERLAY_ON, FUSE_OVERLAYFS, UNIONFS_FUSE, MERGERFS)
ALL = (PLAIN, TMPFS, UNIONFS, *PEERS)


@contextlib.contextmanager
def prepared(system: FileSystem, base: Path, case: Case) -> Iterator[Path]:
    """Plant what *case* says, mount, and yield the directory to be probed."""
    for layer in (*LAYERS, "work", "mnt"):
        (base / layer).mkdir(parents=True)
    for layer in LAYERS:
        for half, layers in (("sources", case.sources), ("targets", case.targets)):
            if layer in layers:
                probe(base / layer, "--plant", half)
    with system.mounted(base) as directory:
        yield directory


def probe(path: Path | str, *options: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run the probe as a user would."""
    command = [sys.executable, "-m", "unionfs.probe", *options, str(path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=600
    )


def verdicts(path: Path, case: Case, rounds: int) -> dict[str, Any]:
    """Return the probe's JSON for a prepared directory."""
    planted = ["--planted"] if case.sources else []
    result = probe(path, "--json", f"--rounds={rounds}", *planted)
    report: dict[str, Any] = json.loads(result.stdout)
    assert result.returncode == (0 if report["posix"] and not result.stderr else 1)
    return report | {"stderr": result.stderr}


@contextlib.contextmanager
def _unmounted(point: Path, *command: str) -> Iterator[Path]:
    """Unmount *point* at the end, by *command* if it has one of its own."""
    try:
        yield point
    finally:
        if f" {point} " in Path("/proc/mounts").read_text():  # a dead one answers no stat
            _unmount(command or ("umount",), point)


def _unmount(command: tuple[str, ...], point: Path) -> None:
    for _ in range(50):
        result = subprocess.run([*command, point], cwd=ROOT, capture_output=True, check=False)
        if result.returncode == 0:
            return
        time.sleep(0.1)  # EBUSY for a moment: a daemon ends after its mount does
    _command("umount", "--lazy", point)


def _command(*words: str | Path) -> None:
    result = subprocess.run(
        list(map(str, words)), cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    assert result.returncode == 0, result.stderr.decode()
