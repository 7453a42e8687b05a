"""How many random examples are tried, and from which seed."""

import os
from collections.abc import Callable
from typing import Any

import hypothesis

SEED = int(os.environ.get("UNIONFS_ORACLE_SEED", "20261122"))


def for_all(
    count: int, *strategies: Any, shrink: bool = True, seed: int = SEED
) -> Callable[[Callable], Callable]:
    """Call a function with *count* random examples; the smallest that fails is shown."""
    phases = [hypothesis.Phase.generate] + ([hypothesis.Phase.shrink] if shrink else [])
    settings = hypothesis.settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=phases,
        print_blob=False,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    return lambda function: settings(hypothesis.seed(seed)(hypothesis.given(*strategies)(function)))
