"""One measurement: a workload, once, on one contender, in a process of its own.

The process can be killed when a contender hangs, and the threads and caches of
the bench cannot disturb it.  It is forked from a small server that has the
workloads loaded (multiprocessing's forkserver), which takes milliseconds.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import time
from typing import TYPE_CHECKING, NamedTuple

from bench.contenders import CannotMountError
from bench.ground import drop_caches, ground
from bench.workload import NotApplicableError, UnprovenError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from pathlib import Path

    from bench.contenders import Contender
    from bench.material import Store
    from bench.workload import Mounted, Workload

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["bench.measure", "bench.command"])


class Outcome(NamedTuple):
    """What one measurement brought: a value, or why there is none.

    Neither stands for a cell that has no meaning, as memory of a daemon without one.
    """

    value: float | None
    failure: str = ""


def measure(
    workload: Workload, contender: Contender, base: Path, store: Store, *, ram_upper: bool
) -> Outcome:
    """Mount *contender* on fresh layers, do the work, and clear everything away."""
    lowers = workload.lowers(store)
    with ground(base, lowers, only_reads=workload.only_reads, ram_upper=ram_upper) as place:
        workload.plant(place.upper)
        try:
            with contender.mounted(place) as mounted:
                return in_a_process(workload, mounted)
        except CannotMountError as error:
            return Outcome(None, f"does not mount: {error}")


def in_a_process(workload: Workload, mounted: Mounted) -> Outcome:
    """Let a process of its own do the work; kill it, and all it started, if it hangs."""
    receiver, sender = _context.Pipe(duplex=False)
    child = _context.Process(target=_child, args=(sender, workload, mounted))
    child.start()
    sender.close()
    try:
        if receiver.poll(workload.limit):
            return Outcome(*receiver.recv())
        return Outcome(None, f"not done after {workload.limit:.0f} s")
    except EOFError:
        return Outcome(None, "the measuring process died")
    finally:
        _end(child.pid)
        child.join(5)


def _end(pid: int | None) -> None:
    """Kill the process group of the child; after a good measurement it is empty or about to be."""
    try:
        os.killpg(pid or 0, signal.SIGKILL)
    except ProcessLookupError:
        return


def _child(sender: Connection, workload: Workload, mounted: Mounted) -> None:
    os.setpgid(0, 0)
    try:
        outcome = Outcome(_perform(workload, mounted))
    except NotApplicableError:
        outcome = Outcome(None)
    except UnprovenError as error:
        outcome = Outcome(None, str(error))
    except Exception as error:  # noqa: BLE001 - whatever a contender breaks is told, not raised
        outcome = Outcome(None, f"{type(error).__name__}: {error}")
    sender.send(tuple(outcome))


def _perform(workload: Workload, mounted: Mounted) -> float:
    workload.before(mounted)
    if workload.cold:
        drop_caches()
    else:
        os.sync()  # what was prepared must not be written out while the clock runs
    gc.disable()
    start = time.perf_counter()
    value = workload.run(mounted)
    seconds = time.perf_counter() - start
    workload.check(mounted)
    return seconds if value is None else value
