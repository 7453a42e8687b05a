"""Checks of atomicity: readers look in a tight loop while names are replaced.

POSIX: "a link named new shall remain visible to other threads throughout the
renaming operation and refer either to the file referred to by new or old before
the operation began".  Readers are processes, so that they run truly beside the
writer.  A race that finds nothing proves little unless it was close: the note
beside "holds" says how often was written and looked.
"""

import collections
import contextlib
import itertools
import mmap
import os
import time
from collections.abc import Callable, Iterator

from unionfs.probe import trees
from unionfs.probe.children import Child, answers
from unionfs.probe.extensions import EXCHANGE, NOREPLACE, rename_with
from unionfs.probe.model import DiffersError, Trial, beyond, error_name, expect, posix

READERS = 2
# Bytes of a version: some pages and a bit, so that a version can be torn in many places.
SIZE = 3 * 4096 + 17
# Seconds after which a race ends before its rounds are done (NFS, sshfs).
PATIENCE = 20.0
ANSWER = 30.0  # seconds in which a reader must have begun, and have noticed the end
FEW = 60  # names in a race in which each is replaced once; each is a file to be planted

OLD, NEW = "a" * SIZE, "b" * SIZE
VERSIONS = tuple(letter * SIZE for letter in "cdefgh")

Look = Callable[[int], None]  # looks in the given round; raises what it sees


class Board:
    """What writer and readers share: the round, the end, and the looks of each reader."""

    def __init__(self) -> None:
        self._cells = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("Q")

    @property
    def turn(self) -> int:
        """The round that the writer is in."""
        return self._cells[0]

    @turn.setter
    def turn(self, number: int) -> None:
        self._cells[0] = number

    @property
    def over(self) -> bool:
        """Whether the readers shall stop."""
        return bool(self._cells[1])

    def end(self) -> None:
        """Let the readers stop."""
        self._cells[1] = 1

    def looked(self, reader: int) -> None:
        """Count a look of a reader."""
        self._cells[2 + reader] += 1

    @property
    def looks(self) -> list[int]:
        """How often each reader has looked."""
        return self._cells[2 : 2 + READERS].tolist()

    def wait_for_looks(self, more: int, seconds: float = 1.0) -> None:
        """Wait until each reader has looked *more* times; not longer than that."""
        wanted = [count + more for count in self.looks]
        end = time.monotonic() + seconds
        while any(map(int.__lt__, self.looks, wanted)) and time.monotonic() < end:
            os.sched_yield()


def _read(board: Board, reader: int, look: Look) -> dict[str, int]:
    """Look until the race is over; return what was seen amiss, and how often."""
    amiss: collections.Counter[str] = collections.Counter()
    while not board.over:
        try:
            look(board.turn)
        except OSError as exc:
            amiss[error_name(exc.errno)] += 1
        except DiffersError as exc:
            amiss[str(exc)] += 1
        board.looked(reader)
    return amiss


@contextlib.contextmanager
def _watched(look: Look) -> Iterator[Board]:
    """Let readers look while the block runs, then raise what they saw amiss."""
    board = Board()
    with contextlib.ExitStack() as stack:
        readers = [
            stack.enter_context(Child(lambda number=number: _read(board, number, look)))  # type: ignore[misc]
            for number in range(READERS)
        ]
        board.wait_for_looks(1, ANSWER)  # on a busy machine they may be long in coming
        try:
            yield board
        finally:
            board.end()
        amiss: collections.Counter[str] = collections.Counter()
        for seen_by_reader in answers(readers, ANSWER):
            amiss.update(seen_by_reader)
    if amiss:
        seen = ", ".join(f"{what} {count} times" for what, count in amiss.most_common(3))
        raise DiffersError(f"{seen} in {sum(board.looks)} looks")


def _race(look: Look, step: Callable[[int], None], rounds: int) -> str:
    """Do *step* for each round while readers look; return how often both happened."""
    end = time.monotonic() + PATIENCE
    done = 0
    with _watched(look) as board:
        for done in range(1, rounds + 1):
            board.turn = done
            step(done)
            if time.monotonic() > end:
                break
        looks = sum(board.looks)
    expect(min(board.looks) > 0, "a reader never got to look")
    return f"{done} times, {looks} looks"


def _version(number: int) -> str:
    return VERSIONS[number % len(VERSIONS)]


def _whole(content: bytes) -> None:
    """Raise unless *content* is one version, from its first byte to its last."""
    expect(content, "empty")
    expect(content == content[:1] * SIZE, "torn")


def _look_inside(path: str) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        _whole(os.read(fd, 2 * SIZE))
    finally:
        os.close(fd)


def _replace(number: int, source: str, target: str) -> None:
    trees.write(source, _version(number))
    os.rename(source, target)


@posix("open: never missing, empty or torn", {"source": NEW, "target": OLD})
def opened_while_replaced(trial: Trial) -> str:
    """POSIX, as above: what is opened is the old file or the new one, whole."""
    os.rename("source", "target")
    return _race(
        lambda _: _look_inside("target"),
        lambda number: _replace(number, "source", "target"),
        trial.rounds,
    )


@posix("open: from another directory", {"source": {"f": NEW}, "target": {"f": OLD}})
def opened_while_replaced_across(trial: Trial) -> str:
    """POSIX, as above: wherever the new file comes from."""
    os.rename("source/f", "target/f")
    return _race(
        lambda _: _look_inside("target/f"),
        lambda number: _replace(number, "source/f", "target/f"),
        trial.rounds,
    )


@posix("stat: never missing, never empty", {"source": NEW, "target": OLD})
def looked_up_while_replaced(trial: Trial) -> str:
    """POSIX, as above: looking up the name finds the old file or the new one."""

    def look(_round: int) -> None:
        expect(os.stat("target").st_size == SIZE, "another size")

    os.rename("source", "target")
    return _race(look, lambda number: _replace(number, "source", "target"), trial.rounds)


@posix("mmap: whole, and stays what it was", {"source": NEW, "target": OLD})
def mapped_while_replaced(trial: Trial) -> str:
    """POSIX, as above; and a mapping keeps the replaced file alive, mmap()."""

    def look(_round: int) -> None:
        with (
            open("target", "rb") as file,
            mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as memory,
        ):
            first = memory[:]
            _whole(first)
            os.sched_yield()
            expect(memory[:] == first, "changed under the mapping")

    os.rename("source", "target")
    return _race(look, lambda number: _replace(number, "source", "target"), trial.rounds)


@posix(
    "each file's first replacement",
    {
        "source": {f"{number:02}": NEW for number in range(FEW)},
        "target": {f"{number:02}": OLD for number in range(FEW)},
    },
)
def first_replacement(_trial: Trial) -> str:
    """POSIX, as above.  The first is special where a file must be fetched from elsewhere first."""

    def look(number: int) -> None:
        _look_inside(f"target/{number:02}")

    with _watched(look) as board:
        for number in range(FEW):
            board.turn = number
            board.wait_for_looks(2)
            os.rename(f"source/{number:02}", f"target/{number:02}")
            board.wait_for_looks(1)
    return f"{FEW} times, {sum(board.looks)} looks"


@posix("an empty directory's replacement", {"source": {}, "target": {}})
def directory_while_replaced(trial: Trial) -> str:
    """POSIX, as above: a link named new, whatever it names."""

    def step(_round: int) -> None:
        os.mkdir("source")
        os.rename("source", "target")

    os.rename("source", "target")
    return _race(lambda _: os.close(os.open("target", os.O_RDONLY)), step, trial.rounds)


@posix(
    "a symlink's replacement, as ln -sfT's",
    {"source": trees.Symlink("1"), "target": trees.Symlink("0")},
)
def symlink_while_replaced(trial: Trial) -> str:
    """POSIX, as above: how programs switch between versions of a tree."""

    def step(number: int) -> None:
        os.symlink(str(number), "source")
        os.rename("source", "target")

    def look(_round: int) -> None:
        expect(os.readlink("target").isdecimal(), "another link")

    os.rename("source", "target")
    return _race(look, step, trial.rounds)


@beyond("EXCHANGE: neither name is ever missing", {"source": NEW, "target": {"f": OLD}})
def exchanged_while_watched(trial: Trial) -> str:
    """Linux: RENAME_EXCHANGE: "Atomically exchange oldpath and newpath"."""

    def look(_round: int) -> None:
        os.stat("source")
        os.stat("target")

    rename_with(EXCHANGE, "source", "target")
    return _race(look, lambda _: rename_with(EXCHANGE, "source", "target"), trial.rounds)


@beyond("NOREPLACE: one of many wins", {"source": NEW})
def one_wins(trial: Trial) -> str:
    """Linux: RENAME_NOREPLACE: EEXIST if newpath exists; so of many only one succeeds."""
    rename_with(NOREPLACE, "source", "other")
    names = max(trial.rounds // 10, 1)
    board = Board()

    def contend(contender: int) -> list[int]:
        """Try every name at the same time as the others; return those that were won."""
        won = []
        for name in range(names):
            trees.write(f"mine{contender}", "mine")
            board.looked(contender)
            while min(board.looks) <= name:
                pass  # yielding would let the other one go first by far
            if _wins(f"mine{contender}", f"target{name}"):
                won.append(name)
        return won

    with contextlib.ExitStack() as stack:
        contenders = [
            stack.enter_context(Child(lambda number=number: contend(number)))  # type: ignore[misc]
            for number in range(READERS)
        ]
        wins: list[list[int]] = answers(contenders, PATIENCE + ANSWER)
    won = collections.Counter(itertools.chain(*wins))
    expect(all(won[name] == 1 for name in range(names)), "several won, or none")
    return f"{names} names, won {' : '.join(str(len(each)) for each in wins)}"


def _wins(mine: str, name: str) -> bool:
    try:
        rename_with(NOREPLACE, mine, name)
    except FileExistsError:
        return False
    return True
