"""The live view of `unionfs status`: its report, again and again, and how fast upper fills."""

import collections
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from unionfs.audit import usage
from unionfs.audit.usage import Room
from unionfs.mounting.options import Refused

_FAILED = 1  # exit status

_SECONDS = 2.0  # between two reports
_SHARE = 9  # a report takes at most a tenth of the time: a large upper is walked less often
_LOOKS = 15  # reports from which the growth is computed

# ECMA-48: to the first column of the first line; erase to the end of the line; of the screen.
_HOME, _END_OF_LINE, _END_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"

_COLUMNS, _ROWS = 80, 24  # of a terminal that does not know its size

_UNITS = ((86400, "days"), (3600, "h"), (60, "min"))  # seconds


class Report(NamedTuple):
    """What one look has shown."""

    lines: list[str]
    document: object  # for --json
    room: Room | None  # of upper, in a report about one union
    is_well: bool

    @property
    def status(self) -> int:
        """Return the exit status."""
        return 0 if self.is_well else _FAILED


def show(report: Report, look: Callable[[], Report]) -> int:
    """Show *report*, and then those of *look*, until SIGINT, or until the union is gone.

    Returns the exit status of the last report.
    """
    growth = Growth()
    took = 0.0
    draw = _draw if sys.stdout.isatty() else _print
    try:
        while True:
            draw([*report.lines, *growth.lines(report.room, time.monotonic())])
            time.sleep(max(_SECONDS, _SHARE * took))
            begun = time.monotonic()
            report = look()
            took = time.monotonic() - begun
    except KeyboardInterrupt:
        return report.status
    except Refused as exc:  # the union was there a moment ago
        print(f"unionfs: {exc}", file=sys.stderr)
        return _FAILED


def _print(lines: list[str]) -> None:
    print("\n".join([*lines, ""]), flush=True)


def _draw(lines: list[str]) -> None:
    """Draw the lines over those before, as many as the screen has room for."""
    columns, rows = _terminal_size()
    shown = (line[: columns - 1] + _END_OF_LINE for line in lines[: rows - 1])
    print(_HOME + "\n".join(shown) + "\n" + _END_OF_SCREEN, end="", flush=True)


def _terminal_size() -> tuple[int, int]:
    """Return the columns and rows of the terminal itself.

    COLUMNS and LINES are not asked: a parent's are those of another terminal.
    """
    columns, rows = os.get_terminal_size(sys.stdout.fileno())
    return columns or _COLUMNS, rows or _ROWS  # 0: a serial line does not know its size


class Growth:
    """How fast an upper fills, according to the last reports."""

    def __init__(self) -> None:
        # a time, in seconds of some clock -> bytes used
        self._seen: collections.deque[tuple[float, int]] = collections.deque(maxlen=_LOOKS)

    def lines(self, room: Room | None, now: float) -> Iterator[str]:
        """Yield the line about the growth, from the second report on."""
        if room is None:
            return
        self._seen.append((now, room.used))
        (begun, before), (ended, used) = self._seen[0], self._seen[-1]
        if ended > begun:
            yield f"{'growth':12} {_growth((used - before) / (ended - begun), room)}"


def _growth(rate: float, room: Room) -> str:
    """Say what growing by *rate*, in bytes a second, means."""
    sign = "-" if rate < 0 else ""
    said = f"{sign}{usage.shown(abs(rate))} a second"
    left = room.size - room.used
    return f"{said}, full in {_duration(left / rate)}" if rate >= 1 else said


def _duration(seconds: float) -> str:
    for size, unit in _UNITS:
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
