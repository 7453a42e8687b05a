"""What a person sees while the bench runs: the table as it fills, and how long it still takes.

The only module that knows rich.  On something that is no terminal (CI, a
file) one line is printed for each workload and round instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from bench.figures import KERNEL
from bench.tables import amount

if TYPE_CHECKING:
    from bench.figures import Results

GOOD, BAD = 0.9, 1.5  # ratios to the kernel's from which a cell is green, or no longer plain


class Watch:
    """A live view of results; a context that lasts as long as the run."""

    def __init__(self, results: Results) -> None:
        self.results = results
        self.console = Console()
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
        )
        self.task = self.progress.add_task("starting", total=None)
        self.live = Live(console=self.console, refresh_per_second=1)

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        if self.console.is_terminal:
            self.live.stop()

    def begin(self, steps: int) -> None:
        """Say how many measurements there will be."""
        self.progress.update(self.task, total=steps)

    def advance(self, steps: int) -> None:
        """Count measurements that are done, or will not be tried."""
        self.progress.advance(self.task, steps)

    def working(self, number: int, workload: str, contender: str) -> None:
        """Say what is being measured."""
        words = f"round {number + 1}  [b]{workload}[/b] on [b]{contender}[/b]"
        self.progress.update(self.task, description=words)
        self._refresh()

    def row(self, workload: str) -> None:
        """Say that all contenders have done *workload* once more."""
        if not self.console.is_terminal:
            cells = ", ".join(
                f"{who} {self._cell(workload, who)}" for who in self.results.contenders
            )
            print(f"{workload}: {cells}", flush=True)
        self._refresh()

    def _refresh(self) -> None:
        if self.console.is_terminal:
            self.live.update(Group(self._table(), self.progress))

    def _cell(self, workload: str, contender: str) -> str:
        median = self.results.median(workload, contender)
        return "-" if median is None else amount(median, self.results.units[workload])

    def _table(self) -> Table:
        """Return the medians so far, as many of the last rows as the screen has room for."""
        table = Table(box=None, pad_edge=False)
        table.add_column("work")
        for who in self.results.contenders:
            table.add_column(who, justify="right")
        room = max(self.console.height - 6, 3)
        for name in self.results.measured()[-room:]:
            cells = [self._coloured(name, who) for who in self.results.contenders]
            table.add_row(self.results.titles[name], *cells)
        return table

    def _coloured(self, workload: str, contender: str) -> str:
        text, ratio = self._cell(workload, contender), None
        if contender != KERNEL:
            ratio = self.results.against_kernel(workload, contender)
        if ratio is None:
            return text
        colour = "green" if ratio <= GOOD else "default" if ratio <= BAD else "yellow"
        return f"[{colour}]{text}[/{colour}]"
