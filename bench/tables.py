"""The figures as Markdown: a short table, and all of them, for docs/performance.md.

The tables stand between two markers in a document; nothing else of it is touched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.figures import KERNEL
from bench.goals import OURS, verdicts

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from bench.figures import Results, Spread

# The names of the markers: for a run with all layers on one disk, in short and as a whole, and for
# one with upper in RAM.
SHORT, DISK, RAM = "bench-short", "bench", "bench-ram"


def amount(value: float, unit: str) -> str:
    """Write seconds or bytes with three digits and a unit for people."""
    steps: Sequence[tuple[float, str]] = ((1, "s"), (1e-3, "ms"), (1e-6, "us"))
    if unit == "B":
        steps = ((1e6, "MB"), (1e3, "kB"), (1, "B"))
    value = float(f"{value:.3g}")  # first, so that 999.9 ms are a second
    scale, name = next((step for step in steps if abs(value) >= step[0]), steps[-1])
    return f"{value / scale:.3g} {name}" if value < 1000 * scale else f"{value / scale:.0f} {name}"


def cell(found: Spread | None, unit: str) -> str:
    """Write a median with half the distance of its quartiles, in per cent."""
    if found is None:
        return "-"
    half = 50 * (found.high - found.low) / found.median if found.median else 0
    return f"{amount(found.median, unit)} ±{half:.0f}%"


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.2g}" if value < 100 else f"{value:.0f}"  # noqa: PLR2004


def rows_of(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table."""
    lines = ["| " + " | ".join(heads) + " |", "|---" + "|---:" * (len(heads) - 1) + "|"]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


def short(results: Results) -> str:
    """Return the short table: ours beside the kernel's and the fastest peer."""
    heads = ("work", OURS, "kernel overlayfs", "fastest FUSE peer", "/ kernel", "/ peer")
    rows = []
    for name in results.measured():
        unit, peer = results.units[name], results.fastest_peer(name)
        theirs = results.median(name, peer) if peer else None
        ours, kernel = results.median(name, OURS), results.median(name, KERNEL)
        rows.append(
            (
                results.titles[name],
                "-" if ours is None else amount(ours, unit),
                "-" if kernel is None else amount(kernel, unit),
                "-" if theirs is None else f"{amount(theirs, unit)} ({peer})",
                _ratio(results.against_kernel(name, OURS)),
                _ratio(results.against_peer(name, OURS)),
            )
        )
    return "\n".join(rows_of(heads, rows))


def full(results: Results) -> str:
    """Return all medians with their spread, the ratios, the verdicts and what is missing."""
    parts = [_conditions(results), "", *_medians(results)]
    parts += ["", "Ratios to kernel overlayfs:", "", *_ratios(results)]
    parts += ["", "Goals:", "", *_verdicts(results)]
    return "\n".join([*parts, *_absent(results)])


def _conditions(results: Results) -> str:
    machine = ", ".join(f"{key} {value}" for key, value in results.machine.items())
    settings = ", ".join(f"{key} {value}" for key, value in results.settings.items())
    return f"Measured on {machine}.\nRun with {settings}.\nMedian, ± half the interquartile range."


def _medians(results: Results) -> list[str]:
    rows = [
        (
            results.titles[name],
            *(cell(results.spread(name, who), results.units[name]) for who in results.contenders),
        )
        for name in results.measured()
    ]
    return rows_of(("work", *results.contenders), rows)


def _ratios(results: Results) -> list[str]:
    others = [who for who in results.contenders if who != KERNEL]
    rows = [
        (results.titles[name], *(_ratio(results.against_kernel(name, who)) for who in others))
        for name in results.measured()
    ]
    return rows_of(("work", *others), rows)


def _verdicts(results: Results) -> list[str]:
    rows = [
        (each.title, each.demand, each.measured, "yes" if each.reached else "**no**")
        for each in verdicts(results)
    ]
    return rows_of(("goal", "demand", "measured", "reached"), rows)


def _absent(results: Results) -> list[str]:
    if not results.absent:
        return []
    lines = [f"- {results.titles[a.workload]}, {a.contender}: {a.reason}" for a in results.absent]
    return ["", "Not measured:", "", *lines]


def _markers(name: str) -> tuple[str, str]:
    return f"<!-- {name}:begin -->", f"<!-- {name}:end -->"


def insert(path: Path, text: str, name: str) -> None:
    """Put *text* between the markers *name* of a document; raise ValueError if it has none."""
    first, last = _markers(name)
    document = path.read_text() if path.exists() else ""
    before, begin, rest = document.partition(first)
    _old, end, after = rest.partition(last)
    if not (begin and end):
        raise ValueError(
            f"{path}: no {first} ... {last}: write these two lines where the table goes"
        )
    path.write_text(f"{before}{first}\n\n{text}\n\n{last}{after}")


def has_markers(path: Path, name: str) -> bool:
    """Tell whether a document has a place for the table *name*."""
    return path.exists() and all(marker in path.read_text() for marker in _markers(name))
