"""`unionfs check`: find the faults of an upper, and repair those that take no decision.

Exit status as fsck(8): 0 clean, 1 all faults are repaired, 4 faults are left, 8 the
check could not be done; and 2 for bad input, as with all our commands.  A mounted
upper is refused, because changes under way would look like faults.
"""

import argparse
import contextlib
import json
import logging
import os
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

from unionfs.audit import paths
from unionfs.audit.examination import Examination
from unionfs.audit.faults import Problem
from unionfs.commands import offline
from unionfs.layers.layer import Layer, WritableLayer
from unionfs.mounting import claims, places, uppers
from unionfs.mounting.places import Place

CLEAN, REPAIRED, LEFT, FAILED = 0, 1, 4, 8  # exit status

_HELP = """\
The lower layers and the work directory are those that UPPER was last mounted
with, as recorded on it, if they are not given; without them, what depends on
them is not checked.

repaired are: whiteouts that hide nothing, attributes that mean nothing, damaged
  or duplicate numbers, stale entries of the hard link index, leftovers in work
left are: damaged marks that once hid or showed something (opaque, redirect,
  metacopy): say what is meant with setfattr(1), or remove the object

exit status: 0 clean, 1 repaired, 4 problems are left, 8 the check failed
"""


class _Layers(NamedTuple):
    """The layers to be checked, opened and claimed."""

    upper: WritableLayer
    work: WritableLayer | None
    lowers: tuple[Layer, ...]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.epilog = _HELP
    parser.add_argument("upper", metavar="UPPER", help="an upper directory that is not mounted")
    offline.add_layers(parser)
    parser.add_argument("--work", metavar="DIR", help="its work directory [that of the last mount]")
    parser.add_argument("--repair", action="store_true", help="repair what takes no decision")
    parser.add_argument("--json", action="store_true", help=paths.JSON_HELP)


def run(arguments: argparse.Namespace) -> int:
    """Check, repair if asked to, and print what was found."""
    offline.require_root()
    # The damage that the union would log is among the faults found.
    logging.getLogger("unionfs").setLevel(logging.CRITICAL)
    try:
        with _opened(arguments) as layers:
            examination = Examination(*layers, arguments.whiteout or "overlay")
            problems = examination.run()
            if arguments.repair:
                repair(problems)
            _print(arguments, layers, problems, examination)
    except OSError as exc:
        print(f"unionfs: the check failed: {exc}", file=sys.stderr)
        return FAILED
    if not problems:
        return CLEAN
    return REPAIRED if all(problem.mended for problem in problems) else LEFT


def repair(problems: list[Problem]) -> None:
    """Mend the faults that take no decision; those that cannot be mended say why."""
    for problem in problems:
        if problem.mend is None:
            continue
        try:
            problem.mend()
        except OSError as exc:
            problem.words += f" (repair failed: {exc.strerror})"
        else:
            problem.mended = True


# Opening the layers


@contextlib.contextmanager
def _opened(arguments: argparse.Namespace) -> Iterator[_Layers]:
    with contextlib.ExitStack() as held:

        def hold(place: Place) -> Place:
            held.callback(os.close, place.fd)
            return place

        upper = hold(offline.find_upper(arguments.upper))
        lowers, work_name = _companions(arguments, upper)
        work = hold(places.find("work", work_name)) if work_name else None
        if work is not None and not places.is_own_work(work, upper):
            places.check_layers(upper, work, [])
        claimed = [upper] if work is None else [upper, work]
        layers = [_claim(fd, place, held) for fd, place in _open_together(claimed)]
        opened = offline.open_lowers(lowers) if lowers else ()
        for lower in opened:
            held.callback(lower.close)
        yield _Layers(layers[0], layers[1] if work is not None else None, opened)


def _companions(arguments: argparse.Namespace, upper: Place) -> tuple[list[str], str]:
    """Return the names of the lowers and of work, given or recorded; empty where unknown."""
    recorded_lowers, recorded = offline.recorded(upper)
    lowers = arguments.lower or recorded_lowers
    if not lowers:
        _note("the lower layers are not known (--lower DIR): what depends on them is not checked")
    if arguments.work is not None:
        return lowers, arguments.work
    if not os.path.isdir(recorded):
        _note("the work directory is not known (--work DIR): it is not checked")
        return lowers, ""
    return lowers, recorded


def _note(words: str) -> None:
    print(f"unionfs: note: {words}", file=sys.stderr)


def _open_together(claimed: list[Place]) -> list[tuple[int, Place]]:
    """Open upper, and work, in one copy of their mount, without the mounts below them."""
    copy, fds = uppers.open_together(claimed, [])
    if copy >= 0:
        os.close(copy)
    return list(zip(fds, claimed, strict=True))


def _claim(fd: int, place: Place, held: contextlib.ExitStack) -> WritableLayer:
    held.callback(os.close, fd)
    uppers.refuse_kernel_overlay(place)
    claims.claim(fd, place)
    return WritableLayer(fd, name=place.name)


# What is printed


def _print(
    arguments: argparse.Namespace,
    layers: _Layers,
    problems: list[Problem],
    examination: Examination,
) -> None:
    paths.let_stdout_write_any_name()
    if arguments.json:
        print(json.dumps(_document(layers, problems, examination), indent=2))
        return
    for problem in problems:
        path = paths.shown(problem.path)
        place = f"work: {path}" if problem.where == "work" else path
        print(f"{place}: {problem.words}{_outcome(problem)}")
    mended = sum(problem.mended for problem in problems)
    left = len(problems) - mended
    summary = f"{mended} repaired, {left} left" if problems else "clean"
    in_part = f", {examination.in_part} files in part (settle)" if examination.in_part else ""
    print(f"{layers.upper.name}: {summary}, {examination.objects} objects looked at{in_part}")


def _outcome(problem: Problem) -> str:
    if problem.mended:
        return " [repaired]"
    return " [--repair repairs this]" if problem.mend is not None else ""


def _document(layers: _Layers, problems: list[Problem], examination: Examination) -> dict[str, Any]:
    return {
        "upper": layers.upper.name,
        "work": layers.work.name if layers.work else None,
        "lowers": [layer.name for layer in layers.lowers],
        "objects": examination.objects,
        "in_part": examination.in_part,
        "problems": [
            {
                "where": problem.where,
                "path": paths.absolute(problem.path),
                "kind": problem.kind,
                "words": problem.words,
                "repairable": problem.mend is not None,
                "repaired": problem.mended,
            }
            for problem in problems
        ],
    }
