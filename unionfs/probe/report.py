"""What the probe found, as a table for people and as JSON for programs."""

import collections
import json
import os
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TextIO

from unionfs.probe.model import Check, Outcome, Verdict

TITLE, VERDICT, WIDTH = 49, 15, 110  # characters: two columns, and the whole line

# Select Graphic Rendition, console_codes(4)
_COLOURS = {
    Verdict.HOLDS: "32",
    Verdict.DIFFERS: "1;31",
    Verdict.NOT_SUPPORTED: "33",
    Verdict.NOT_TRIED: "2",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """A check with its outcome."""

    group: str
    check: Check
    outcome: Outcome


def conforms(findings: Iterable[Finding]) -> bool:
    """Tell whether all holds that POSIX requires; what could not be tried does not count."""
    return not any(
        finding.check.required and finding.outcome.verdict is Verdict.DIFFERS
        for finding in findings
    )


def heading(path: str) -> str:
    """Return the first line: what is probed, and by whom."""
    user = "root" if os.geteuid() == 0 else f"user {os.geteuid()}"
    system = os.uname()
    return f"{path}: {file_system(path)}, {system.sysname} {system.release}, as {user}"


class Table:
    """Writes the table line by line, as the checks are made."""

    def __init__(self, stream: TextIO, path: str) -> None:
        self._stream = stream
        self._coloured = stream.isatty() and not os.environ.get("NO_COLOR")  # no-color.org
        self._heading = heading(path)
        self._group = ""

    def add(self, finding: Finding) -> None:
        """Write a line, below the name of its group if it is the first of that."""
        if not self._group:
            self._write(self._heading + "\n")
        if finding.group != self._group:
            self._group = finding.group
            self._write(f"\n{self._group}\n")
        self._write(self._line(finding.check, finding.outcome))

    def _line(self, check: Check, outcome: Outcome) -> str:
        verdict = f"{outcome.verdict:<{VERDICT}}" if outcome.seen else f"{outcome.verdict}"
        if self._coloured:
            verdict = f"\033[{_COLOURS[outcome.verdict]}m{verdict}\033[0m"
        start = 2 + TITLE + VERDICT
        seen = textwrap.wrap(outcome.seen, WIDTH - start)
        return f"  {check.title:<{TITLE}}{verdict}" + ("\n" + " " * start).join(seen) + "\n"

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def summary(findings: list[Finding]) -> str:
    """Return the last lines: how many of what, and the conclusion."""
    conclusion = "holds" if conforms(findings) else "does not hold"
    untried = any(
        finding.check.required and finding.outcome.verdict is Verdict.NOT_TRIED
        for finding in findings
    )
    extent = ", as far as it was tried" if untried else ""
    return "\n".join(
        (
            "",
            "Required by POSIX: "
            + _count(finding for finding in findings if finding.check.required),
            "Beyond POSIX:      "
            + _count(finding for finding in findings if not finding.check.required),
            f"What POSIX requires of rename(2) {conclusion} here{extent}.",
            "",
        )
    )


def _count(findings: Iterable[Finding]) -> str:
    counts = collections.Counter(finding.outcome.verdict for finding in findings)
    return ", ".join(
        f"{counts[verdict]} {_PLURAL[verdict]}" for verdict in Verdict if counts[verdict]
    )


_PLURAL = {
    Verdict.HOLDS: "hold",
    Verdict.DIFFERS: "differ",
    Verdict.NOT_SUPPORTED: "not supported",
    Verdict.NOT_TRIED: "not tried",
}


def as_json(path: str, findings: list[Finding], *, planted: bool) -> str:
    """Return everything as JSON."""
    return (
        json.dumps(
            {
                "path": path,
                "file_system": file_system(path),
                "kernel": os.uname().release,
                "uid": os.geteuid(),
                "planted": planted,
                "posix": conforms(findings),
                "checks": [_record(finding) for finding in findings],
            },
            indent=2,
        )
        + "\n"
    )


def _record(finding: Finding) -> dict[str, object]:
    return {
        "name": finding.check.slug,
        "title": finding.check.title,
        "group": finding.group,
        "required": finding.check.required,
        "verdict": finding.outcome.verdict,
        "seen": finding.outcome.seen,
    }


def file_system(path: str) -> str:
    """Return the type of the file system at *path*, as mount(8) calls it."""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
            mounts = list(_mounts(table))
    except OSError:
        return "unknown file system"
    real = os.path.realpath(path)
    # The last of the longest: what was mounted last lies on top.
    above = [
        (len(point), index, kind)
        for index, (point, kind) in enumerate(mounts)
        if _is_above(point, real)
    ]
    return max(above)[2] if above else "unknown file system"


def _mounts(table: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield mount point and type of each line, proc_pid_mountinfo(5)."""
    for line in table:
        before, _, after = line.partition(" - ")
        point = before.split(" ")[4].encode("latin-1", "replace").decode("unicode_escape")
        yield point, after.split(" ")[0]


def _is_above(point: str, path: str) -> bool:
    return path == point or path.startswith(point.rstrip("/") + "/")
