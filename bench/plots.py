"""The figures as pictures: how far each contender is from the kernel's overlayfs, and from peers.

The only module that knows matplotlib.  Ratios stand on a logarithmic axis, so
that twice as fast and half as fast are equally far from the line at one.
Colours are those of Okabe and Ito, which colour-blind people can tell apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib as mpl

mpl.use("svg")
from matplotlib import pyplot as plt
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from bench.figures import KERNEL
from bench.goals import OURS

if TYPE_CHECKING:
    from pathlib import Path

    from bench.figures import Results

INK, FAINT = "#222222", "#d8d8d8"
COLOURS = {
    "plain": "#999999",
    "fuse-overlayfs": "#0072B2",
    "unionfs-fuse": "#56B4E9",
    "mergerfs": "#009E73",
    "pyfuse3 floor": "#F0E442",
    "unionfs": "#D55E00",
    "unionfs passthrough=all": "#CC79A7",
    "unionfs noopen=on": "#E69F00",
}
OURS_MARKER, OTHER_MARKER = ("D", 52), ("o", 34)
ROW_INCHES = 0.30
STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.edgecolor": FAINT,
    "text.color": INK,
    "ytick.color": INK,
    "xtick.color": "#555555",
    "svg.fonttype": "none",  # text stays text: small files, and searchable
    "svg.hashsalt": "bench",  # the same figures give the same file
}


def draw(results: Results, directory: Path) -> list[Path]:
    """Write all pictures; return their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    with plt.rc_context(STYLE):
        drawn = [_against_kernel(results, directory / "bench-kernel.svg")]
        if OURS in results.contenders:
            drawn.append(_against_peer(results, directory / "bench-peer.svg"))
    return drawn


def _rows(results: Results) -> list[tuple[str, str | None]]:
    """Return the lines of a plot from above: a section's heading, then its workloads."""
    sections: dict[str, list[str]] = {}  # section -> its workloads
    for name in results.measured():
        sections.setdefault(results.sections[name], []).append(name)
    sections.pop("Daemon", None)  # what the daemon itself needs is no ratio
    rows: list[tuple[str, str | None]] = []
    for section, names in sections.items():
        rows += [(section, None), *((results.titles[name], name) for name in names)]
    return rows


def _frame(rows: list[tuple[str, str | None]], title: str, subtitle: str) -> tuple[Any, Any]:
    height = ROW_INCHES * len(rows) + 1.9
    figure, axes = plt.subplots(figsize=(9, height))
    figure.subplots_adjust(left=0.27, right=0.97, top=1 - 1.15 / height, bottom=0.5 / height)
    figure.text(0.02, 1 - 0.32 / height, title, size=14, weight="bold")
    figure.text(0.02, 1 - 0.58 / height, subtitle, size=10, color="#555555")
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_yticks(range(len(rows)), [label for label, _ in rows])
    for label, (_, name) in zip(axes.get_yticklabels(), rows, strict=True):
        label.set_fontweight("normal" if name else "bold")
    for y, (_, name) in enumerate(rows):
        if name:
            axes.axhline(y, color=FAINT, linewidth=0.6, zorder=0)
    axes.tick_params(length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    return figure, axes


def _scale(axes: Any, low: float, high: float) -> None:
    """Make the x axis one of ratios: powers of ten and a few steps between, as plain numbers."""
    axes.set_xscale("log")
    axes.set_xlim(low / 1.4, high * 1.4)
    crowded = high / low > 1000  # noqa: PLR2004 - beyond three decades, powers of ten suffice
    steps = (1,) if crowded else (1, 2, 5)
    ticks = [step * 10.0**power for power in range(-5, 6) for step in steps]
    axes.xaxis.set_major_locator(FixedLocator([t for t in ticks if low / 1.4 <= t <= high * 1.4]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.grid(visible=True, axis="x", color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.axvline(1, color=INK, linewidth=1.2, zorder=1)


def _against_kernel(results: Results, path: Path) -> Path:
    rows = _rows(results)
    figure, axes = _frame(
        rows,
        "Time against the kernel's overlayfs",
        "Ratio of medians, quartiles as lines; left of the black line is faster than the kernel",
    )
    seen = [1.0]
    others = [who for who in results.contenders if who in COLOURS]
    for y, (_, name) in enumerate(rows):
        base = results.median(name, KERNEL) if name else None
        for who in others if base else ():
            seen += _dot(axes, results, y, (name or "", who), base or 1)
    _scale(axes, min(seen), max(seen))
    handles = [
        Line2D([], [], color=COLOURS[who], marker=_marker(who)[0], linestyle="", label=who)
        for who in others
    ]
    figure.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(0.01, 1 - 0.66 / figure.get_figheight()),
        ncols=len(handles) // 2 if len(handles) > 5 else len(handles),  # noqa: PLR2004
        frameon=False,
        handletextpad=0.1,
        columnspacing=1.0,
        fontsize=9,
    )
    return _save(figure, path)


def _marker(who: str) -> tuple[str, int]:
    return OURS_MARKER if who.startswith(OURS + " ") or who == OURS else OTHER_MARKER


def _dot(axes: Any, results: Results, y: int, pair: tuple[str, str], base: float) -> list[float]:
    """Draw one contender's ratio with its quartiles; return what must fit on the axis."""
    found = results.spread(*pair)
    if found is None:
        return []
    colour, (marker, size) = COLOURS[pair[1]], _marker(pair[1])
    ratio, low, high = found.median / base, found.low / base, found.high / base
    axes.plot((low, high), (y, y), color=colour, linewidth=1.6, alpha=0.6, zorder=2)
    axes.scatter(
        ratio, y, s=size, marker=marker, color=colour, edgecolor="white", linewidth=0.6, zorder=3
    )
    return [ratio]


def _against_peer(results: Results, path: Path) -> Path:
    rows = _rows(results)
    figure, axes = _frame(
        rows,
        "unionfs against the fastest other FUSE union",
        "Ratio of medians; bars to the left are faster than the peer named beside them",
    )
    seen = [0.5, 2.0]
    for y, (_, name) in enumerate(rows):
        ratio = results.against_peer(name, OURS) if name else None
        if name and ratio:
            seen.append(ratio)
            faster = ratio <= 1
            colour = "#009E73" if faster else "#D55E00"
            axes.barh(y, ratio - 1, left=1, height=0.62, color=colour, zorder=2)
            axes.annotate(
                f" {ratio:.2g}x {results.fastest_peer(name)} ",
                (1, y),
                ha="left" if faster else "right",
                va="center",
                size=8,
                color="#555555",
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
            )
    _scale(axes, min(seen) / 1.5, max(seen) * 1.5)
    return _save(figure, path)


def _save(figure: Any, path: Path) -> Path:
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    return path
