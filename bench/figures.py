"""The figures of a run: samples, and what is computed from them.  No I/O but JSON."""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

KERNEL = "overlayfs"  # the contender that all others are compared with


class Sample(NamedTuple):
    """One value: seconds, or bytes for the workloads whose unit says so."""

    workload: str
    contender: str
    round: int
    value: float


class Absent(NamedTuple):
    """Why a contender has no figure for a workload."""

    workload: str
    contender: str
    reason: str


class Spread(NamedTuple):
    """The middle of some samples, and how far they lie apart."""

    median: float
    low: float  # first quartile; the least below four samples
    high: float  # third quartile; the greatest below four samples
    samples: int


def spread(values: Sequence[float]) -> Spread:
    """Return median and quartiles."""
    enough_for_quartiles = 4
    if len(values) < enough_for_quartiles:
        return Spread(statistics.median(values), min(values), max(values), len(values))
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, low, high, len(values))


def geometric_mean(values: Iterable[float]) -> float:
    """Return the n-th root of the product: the mean of ratios."""
    logs = [math.log(value) for value in values]
    return math.exp(sum(logs) / len(logs))


@dataclasses.dataclass(slots=True)
class Results:
    """All of one run, as the JSON file holds it."""

    machine: dict[str, str]
    settings: dict[str, Any]
    titles: dict[str, str]  # workload -> its title, in the order of the tables
    sections: dict[str, str]  # workload -> the section it belongs to
    units: dict[str, str]  # workload -> "s" or "B"
    contenders: list[str]
    peers: list[str]  # the contenders that are FUSE unions of others
    samples: list[Sample] = dataclasses.field(default_factory=list)
    absent: list[Absent] = dataclasses.field(default_factory=list)

    def spread(self, workload: str, contender: str) -> Spread | None:
        """Return the figure of one cell, or None where there is none."""
        values = [s.value for s in self.samples if s[:2] == (workload, contender)]
        return spread(values) if values else None

    def median(self, workload: str, contender: str) -> float | None:
        """Return the median of one cell."""
        found = self.spread(workload, contender)
        return found.median if found else None

    def fastest_peer(self, workload: str) -> str | None:
        """Return the FUSE peer with the least median."""
        medians = {peer: self.median(workload, peer) for peer in self.peers}
        able = {peer: median for peer, median in medians.items() if median is not None}
        return min(able, key=lambda peer: able[peer]) if able else None

    def ratio(self, workload: str, contender: str, other: str | None) -> float | None:
        """Return by how much the median is longer than that of *other*."""
        ours = self.median(workload, contender)
        theirs = self.median(workload, other) if other else None
        return None if ours is None or not theirs else ours / theirs

    def against_kernel(self, workload: str, contender: str) -> float | None:
        """Return the ratio to kernel overlayfs."""
        return self.ratio(workload, contender, KERNEL)

    def against_peer(self, workload: str, contender: str) -> float | None:
        """Return the ratio to the fastest FUSE peer."""
        return self.ratio(workload, contender, self.fastest_peer(workload))

    def measured(self) -> list[str]:
        """Return the workloads that have samples, in the order of the tables."""
        seen = {sample.workload for sample in self.samples}
        return [name for name in self.titles if name in seen]

    def save(self, path: Path) -> None:
        """Write the JSON file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        document = dataclasses.asdict(self)
        document["samples"] = [sample._asdict() for sample in self.samples]
        document["absent"] = [absent._asdict() for absent in self.absent]
        path.write_text(json.dumps(document, indent=1) + "\n")


def load(path: Path) -> Results:
    """Read what `Results.save` wrote."""
    document = json.loads(path.read_text())
    document["samples"] = [Sample(**sample) for sample in document["samples"]]
    document["absent"] = [Absent(**absent) for absent in document["absent"]]
    return Results(**document)
