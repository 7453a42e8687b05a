"""What the daemon itself needs: time until it serves, and memory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bench.workload import NotApplicableError, Workload, expect, tool

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


WORKLOADS = (MountTime, MemoryAtRest, MemoryOfNodes)
