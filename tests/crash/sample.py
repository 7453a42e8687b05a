"""How much is tried: all of it by hand, in CI half the shares that tests name, else a sixth.

UNIONFS_CRASH_SHARE=1 tries every case, 0.5 half of them.  UNIONFS_CRASH_SEED
chooses others: a gate tries the same ones each time, and `make explore` others.
"""

import os
import random
from collections.abc import Iterable
from typing import TypeVar

SEED = int(os.environ.get("UNIONFS_CRASH_SEED", "20261129"))
_Any = TypeVar("_Any")
_SHARE = os.environ.get("UNIONFS_CRASH_SHARE")
USUAL = 1 / 2 if os.environ.get("CI") == "true" else 1 / 6


def chosen(cases: Iterable[_Any], share: float) -> list[_Any]:
    """Return all *cases*, or a *share* of them (but three at least) where nobody asked for more."""
    everything = list(cases)
    size = max(3, round(len(everything) * float(_SHARE or share * USUAL)))
    return random.Random(SEED).sample(everything, min(size, len(everything)))
