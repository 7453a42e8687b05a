"""Where one measurement takes place: directories for one mount, and how they are cleared away.

Everything of a run lies below one scratch directory; whatever happens, leaving
`scratch` unmounts all that is still mounted below it and removes it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


IMAGES = Path("/var/tmp")
IMAGE_BYTES = 12 << 30  # it takes as much of the disk as is written to it: 4 GiB


@dataclasses.dataclass(frozen=True, slots=True)
class Ground:
    """The directories of one mount."""

    base: Path  # holds the others, but perhaps not the lowers
    lowers: tuple[Path, ...]  # top first
    upper: Path
    work: Path  # on upper's filesystem
    mountpoint: Path
    only_reads: bool  # nothing will be changed through the mount


def mounts_below(path: Path) -> list[Path]:
    """Return the mount points at or below *path*, the newest first."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        points = [Path(line.split(" ", 5)[4]) for line in file]
    return [point for point in reversed(points) if point.is_relative_to(path)]


def unmount_below(path: Path) -> None:
    """Unmount everything at or below *path*, gently first, then in any way that works."""
    for options in ((), ("-f",), ("-l",)):
        for point in mounts_below(path):
            subprocess.run(("umount", *options, point), capture_output=True, check=False)


@contextlib.contextmanager
def scratch(on: str) -> Iterator[Path]:
    """Make a scratch directory in the directory *on*, or on a new `ext4` or `tmpfs`."""
    home = {"ext4": IMAGES, "tmpfs": Path("/run")}.get(on, Path(on))
    path = Path(tempfile.mkdtemp(prefix="bench-", dir=home)).resolve()
    image = path.with_suffix(".ext4")
    try:
        path.chmod(0o755)
        if on == "tmpfs":
            _mount_tmpfs(path)
        elif on == "ext4":
            _mount_ext4(image, path)
        yield path
    finally:
        unmount_below(path)
        shutil.rmtree(path, ignore_errors=True)
        image.unlink(missing_ok=True)
        if path.exists():
            print(f"bench: could not remove {path}")


def _mount_ext4(image: Path, path: Path) -> None:
    """Make a file system as most machines have it: with a journal, and without a past.

    Where many files were deleted of late, an ext4 without a journal takes half a millisecond to
    find a number for a new one (fs/ext4/ialloc.c, recently_deleted).
    """
    with image.open("xb") as file:
        file.truncate(IMAGE_BYTES)
    make = ("mkfs.ext4", "-q", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0", image)
    subprocess.run(make, check=True)
    subprocess.run(("mount", "-o", "loop", image, path), check=True)


def _mount_tmpfs(path: Path) -> None:
    options = "mode=755,size=90%,nr_inodes=0"
    subprocess.run(("mount", "-t", "tmpfs", "-o", options, "bench", path), check=True)


@contextlib.contextmanager
def ground(
    base: Path, lowers: tuple[Path, ...], *, only_reads: bool, ram_upper: bool
) -> Iterator[Ground]:
    """Make fresh directories for one mount in *base*; remove them afterwards."""
    path = base / "now"
    path.mkdir()
    try:
        if ram_upper:
            _mount_tmpfs(path)
        place = Ground(path, lowers, path / "upper", path / "work", path / "mnt", only_reads)
        for directory in (place.upper, place.work, place.mountpoint):
            directory.mkdir()
        yield place
    finally:
        unmount_below(path)
        shutil.rmtree(path, ignore_errors=True)


def show_read_only(made: Path, shown: Path) -> None:
    """Make the directory *made* and let it appear at *shown*, where nobody can write."""
    for directory in (made, shown):
        directory.mkdir()
    subprocess.run(("mount", "--bind", made, shown), check=True)
    subprocess.run(("mount", "-o", "remount,bind,ro", shown), check=True)


def drop_caches() -> None:
    """Write everything out, then empty the page cache and the caches of names and inodes."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")
