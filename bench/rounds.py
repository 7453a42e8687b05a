"""The order of measurements: rounds, and in each the contenders of a workload in random order.

Contenders alternate within seconds, so that whatever disturbs the machine
disturbs all of them; the order is shuffled anew each time, so that none always
runs after the same other.
"""

from __future__ import annotations

import dataclasses
import random
from typing import TYPE_CHECKING

from bench.daemon import MountTime
from bench.figures import Absent, Sample
from bench.measure import measure

if TYPE_CHECKING:
    from pathlib import Path

    from bench.contenders import Contender
    from bench.figures import Results
    from bench.material import Store
    from bench.sizes import Sizes
    from bench.watch import Watch
    from bench.workload import Workload


REASON = 160  # characters of a failure's first line that are worth keeping


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """What is to be measured, and where."""

    workloads: tuple[Workload, ...]
    contenders: tuple[Contender, ...]
    rounds: int
    seed: int
    base: Path
    store: Store
    ram_upper: bool

    def pairs(self) -> set[tuple[str, str]]:
        """Return the cells of the table that are to be filled: workload and contender."""
        return {
            (workload.name, contender.name)
            for workload in self.workloads
            for contender in self.contenders
            if workload.moves_data or not contender.only_data
        }


def usable(
    contenders: tuple[Contender, ...], base: Path, store: Store, sizes: Sizes
) -> tuple[tuple[Contender, ...], dict[str, str]]:
    """Try each contender once; return those that mount, and for the others why not."""
    refused = {}
    for contender in contenders:
        reason = contender.missing()
        if not reason:
            reason = measure(MountTime(sizes), contender, base, store, ram_upper=False).failure
        if reason:
            refused[contender.name] = reason
    return tuple(entry for entry in contenders if entry.name not in refused), refused


def run(plan: Plan, results: Results, watch: Watch) -> None:
    """Fill *results*.  A pair that fails once is told and not tried again."""
    rng = random.Random(plan.seed)
    pairs = plan.pairs()
    watch.begin(len(pairs) * plan.rounds)
    for number in range(plan.rounds):
        for workload in plan.workloads:
            able = [entry for entry in plan.contenders if (workload.name, entry.name) in pairs]
            for contender in rng.sample(able, len(able)):
                watch.working(number, workload.name, contender.name)
                if not _fill(plan, results, number, workload, contender):
                    pairs.remove((workload.name, contender.name))
                    watch.advance(plan.rounds - number - 1)
                watch.advance(1)
            watch.row(workload.name)


def _fill(
    plan: Plan, results: Results, number: int, workload: Workload, contender: Contender
) -> bool:
    outcome = measure(workload, contender, plan.base, plan.store, ram_upper=plan.ram_upper)
    if outcome.value is not None:
        results.samples.append(Sample(workload.name, contender.name, number, outcome.value))
        return True
    if outcome.failure:
        reason = outcome.failure.splitlines()[0][:REASON]
        results.absent.append(Absent(workload.name, contender.name, reason))
    return False
