"""What a workload is: something to prepare, something to time, and a proof that it was done.

A workload sees a mount (or a plain directory) and nothing else of the
contender.  The harness calls, in this order,

    lowers, plant            in the bench itself, before the mount
    before                   in the measuring process, through the mount
    (sync; drop the caches if `cold`)
    run                      the clock runs
    check                    raises `Unproven` when the work was not really done

and throws away upper, work and the mount afterwards.
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from pathlib import Path

    from bench.material import Store
    from bench.sizes import Sizes


class UnprovenError(Exception):
    """The work was not done, or not as it should be."""


class NotApplicableError(Exception):
    """The contender has nothing that this workload could measure."""


@dataclasses.dataclass(frozen=True, slots=True)
class Mounted:
    """A contender that serves."""

    root: Path
    pid: int | None  # of its daemon; None in the kernel
    seconds: float | None  # from the command to a served mount


class Workload:
    """A piece of work; the class says what it is, an instance how much."""

    name: ClassVar[str]
    title: ClassVar[str]  # for the tables
    section: ClassVar[str]
    unit: ClassVar[str] = "s"  # or "B"
    cold: ClassVar[bool] = False  # run starts with all caches of the kernel empty
    moves_data: ClassVar[bool] = False  # worth measuring with each kind of passthrough
    usual: ClassVar[bool] = True  # part of a run that names no workloads
    limit: ClassVar[float] = 180.0  # seconds, with preparation; the slowest peer needs 30
    only_reads: ClassVar[bool] = False  # never changes anything: a mirror may show the lower itself

    def __init__(self, sizes: Sizes) -> None:
        self.sizes = sizes

    def lowers(self, store: Store) -> tuple[Path, ...]:
        """Return the lower layers, top first, and make what else of the material is needed."""
        return (store.empty(),)

    def plant(self, upper: Path) -> None:
        """Put files into upper before it is mounted."""

    def before(self, place: Mounted) -> None:
        """Prepare through the mount, unmeasured."""

    def run(self, place: Mounted) -> float | None:
        """Do the work; a returned value is taken in the place of the seconds that passed."""
        raise NotImplementedError

    def check(self, place: Mounted) -> None:
        """Raise UnprovenError unless the work was done."""


def expect(what: str, *, seen: object, wanted: object) -> None:
    """Raise UnprovenError unless *seen* is what was wanted."""
    if seen != wanted:
        raise UnprovenError(f"{what}: {seen!r}, not {wanted!r}")


def tool(*words: str | Path, cwd: Path | None = None) -> str:
    """Run a program; return its output.  A failing program fails the workload."""
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr + done.stdout).strip().splitlines()
        raise UnprovenError(f"{words[0]}: {said[0] if said else f'status {done.returncode}'}")
    return done.stdout


def count_files(root: Path) -> int:
    """Count all that is not a directory below *root*."""
    return sum(len(files) for _path, _names, files in os.walk(root))
