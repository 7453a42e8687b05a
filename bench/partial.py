"""Large files of a lower that are changed a little: what that takes, and how they are used then.

With a RAM upper (`unionfs ram`) they are copied up by blocks; others copy them whole.
"""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING, ClassVar

from bench.data import read_through
from bench.workload import Workload, expect

if TYPE_CHECKING:
    from pathlib import Path

    from bench.material import Store
    from bench.workload import Mounted

PAGE = 4096
BLOCK = 64 << 10
WRITES = 4000  # of a page


class _Partial(Workload):
    section = "Copying up a little"
    usual = False

    def lowers(self, store: Store) -> tuple[Path, ...]:
        lower = store.big()
        read_through(lower / "big")
        return (lower,)

    def check(self, place: Mounted) -> None:
        expect("size", seen=(place.root / "big").stat().st_size, wanted=self.sizes.big)


class Page(_Partial):
    """Write 4 KiB at a random place of a big file of a lower."""

    name = "copyup-page"
    title = "write 4 KiB into a big lower file"

    def run(self, place: Mounted) -> None:
        _write_page(place.root / "big", self.sizes.big)


class PageRoom(Page):
    """Say how much of upper that takes."""

    name = "copyup-page-room"
    title = "upper that this takes"
    unit = "B"

    def run(self, place: Mounted) -> float:
        before = _used(place.root)
        super().run(place)
        return float(_used(place.root) - before)


class Opened(_Partial):
    """Open a big file of a lower for writing, and close it."""

    name = "copyup-open"
    title = "open a big lower file for writing"

    def run(self, place: Mounted) -> None:
        os.close(os.open(place.root / "big", os.O_RDWR))


class _Half(_Partial):
    """What is done with a file of which each second block was written."""

    part: ClassVar[int] = 256 << 20  # bytes of it that are used

    def before(self, place: Mounted) -> None:
        self.part_used = min(self.part, self.sizes.big)
        fd = os.open(place.root / "big", os.O_RDWR)
        for offset in range(0, self.part_used, 2 * BLOCK):
            os.pwrite(fd, b"1" * BLOCK, offset)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


class ReadHalf(_Half):
    """Read it from its beginning."""

    name = "partial-read"
    title = "read a file that is half in upper"

    def run(self, place: Mounted) -> None:
        self.seen = 0
        fd = os.open(place.root / "big", os.O_RDONLY)
        while self.seen < self.part_used:
            self.seen += len(os.read(fd, 1 << 20))
        os.close(fd)


class WriteHalf(_Half):
    """Write pages at random places of it."""

    name = "partial-write"
    title = "random 4 KiB writes into a file that is half in upper"

    def run(self, place: Mounted) -> None:
        rng, page = random.Random(4), random.Random(5).randbytes(PAGE)
        fd = os.open(place.root / "big", os.O_RDWR)
        for _ in range(WRITES):
            os.pwrite(fd, page, rng.randrange(self.part_used // PAGE) * PAGE)
        os.close(fd)


def _write_page(path: Path, size: int) -> None:
    fd = os.open(path, os.O_RDWR)
    os.pwrite(fd, b"x" * PAGE, random.Random(6).randrange(size // PAGE) * PAGE)
    os.close(fd)


def _used(path: Path) -> int:
    figures = os.statvfs(path)
    return (figures.f_blocks - figures.f_bfree) * figures.f_frsize


WORKLOADS = (Opened, Page, PageRoom, ReadHalf, WriteHalf)
