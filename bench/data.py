"""Work on the data of files: sequential, small, random, and what copying up costs.

Files that are read lie in the page cache of the layer already (they were
written or read just before the mount), so that the filesystem is measured and
not the disk; `first` means first through this mount.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import time
from typing import TYPE_CHECKING, ClassVar

from bench.material import write_big
from bench.sizes import KiB, MiB
from bench.workload import Workload, expect, tool

if TYPE_CHECKING:
    from pathlib import Path

    from bench.material import Store
    from bench.workload import Mounted

PAGE = 4 * KiB


def read_through(path: Path) -> int:
    """Read a file from end to end in blocks of 1 MiB; return its length."""
    buffer, total = bytearray(MiB), 0
    fd = os.open(path, os.O_RDONLY)
    while count := os.readv(fd, [buffer]):
        total += count
    os.close(fd)
    return total


class _Data(Workload):
    section = "Data"
    moves_data = True


class _ReadsBig(_Data):
    only_reads = True

    def run(self, place: Mounted) -> None:
        self.seen = read_through(place.root / "big")

    def check(self, place: Mounted) -> None:  # noqa: ARG002 - what was read is the proof
        expect("bytes", seen=self.seen, wanted=self.sizes.big)


class ReadLower(_ReadsBig):
    """Read a big file of a lower, the first time through this mount."""

    name = "read-lower"
    title = "first read, lower"

    def lowers(self, store: Store) -> tuple[Path, ...]:
        lower = store.big()
        read_through(lower / "big")
        return (lower,)


class ReadUpper(_ReadsBig):
    """Read a big file of upper, the first time through this mount."""

    name = "read-upper"
    title = "first read, upper"
    only_reads = False  # a mirror must not find the planted file in the material

    def plant(self, upper: Path) -> None:
        write_big(upper / "big", self.sizes.big)


class ReadAgain(ReadLower):
    """Read a big file of a lower that has just been read through this mount."""

    name = "read-again"
    title = "cached read, lower"

    def before(self, place: Mounted) -> None:
        read_through(place.root / "big")


class Write(_Data):
    """Write a big new file in blocks of 1 MiB, without fsync."""

    name = "write"
    title = "sequential write"

    def run(self, place: Mounted) -> None:
        write_big(place.root / "new", self.sizes.big)

    def check(self, place: Mounted) -> None:
        expect("bytes", seen=(place.root / "new").stat().st_size, wanted=self.sizes.big)


class SmallWrites(_Data):
    """Write a new file in blocks of 4 KiB, one write(2) each."""

    name = "write-4k"
    title = "4 KiB writes"

    def run(self, place: Mounted) -> None:
        block = random.Random(3).randbytes(PAGE)
        fd = os.open(place.root / "new", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        for _ in range(self.sizes.small_writes):
            os.write(fd, block)
        os.close(fd)

    def check(self, place: Mounted) -> None:
        wanted = self.sizes.small_writes * PAGE
        expect("bytes", seen=read_through(place.root / "new"), wanted=wanted)


class RandomReads(_Data):
    """Read 4 KiB at random places of a file of upper, with fio if it is there."""

    name = "random-read"
    title = "random 4 KiB reads"
    verb: ClassVar[str] = "read"

    def plant(self, upper: Path) -> None:
        write_big(upper / "random", self.sizes.random_file)

    def run(self, place: Mounted) -> float:
        if shutil.which("fio"):
            return self._with_fio(place.root / "random")
        return self._with_loop(place.root / "random")

    def _with_fio(self, path: Path) -> float:
        """Return the seconds that fio's requests took, its own start not counted."""
        report = tool(
            "fio",
            "--name=random",
            f"--filename={path}",
            f"--rw=rand{self.verb}",
            "--bs=4k",
            "--ioengine=psync",
            f"--size={self.sizes.random_file}",
            f"--io_size={self.sizes.random_bytes}",
            "--randseed=4",
            "--invalidate=0",  # else fio empties the cache of some contenders and not of others
            "--fallocate=none",
            "--output-format=json",
        )
        # notes of fio may stand before the report
        job = json.loads(report[report.index("{") :])["jobs"][0][self.verb]
        self.seen = job["io_bytes"]
        return float(job["lat_ns"]["mean"] * job["lat_ns"]["N"] / 1e9)

    def _with_loop(self, path: Path) -> float:
        rng = random.Random(4)
        count, pages = self.sizes.random_bytes // PAGE, self.sizes.random_file // PAGE
        offsets = [rng.randrange(pages) * PAGE for _ in range(count)]
        fd = os.open(path, os.O_RDWR)
        start = time.perf_counter()
        self.seen = self.touch(fd, offsets)
        seconds = time.perf_counter() - start
        os.close(fd)
        return seconds

    def touch(self, fd: int, offsets: list[int]) -> int:
        """Move one page at each of *offsets*; return the bytes moved."""
        return sum(len(os.pread(fd, PAGE, offset)) for offset in offsets)

    def check(self, place: Mounted) -> None:
        expect("bytes", seen=self.seen, wanted=self.sizes.random_bytes)
        size = (place.root / "random").stat().st_size
        expect("size", seen=size, wanted=self.sizes.random_file)


class RandomWrites(RandomReads):
    """Write 4 KiB at random places of a file of upper, with fio if it is there."""

    name = "random-write"
    title = "random 4 KiB writes"
    verb = "write"

    def touch(self, fd: int, offsets: list[int]) -> int:
        block = random.Random(5).randbytes(PAGE)
        return sum(os.pwrite(fd, block, offset) for offset in offsets)


class _CopyUp(Workload):
    section = "Copying up"

    def lowers(self, store: Store) -> tuple[Path, ...]:
        lower = store.big()
        read_through(lower / "big")
        return (lower,)


class CopyUpByChmod(_CopyUp):
    """Change the mode of a big file of a lower."""

    name = "copyup-chmod"
    title = "chmod a big lower file"

    def run(self, place: Mounted) -> None:
        os.chmod(place.root / "big", 0o600)

    def check(self, place: Mounted) -> None:
        st = (place.root / "big").stat()
        expect("mode", seen=oct(st.st_mode & 0o777), wanted="0o600")
        expect("bytes", seen=read_through(place.root / "big"), wanted=self.sizes.big)


class CopyUpByAppend(_CopyUp):
    """Append one line to a big file of a lower."""

    name = "copyup-append"
    title = "append to a big lower file"

    def run(self, place: Mounted) -> None:
        fd = os.open(place.root / "big", os.O_WRONLY | os.O_APPEND)
        os.write(fd, b"one line\n")
        os.close(fd)

    def check(self, place: Mounted) -> None:
        with (place.root / "big").open("rb") as file:
            file.seek(self.sizes.big)
            expect("end of the file", seen=file.read(), wanted=b"one line\n")


class CopyUpByTruncate(_CopyUp):
    """Cut a big file of a lower to half its length."""

    name = "copyup-truncate"
    title = "halve a big lower file"

    def run(self, place: Mounted) -> None:
        os.truncate(place.root / "big", self.sizes.big // 2)

    def check(self, place: Mounted) -> None:
        expect("bytes", seen=read_through(place.root / "big"), wanted=self.sizes.big // 2)


WORKLOADS = (
    ReadLower,
    ReadUpper,
    ReadAgain,
    Write,
    SmallWrites,
    RandomReads,
    RandomWrites,
    CopyUpByChmod,
    CopyUpByAppend,
    CopyUpByTruncate,
)
