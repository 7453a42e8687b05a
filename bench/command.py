"""The command line of the bench."""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from bench import daemon, data, far, machine, memory, names, partial, rounds, stacks, tables, trees
from bench.contenders import CONTENDERS, PEERS, PROJECT, USUAL, UnionfsBefore
from bench.figures import Results, load
from bench.goals import OURS, verdicts
from bench.ground import scratch, show_read_only
from bench.material import Store
from bench.profiling import profile
from bench.sizes import FULL, QUICK

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.contenders import Contender
    from bench.sizes import Sizes
    from bench.workload import Workload

_MODULES = (trees, names, data, partial, stacks, daemon)
WORKLOADS: dict[str, type[Workload]] = {
    kind.name: kind for module in _MODULES for kind in module.WORKLOADS
}
PERFORMANCE = PROJECT / "docs" / "performance.md"
FULL_ROUNDS, QUICK_ROUNDS = 4, 2
EXAMPLES = """
  python -m bench                       everything, some 20 minutes
  python -m bench --quick               everything, small, some 5 minutes
  python -m bench copy passwd --contenders unionfs,overlayfs,fuse-overlayfs
  python -m bench profile unpack        a flame graph of our daemon (py-spy)
  python -m bench far                   what a lower on a slow server costs, 10 minutes
  python -m bench report run.json       tables and plots of an earlier run
  python -m bench copy --contenders unionfs --before ../old
                                        beside the checkout of another commit
  python -m bench install               the peers, from Debian

The layers lie on a new ext4 in a file below /var/tmp, on a tmpfs, or in a directory.

Workloads: """


def build() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Compare union filesystems: the same work, the same machine, the same run.",
        epilog=EXAMPLES + " ".join(WORKLOADS),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("words", nargs="*", metavar="WORKLOAD", help="all but memory-flat, if none is named")
    add("--contenders", metavar="A,B,...", help=f"of: {', '.join(c.name for c in CONTENDERS)}")
    add(
        "--before",
        type=Path,
        metavar="DIR",
        help="compare with the unionfs of another checkout, too: git worktree add DIR COMMIT",
    )
    add("--rounds", type=int, help=f"default {FULL_ROUNDS}, with --quick {QUICK_ROUNDS}")
    add("--quick", action="store_true", help="small sizes, for a first look")
    add("--seed", type=int, help="of the order of contenders")
    add("--on", default="ext4", metavar="ext4|tmpfs|DIR", help="where the layers lie, see below")
    add(
        "--ram-upper", action="store_true", help="upper and work on a tmpfs, lowers where --on says"
    )
    add("--json", type=Path, metavar="FILE", help="write all samples")
    add("--plots", type=Path, metavar="DIR", help="draw SVG pictures")
    add(
        "--tables",
        action="store_true",
        help="tables into docs/performance.md",
    )
    add("--strict", action="store_true", help="exit status 1 if a demand was not reached")
    add("--output", type=Path, default=Path("profile.svg"), help="of profile: .svg or .txt")
    return parser


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = build()
    arguments = parser.parse_args(words)
    signal.signal(signal.SIGTERM, _interrupt)
    for name in (tables.SHORT, tables.DISK) if arguments.tables else ():
        if not tables.has_markers(PERFORMANCE, name):
            parser.error(f"{PERFORMANCE} has no lines <!-- {name}:begin --> and :end -->")
    verb, *rest = arguments.words or [""]
    try:
        if verb == "install":
            return machine.install()
        if verb == "report":
            return _present(load(Path(_only(parser, rest))), arguments)
        if os.geteuid() != 0:
            parser.error("mounting and emptying the caches need root")
        if verb == "profile":
            return _profile(parser, arguments, _only(parser, rest))
        if verb == "far":
            return _far(parser, arguments)
        return _compare(parser, arguments)
    except KeyboardInterrupt:
        print("\nbench: interrupted; everything is unmounted and removed", file=sys.stderr)
        return 130


def _interrupt(_signal: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _only(parser: argparse.ArgumentParser, words: Sequence[str]) -> str:
    if len(words) != 1:
        parser.error("exactly one word is wanted here")
    return words[0]


def _workload(parser: argparse.ArgumentParser, name: str) -> type[Workload]:
    if name not in WORKLOADS:
        parser.error(f"no workload {name!r}; there are: {' '.join(WORKLOADS)}")
    return WORKLOADS[name]


def _contenders(
    parser: argparse.ArgumentParser, wanted: str | None, before: Path | None
) -> tuple[Contender, ...]:
    known: dict[str, Contender] = {entry.name: entry for entry in CONTENDERS}
    names = list(wanted.split(",") if wanted else USUAL)
    if before is not None:
        if not (before / "unionfs" / "cli.py").exists():
            parser.error(f"{before} is no checkout of unionfs")
        known[UnionfsBefore.name] = UnionfsBefore(before)
        names.append(UnionfsBefore.name)
    for name in names:
        if name not in known:
            parser.error(f"no contender {name!r}; there are: {', '.join(known)}")
    return tuple(known[name] for name in known if name in names)


@contextlib.contextmanager
def _place(arguments: argparse.Namespace) -> Iterator[Path]:
    with memory.kept(), scratch(arguments.on) as base:
        yield base


def _store(base: Path, sizes: Sizes) -> Store:
    made, shown = base / "made", base / "lowers"
    show_read_only(made, shown)
    return Store(made, shown, sizes)


def _compare(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    sizes = QUICK if arguments.quick else FULL
    kinds = [_workload(parser, name) for name in arguments.words] or [
        kind for kind in WORKLOADS.values() if kind.usual
    ]
    contenders = _contenders(parser, arguments.contenders, arguments.before)
    seed = arguments.seed if arguments.seed is not None else random.randrange(1 << 16)
    count = arguments.rounds or (QUICK_ROUNDS if arguments.quick else FULL_ROUNDS)
    with _place(arguments) as base:
        store = _store(base, sizes)
        contenders, refused = rounds.usable(contenders, base, store, sizes)
        for name, reason in refused.items():
            print(f"bench: without {name}: {reason}", file=sys.stderr)
        workloads = tuple(kind(sizes) for kind in kinds)
        plan = rounds.Plan(
            workloads, contenders, count, seed, base, store, ram_upper=arguments.ram_upper
        )
        results = _empty_results(plan, arguments)
        _run(plan, results)
    return _present(results, arguments)


def _run(plan: rounds.Plan, results: Results) -> None:
    from bench.watch import Watch  # noqa: PLC0415 - forked workers need no rich

    print(f"seed {plan.seed}, {plan.rounds} rounds")
    start = time.monotonic()
    with Watch(results) as watch:
        rounds.run(plan, results, watch)
    results.settings["minutes"] = round((time.monotonic() - start) / 60, 1)


def _empty_results(plan: rounds.Plan, arguments: argparse.Namespace) -> Results:
    return Results(
        machine=machine.describe(plan.base),
        settings={
            "rounds": plan.rounds,
            "seed": plan.seed,
            "sizes": "quick" if arguments.quick else "full",
            "on": arguments.on if arguments.on != "ext4" else "a new ext4 in a file",
            "upper": "tmpfs" if plan.ram_upper else "beside the lowers",
            "date": time.strftime("%Y-%m-%d"),
        },
        titles={kind.name: kind.title for kind in WORKLOADS.values()},
        sections={kind.name: kind.section for kind in WORKLOADS.values()},
        units={kind.name: kind.unit for kind in WORKLOADS.values()},
        contenders=[entry.name for entry in plan.contenders],
        peers=[entry.name for entry in plan.contenders if entry.name in PEERS],
    )


def _present(results: Results, arguments: argparse.Namespace) -> int:
    """Print, write and draw; return the exit status."""
    print(tables.full(results))
    if arguments.json:
        results.save(arguments.json)
    if arguments.tables:
        _insert(results)
    if arguments.plots:
        from bench.plots import draw  # noqa: PLC0415 - matplotlib takes a second to load

        for path in draw(results, arguments.plots):
            print(f"bench: wrote {path}")
    failed = arguments.strict and not all(verdict.reached for verdict in verdicts(results))
    return 1 if failed else 0


def _insert(results: Results) -> None:
    if results.settings["upper"] == "tmpfs":
        tables.insert(PERFORMANCE, tables.short(results), tables.RAM)
        return
    tables.insert(PERFORMANCE, tables.short(results), tables.SHORT)
    tables.insert(PERFORMANCE, tables.full(results), tables.DISK)


def _far(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    chosen = _contenders(parser, arguments.contenders or far.USUAL, arguments.before)
    with scratch(arguments.on) as base:
        print(far.compare(chosen, base))
    return 0


def _profile(parser: argparse.ArgumentParser, arguments: argparse.Namespace, name: str) -> int:
    kind = _workload(parser, name)
    sizes = QUICK if arguments.quick else FULL
    chosen = _contenders(parser, arguments.contenders or OURS, None)
    with _place(arguments) as base:
        return profile(kind(sizes), chosen[0], base, _store(base, sizes), arguments.output)
