"""The command `unionfs probe`: its arguments, its output and its exit status.

0   all that POSIX requires of rename() holds
1   it does not, or the scratch directory could not be removed
2   bad input: nothing was tried
"""

import argparse
import contextlib
import os
import stat
import sys
import tempfile
from collections.abc import Iterable, Iterator

from unionfs.host import inherited
from unionfs.probe import catalogue, programs, report, runner
from unionfs.probe.catalogue import Group
from unionfs.probe.model import Outcome, Verdict
from unionfs.probe.report import Finding

ROUNDS = 2000  # replacements in a race; two readers look some 100,000 times meanwhile

GONE = Outcome(Verdict.NOT_TRIED, "the file system is gone")


class InputError(Exception):
    """The command cannot be carried out as given; the message says what to do."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    parser.add_argument(
        "path",
        metavar="DIR",
        help="directory on the file system to be probed; or a file, to be replaced by a copy of "
        "itself as passwd(1) and useradd(8) do",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, not a table")
    parser.add_argument(
        "--rounds",
        type=int,
        default=ROUNDS,
        metavar="N",
        help="replacements in each race between readers and a writer (%(default)s)",
    )
    parser.add_argument(
        "--plant",
        choices=("sources", "targets", "all"),
        help="only write what the checks start with into DIR, so that a union of several such "
        "directories can be probed with --planted",
    )
    parser.add_argument(
        "--planted", action="store_true", help="use what --plant wrote into layers of DIR"
    )


def run(arguments: argparse.Namespace) -> int:
    """Carry out the command; return its exit status."""
    try:
        _check_input(arguments)
        inherited.await_children()
        if arguments.plant:
            return _plant(arguments.path, arguments.plant)
        return _probe(arguments)
    except InputError as exc:
        sys.stderr.write(f"unionfs: {exc}\n")
        return 2


def _check_input(arguments: argparse.Namespace) -> None:
    if arguments.rounds < 1:
        raise InputError(f"--rounds {arguments.rounds}: give a number of at least 1")
    try:
        mode = os.stat(arguments.path).st_mode
    except OSError as exc:
        raise InputError(f"{arguments.path}: {exc.strerror}; give a directory to probe") from exc
    if stat.S_ISDIR(mode):
        return
    if not stat.S_ISREG(mode):
        raise InputError(f"{arguments.path}: neither a directory nor a regular file")
    if arguments.plant or arguments.planted:
        raise InputError(f"{arguments.path}: not a directory; only into one can be planted")


def _plant(directory: str, what: str) -> int:
    checks = [check for _, group in catalogue.groups() for check in group]
    try:
        for targets in (False, True):
            if what in ("all", "targets" if targets else "sources"):
                runner.plant(directory, checks, targets=targets)
    except OSError as exc:
        raise InputError(
            f"{exc.filename or directory}: {exc.strerror}; nothing to plant in"
        ) from exc
    return 0


def _probe(arguments: argparse.Namespace) -> int:
    path = os.path.abspath(arguments.path)
    table = report.Table(sys.stdout, path)
    findings: list[Finding] = []
    clean = True
    try:
        with contextlib.ExitStack() as stack:
            place = _enter(stack, path, planted=arguments.planted)
            for finding in _findings(path, place, arguments.rounds):
                findings.append(finding)
                if not arguments.json:
                    table.add(finding)
    except runner.LeftoverError as exc:
        sys.stderr.write(f"unionfs: {exc}; remove it by hand\n")
        clean = False
    if arguments.json:
        sys.stdout.write(report.as_json(path, findings, planted=arguments.planted))
    else:
        sys.stdout.write(report.summary(findings))
    return 0 if clean and report.conforms(findings) else 1


def _enter(stack: contextlib.ExitStack, path: str, *, planted: bool) -> str:
    """Return the directory to work in, which is removed when *stack* ends."""
    if not os.path.isdir(path):
        return stack.enter_context(runner.scratch(tempfile.gettempdir()))
    try:
        return stack.enter_context(runner.planted(path) if planted else runner.scratch(path))
    except OSError as exc:
        remedy = "plant there with --plant first" if planted else "the probe must write there"
        raise InputError(f"{path}: {exc.strerror}; {remedy}") from exc


def _findings(path: str, place: str, rounds: int) -> Iterator[Finding]:
    for title, checks in _groups(path):
        for check in checks:
            gone = runner.is_gone(place)
            yield Finding(title, check, GONE if gone else runner.run(check, place, rounds))


def _groups(path: str) -> Iterable[Group]:
    if os.path.isdir(path):
        return catalogue.groups()
    return [("Programs, on this very file", programs.on_file(path))]
