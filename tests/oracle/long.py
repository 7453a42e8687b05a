"""Try the union against a plain directory for as long as you like.

python -m tests.oracle.long [--examples 5000] [--seed N] [CONTEST ...]
"""

import argparse
import sys
import time

from . import examples, stages
from .contests import CONTESTS, contest

# Examples between two remounts, and for one file system.
_ROUND = 500


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.oracle.long", description=__doc__)
    parser.add_argument("--examples", type=int, default=5000, help="for each contest [5000]")
    parser.add_argument("--seed", type=int, default=examples.SEED, help="the first of many")
    parser.add_argument("contests", nargs="*", default=list(CONTESTS), metavar="CONTEST")
    arguments = parser.parse_args()
    for name in arguments.contests:
        wanted = CONTESTS[name]
        size = min(_ROUND, wanted.examples * 3)
        for number in range(-(-arguments.examples // size)):
            seed = arguments.seed + number
            began = time.monotonic()
            with stages.place() as place:
                contest(place, wanted, size, seed=seed)
            took = time.monotonic() - began
            print(f"{name}: seed {seed}: {size} examples in {took:.0f} s", flush=True)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
