"""Write docs/rename.md: `python -m tests.probe.table > docs/rename.md`, as root.

Every file system is mounted anew for every case; a check holds there only if it
holds in all of them.  What differs is told as it was seen, and where.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.probe import filesystems
from tests.probe.filesystems import ALL, Case, FileSystem

SIGNS = {"holds": "yes", "differs": "**no**", "not supported": "-", "not tried": "?"}
WORST = ("differs", "not tried", "not supported", "holds")

HEAD = """\
# Rename, on this file system and on others

`unionfs probe DIR` tries what rename(2) promises, on any directory of any file system. This page
shows what it finds. Each union was mounted with an upper and two lower layers: once with nothing
in them, and once for every choice of the layers that sources and targets come from ({cases}
mounts). **yes** means that a check holds in all mounts, **no** that it fails in at least one,
*-* that the file system does not support it. Written by `python -m tests.probe.table` on
Linux {kernel}, {rounds} replacements per race.
"""


class Column:
    """What was found on one file system: per check and case, verdict and what was seen."""

    def __init__(self, system: FileSystem, reports: Mapping[Case, Any]) -> None:
        self.system = system
        self.found = {
            (check["name"], case): (check["verdict"], check["seen"])
            for case, report in reports.items()
            for check in report["checks"]
        }

    def verdict(self, name: str) -> str:
        verdicts = {verdict for (check, _), (verdict, _) in self.found.items() if check == name}
        return next(verdict for verdict in WORST if verdict in verdicts)

    def differences(self, name: str) -> tuple[str, int]:
        """Return what was seen first, and in how many cases the check differs."""
        seen = [
            seen
            for (check, _), (verdict, seen) in self.found.items()
            if check == name and verdict == "differs"
        ]
        return (seen[0] if seen else "", len(seen))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1000)
    rounds = parser.parse_args().rounds
    systems = [system for system in ALL if not system.missing]
    reports = {system.name: dict(_reports(system, rounds)) for system in systems}
    columns = [Column(system, reports[system.name]) for system in systems]
    any_report = next(iter(reports[systems[0].name].values()))
    cases, kernel = len(filesystems.CASES), any_report["kernel"].split("-")[0]
    sys.stdout.write(HEAD.format(cases=cases, kernel=kernel, rounds=rounds))
    sys.stdout.write("\n".join(_table(any_report["checks"], columns)) + "\n")
    sys.stdout.write("\n".join(_what_was_seen(any_report["checks"], columns)) + "\n")


def _reports(system: FileSystem, rounds: int) -> Iterator[tuple[Case, Any]]:
    for case in system.cases:
        sys.stderr.write(f"{system.name}, {case}\n")
        with tempfile.TemporaryDirectory(prefix="unionfs-table-") as directory:
            base = Path(directory)
            base.chmod(0o755)
            if not system.layered:
                yield case, _report(system, base, case, rounds)
                continue
            with filesystems.tmpfs(base / "layers") as layers:
                yield case, _report(system, layers, case, rounds)


def _report(system: FileSystem, base: Path, case: Case, rounds: int) -> Any:
    with filesystems.prepared(system, base / case.__str__(), case) as directory:
        return filesystems.verdicts(directory, case, rounds)


def _table(checks: list[Any], columns: list[Column]) -> Iterator[str]:
    names = [column.system.name for column in columns]
    group = ""
    for check in checks:
        if check["group"] != group:
            group = check["group"]
            yield f"\n## {group}\n"
            yield f"| | {' | '.join(names)} |"
            yield "|---|" + ":-:|" * len(names)
        cells = [SIGNS[column.verdict(check["name"])] for column in columns]
        yield f"| {check['title']} | {' | '.join(cells)} |"
    required = {check["name"] for check in checks if check["required"]}
    yield "\n## All that POSIX requires\n"
    yield f"| | {' | '.join(names)} |"
    yield "|---|" + ":-:|" * len(names)
    yield (
        f"| {len(required)} checks | "
        + " | ".join(_score(column, required) for column in columns)
        + " |"
    )


def _score(column: Column, required: set[str]) -> str:
    failed = sum(column.verdict(name) == "differs" for name in required)
    return f"{failed} differ" if failed else "holds"


def _what_was_seen(checks: list[Any], columns: list[Column]) -> Iterator[str]:
    yield "\n## What was seen where it differs\n"
    yield "The first thing seen, and in how many of the mounts.\n"
    for column in columns:
        lines = list(_lines(checks, column))
        if lines:
            yield f"\n### {column.system.name}\n"
            yield from lines


def _lines(checks: list[Any], column: Column) -> Iterator[str]:
    for check in checks:
        seen, count = column.differences(check["name"])
        if count:
            yield f"- {check['title']}: {seen} ({count} of {len(column.system.cases)})"


if __name__ == "__main__":
    main()
