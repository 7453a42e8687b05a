"""`python -m bench profile WORKLOAD`: where our daemon spends its time in a workload.

py-spy (pip install py-spy) looks at the running daemon from outside, native
frames included where it can, so that the daemon runs as it always does.  The
picture is a flame graph; a text file has the same stacks, one a line.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bench.ground import ground
from bench.measure import in_a_process

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.contenders import Contender
    from bench.material import Store
    from bench.workload import Workload

SAMPLES_PER_SECOND = 500


def profile(
    workload: Workload, contender: Contender, base: Path, store: Store, output: Path
) -> int:
    """Do the work once under py-spy; write the flame graph to *output*."""
    beside = Path(sys.executable).with_name("py-spy")
    program = str(beside) if beside.exists() else shutil.which("py-spy")
    if not program:
        print("bench: py-spy is missing: pip install py-spy", file=sys.stderr)
        return 2
    lowers = workload.lowers(store)
    with ground(base, lowers, only_reads=workload.only_reads, ram_upper=False) as place:
        workload.plant(place.upper)
        with contender.mounted(place) as mounted:
            if mounted.pid is None:
                print(f"bench: {contender.name} has no daemon to look at", file=sys.stderr)
                return 2
            with _spying(program, mounted.pid, output):
                outcome = in_a_process(workload, mounted)
    print(outcome.failure or f"{workload.name}: {outcome.value:.4f} ({output})")
    return 1 if outcome.failure else 0


@contextlib.contextmanager
def _spying(program: str, pid: int, output: Path) -> Iterator[None]:
    shape = ("--format", "flamegraph" if output.suffix == ".svg" else "raw", "--output", output)
    rate = ("--rate", str(SAMPLES_PER_SECOND), "--nonblocking")
    spy = subprocess.Popen(
        (program, "record", "--pid", str(pid), *rate, *shape), stdout=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(spy.pid, signal.SIGINT)  # py-spy then writes what it has
        spy.wait(60)
