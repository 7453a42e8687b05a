"""What the union shall reach, and whether it did: ratios of medians of one run."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, NamedTuple

from bench.figures import geometric_mean

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.figures import Results

METADATA = ("unpack", "copy", "walk-cold", "small-files", "passwd", "remove-tree")
CACHED = ("walk-warm", "read-warm", "read-again")
UPPER_DATA = ("read-upper", "write", "write-4k", "random-read", "random-write")
FIRST_READ = ("read-lower",)
OURS, ALL, NOOPEN = "unionfs", "unionfs passthrough=all", "unionfs noopen=on"


@dataclasses.dataclass(frozen=True, slots=True)
class Goal:
    """The most that ratios of ours to others may be; None where nothing is demanded."""

    title: str
    workloads: tuple[str, ...]
    contender: str = OURS
    peer: float | None = None  # to the fastest FUSE peer, each workload
    peer_mean: float | None = None  # the same, geometric mean
    kernel: float | None = None  # to kernel overlayfs, each workload


@dataclasses.dataclass(frozen=True, slots=True)
class Bound:
    """The most that a figure itself may be."""

    title: str
    workload: str
    most: float


GOALS = (
    Goal("metadata workloads", METADATA, peer=0.9, peer_mean=0.7, kernel=5),
    Goal("warm walk, cached reads", CACHED, peer=1.0, kernel=1.3),
    Goal("open and close", ("open-close",), peer=0.7),
    Goal("data on upper, default", UPPER_DATA, peer=0.5, kernel=1.15),
    Goal("first reads of lower files, default", FIRST_READ, peer=0.8),
    Goal("first reads, passthrough=all", FIRST_READ, ALL, peer=0.4, kernel=1.15),
    Goal("data without passthrough", UPPER_DATA + FIRST_READ, NOOPEN, peer=1.0),
    Goal("chmod, rename in a lower", ("copyup-chmod", "rename-directory"), peer=0.1, kernel=0.01),
)
BOUNDS = (
    Bound("command to served mount (s)", "mount", 0.4),
    Bound("memory at rest (MB)", "memory-rest", 60e6),
    Bound("memory per known node (B)", "memory-node", 400),
    Bound("memory growth over a million operations (MB)", "memory-flat", 1e6),
)


class Verdict(NamedTuple):
    """One demand, and what was measured."""

    title: str
    demand: str
    measured: str
    reached: bool


def verdicts(results: Results) -> list[Verdict]:
    """Judge all demands that this run has figures for."""
    found = []
    for goal in GOALS:
        found += _each(results, goal, "fastest FUSE peer", goal.peer, results.against_peer)
        found += _mean(results, goal)
        found += _each(results, goal, "kernel overlayfs", goal.kernel, results.against_kernel)
    return found + [verdict for bound in BOUNDS for verdict in _bounded(results, bound)]


def _each(
    results: Results,
    goal: Goal,
    other: str,
    most: float | None,
    ratio: Callable[[str, str], float | None],
) -> list[Verdict]:
    ratios = _ratios(goal, ratio)
    if most is None or not ratios:
        return []
    worst = max(ratios, key=lambda name: ratios[name])
    within = sum(value <= most for value in ratios.values())
    measured = f"{within} of {len(ratios)}; most {ratios[worst]:.2g} ({results.titles[worst]})"
    return [Verdict(goal.title, f"<= {most:g} x {other}", measured, within == len(ratios))]


def _mean(results: Results, goal: Goal) -> list[Verdict]:
    ratios = _ratios(goal, results.against_peer)
    if goal.peer_mean is None or not ratios:
        return []
    mean = geometric_mean(ratios.values())
    demand = f"mean <= {goal.peer_mean:g} x fastest FUSE peer"
    return [Verdict(goal.title, demand, f"{mean:.2f}", mean <= goal.peer_mean)]


def _ratios(goal: Goal, ratio: Callable[[str, str], float | None]) -> dict[str, float]:
    found = {name: ratio(name, goal.contender) for name in goal.workloads}
    return {name: value for name, value in found.items() if value is not None}


def _bounded(results: Results, bound: Bound) -> list[Verdict]:
    value = results.median(bound.workload, OURS)
    if value is None:
        return []
    scale = 1e6 if "(MB)" in bound.title else 1
    measured = f"{value / scale:.3g}"
    return [Verdict(bound.title, f"<= {bound.most / scale:g}", measured, value <= bound.most)]
