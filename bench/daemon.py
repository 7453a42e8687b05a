"""What the daemon itself needs: time until it serves, and memory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from bench.workload import NotApplicableError, Workload, count_files, expect, tool

if TYPE_CHECKING:
    from bench.material import Store
    from bench.workload import Mounted


def resident(place: Mounted) -> int:
    """Return the bytes of memory that the daemon has resident (VmRSS of proc(5))."""
    if place.pid is None:
        raise NotApplicableError("no daemon")
    for line in Path(f"/proc/{place.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) << 10
    raise NotApplicableError("the daemon has ended")


class MountTime(Workload):
    """From the command to a mount that serves."""

    name = "mount"
    title = "command to served mount"
    section = "Daemon"

    def run(self, place: Mounted) -> float:
        if place.seconds is None:
            raise NotApplicableError("nothing to mount")
        return place.seconds


class MemoryAtRest(Workload):
    """Resident memory of the daemon after one listing of an empty root."""

    name = "memory-rest"
    title = "daemon at rest"
    section = "Daemon"
    unit = "B"

    def run(self, place: Mounted) -> float:
        tool("ls", place.root)
        return resident(place)


class MemoryOfNodes(Workload):
    """Growth of the daemon's resident memory per node that the kernel knows."""

    name = "memory-node"
    title = "daemon, per known node"
    section = "Daemon"
    unit = "B"
    only_reads = True

    def lowers(self, store: Store) -> tuple[Path, ...]:
        return (store.known(),)

    def run(self, place: Mounted) -> float:
        rest = resident(place)
        self.seen = tool("find", place.root, "-type", "f", "-printf", "%s\n").count("\n")
        return (resident(place) - rest) / self.sizes.known

    def check(self, place: Mounted) -> None:  # noqa: ARG002 - what was seen is the proof
        expect("nodes", seen=self.seen, wanted=self.sizes.known)


class MemoryFlat(Workload):
    """Growth of the daemon's resident memory over very many operations on a few names.

    The first tenth of them warms up allocators and caches and does not count.
    Minutes of work, so only done when asked for by name.
    """

    name = "memory-flat"
    title = "daemon, growth by work"
    section = "Daemon"
    unit = "B"
    usual = False
    limit = 1800.0

    def run(self, place: Mounted) -> float:
        cycles = self.sizes.operations // OPERATIONS
        _cycle(place.root, cycles // 10)
        rest = resident(place)
        _cycle(place.root, cycles - cycles // 10)
        return resident(place) - rest

    def check(self, place: Mounted) -> None:
        expect("files left", seen=count_files(place.root), wanted=0)


OPERATIONS = 5  # in each turn of `_cycle`


def _cycle(root: Path, times: int) -> None:
    """Create, write, look at, rename and remove a file, under some thousand different names."""
    for number in range(times):
        old, new = f"{root}/file{number % 1000}", f"{root}/name{number % 999}"
        fd = os.open(old, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        os.write(fd, b"text")
        os.close(fd)
        os.stat(old)
        os.rename(old, new)
        os.unlink(new)


WORKLOADS = (MountTime, MemoryAtRest, MemoryOfNodes, MemoryFlat)
