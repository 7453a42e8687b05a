"""What a lower on a slow server costs: those who wait for it, and those who do not.

    python -m bench far

Each call of the server (`bench.slow`) takes 200 ms.  Measured are changes in a directory of upper
alone, beside a client that walks the lower and alone; a second walk of a tree, as it is and
when the kernel has forgotten its names; a walk by eight clients at once, beside one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from bench.contenders import PROJECT, CannotMountError, unmount
from bench.ground import ground
from bench.tables import amount, rows_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from bench.contenders import Contender

USUAL = "overlayfs,fuse-overlayfs,unionfs"
SECONDS = 0.2  # that each call of the server takes
CHANGES, ROUNDS = 300, 3  # how many changes tell their slowest, and how often all is tried
TREE = (100, 100)  # directories, and files in each
CLIENTS, EACH = 8, 12  # and files that each client looks at
MOST = 30.0  # seconds after which a walk is given up

_CHANGING = """
import os, sys, time
os.chdir(sys.argv[1])
for turn in range(int(sys.argv[2])):
    begun = time.perf_counter()
    with open('file', 'w') as file:
        file.write('content')
    os.unlink('file')
    print(time.perf_counter() - begun)
"""


# The seconds that each change took; None: they were given up after `MOST`.
Changes = list[float] | None


class Server:
    """A directory served by `bench.slow`; at first its calls take no time."""

    def __init__(self, source: Path, point: Path) -> None:
        words = (sys.executable, "-m", "bench.slow", source, point, "0")
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(words, cwd=PROJECT, stdin=pipe, stdout=pipe, text=True)
        self._answer()

    def take(self, seconds: float) -> None:
        """Let each call take so long from now on."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"take {seconds}\n")
        self._process.stdin.flush()
        self._answer()

    def _answer(self) -> None:
        assert self._process.stdout is not None
        self._process.stdout.readline()

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


@dataclasses.dataclass(slots=True)
class Figures:
    """What one contender needed: seconds; None where it was given up after `MOST`."""

    alone: list[Changes]  # by round
    beside: list[Changes]
    near: list[float | None]  # second walk: as it is, and with the kernel's names forgotten
    far: list[float | None]
    clients: list[float | None]  # a walk of a directory by one, and by eight, each its own


def compare(contenders: Sequence[Contender], base: Path) -> str:
    """Measure; return a table."""
    _plant(base / "tree", *TREE)
    _plant(base / "few", CLIENTS + 1, EACH)
    (base / "server").mkdir()
    found = {}
    for contender in contenders:
        try:
            found[contender.name] = _figures(contender, base)
        except CannotMountError as error:
            print(f"bench: without {contender.name}: {error}", file=sys.stderr)
    heads = (f"a call of the lower takes {SECONDS * 1000:.0f} ms", *found)
    return "\n".join(rows_of(heads, _rows(list(found.values()))))


def _plant(path: Path, directories: int, files: int) -> None:
    for number in range(directories):
        (path / f"d{number}").mkdir(parents=True)
        for name in range(files):
            (path / f"d{number}/f{name}").touch()


@contextlib.contextmanager
def _union(contender: Contender, base: Path, lower: Path) -> Iterator[Path]:
    missing = contender.missing()
    if missing:
        raise CannotMountError(missing)
    with (
        ground(base, (lower,), only_reads=False, ram_upper=False) as place,
        contender.mounted(place) as mounted,
    ):
        yield mounted.root


@contextlib.contextmanager
def _far_union(contender: Contender, base: Path, name: str) -> Iterator[tuple[Path, Server]]:
    point = base / "server"
    server = Server(base / name, point)
    try:
        with _union(contender, base, point) as root:
            yield root, server
            server.take(0)
    finally:
        server.end()
        unmount(point)


def _figures(contender: Contender, base: Path) -> Figures:
    with _far_union(contender, base, "tree") as (root, server):
        alone, beside = _changes(root, server)
    with _union(contender, base, base / "tree") as root:
        subprocess.run(_looking(root), check=True)
        near = _second_walks(root, None)
    with _far_union(contender, base, "tree") as (root, server):
        subprocess.run(_looking(root), check=True)
        far = _second_walks(root, server)
    with _far_union(contender, base, "few") as (root, server):
        server.take(SECONDS)
        return Figures(alone, beside, near, far, _clients(root, server))


def _changes(root: Path, server: Server) -> tuple[list[Changes], list[Changes]]:
    own = root / "own"
    own.mkdir()
    _change(own, server)
    alone, beside = [], []
    for _ in range(ROUNDS):
        server.take(SECONDS)
        alone.append(_change(own, server))
        walker = subprocess.Popen(("find", root, "-printf", ""))
        time.sleep(1)
        beside.append(_change(own, server))
        assert walker.poll() is None, "the walk had ended"
        server.take(0)
        walker.kill()
        walker.wait()
    return alone, beside


def _change(directory: Path, server: Server) -> Changes:
    """Create, write and remove a file many times; return the seconds of each; None: too long."""
    words = (sys.executable, "-c", _CHANGING, directory, str(CHANGES))
    client = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        return [float(word) for word in client.communicate(timeout=MOST)[0].split()]
    except subprocess.TimeoutExpired:
        server.take(0)  # who is waiting in the kernel cannot be killed everywhere
        client.kill()
        client.communicate()
        return None


def _looking(path: Path) -> tuple[str | Path, ...]:
    """Return a command that asks for the attributes of all that is below a path."""
    return ("find", path, "-size", "+1000G")


def _walk(server: Server | None, *paths: Path) -> float | None:
    """Return the seconds in which clients, one a path, look at all below; None: too many."""
    begun = time.perf_counter()
    clients = [subprocess.Popen(_looking(path)) for path in paths]
    try:
        for client in clients:
            client.wait(MOST)
        return time.perf_counter() - begun
    except subprocess.TimeoutExpired:
        if server is not None:
            server.take(0)  # as in `_change`
        return None
    finally:
        for client in clients:
            client.kill()
        for client in clients:
            client.wait()


def _second_walks(root: Path, server: Server | None) -> list[float | None]:
    """Walk again, as it is and after the kernel has forgotten all names."""
    return [_walk_again(root, server, forget=forget) for forget in (False, True)]


def _walk_again(root: Path, server: Server | None, *, forget: bool) -> float | None:
    found: list[float] = []
    for _ in range(ROUNDS):
        if server is not None:
            server.take(SECONDS)
        if forget:
            Path("/proc/sys/vm/drop_caches").write_text("2")
        seconds = _walk(server, root)
        if seconds is None:
            return None
        found.append(seconds)
    return min(found)  # what else the machine does only adds


def _clients(root: Path, server: Server) -> list[float | None]:
    names = [root / f"d{number}" for number in range(CLIENTS + 1)]
    for name in names:
        os.stat(name)
    return [_walk(server, names[-1]), _walk(server, *names[:-1])]


def _rows(found: Sequence[Figures]) -> list[list[str]]:
    """Return the rows of the table, a contender a column."""
    files = f"{TREE[0] * TREE[1]:,} files"
    titles: dict[str, Callable[[Figures], float | None]] = {
        "create, write, unlink in upper: median": lambda one: _median(one.alone),
        "the same beside a walk of the lower": lambda one: _median(one.beside),
        f"slowest of {CHANGES}": lambda one: _slowest(one.alone),
        f"slowest of {CHANGES} beside a walk of the lower": lambda one: _slowest(one.beside),
        f"second walk of {files}, near lower": lambda one: one.near[0],
        f"second walk of {files}, this lower": lambda one: one.far[0],
        "near lower, names not cached by the kernel": lambda one: one.near[1],
        "this lower, names not cached by the kernel": lambda one: one.far[1],
        f"walk of {EACH} files by one client": lambda one: one.clients[0],
        f"walk of {CLIENTS} times {EACH} files by {CLIENTS} clients": lambda one: one.clients[1],
    }
    return [[title, *map(_cell, map(figure, found))] for title, figure in titles.items()]


def _cell(seconds: float | None) -> str:
    return f"over {MOST:.0f} s" if seconds is None else amount(seconds, "s")


def _median(rounds: Sequence[Changes]) -> float | None:
    if None in rounds:
        return None
    return statistics.median(second for seconds in rounds for second in seconds or ())


def _slowest(rounds: Sequence[Changes]) -> float | None:
    return None if None in rounds else max(max(seconds or ()) for seconds in rounds)
