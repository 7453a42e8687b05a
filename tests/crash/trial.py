"""One case on trial: the operation is stopped at one call, and the tree judged.

The judgement is always the same: the tree is, in everything that a program can
see, the one before the operation or the one after it.
"""

import errno
import os
import shutil
from collections.abc import Iterator
from typing import NamedTuple

from unionfs.layers.iflags import FLAGS
from unionfs.view.union import Features

from . import corpus
from .client import Client, Dirs
from .corpus import Case
from .gate import Gate, PowerOff, dying_after, dying_before, failing
from .plain import Plain
from .trees import Tree, differences, harvest

_RECENT = 1_700_000_000 * 10**9  # ns; a later mtime is "now", whichever moment that was
ERRNOS = (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE)


def settled(tree: Tree) -> Tree:
    """Return *tree* with all mtimes of the present made alike."""
    return {
        path: thing._replace(mtime=1) if thing.mtime > _RECENT else thing
        for path, thing in tree.items()
    }


def features(whiteout: str, fsync: str = "auto") -> Features:
    """Return what users get with this format: `options.settled`."""
    marks = whiteout == "overlay"
    return Features(metacopy=marks, redirect_dir=marks, whiteout=whiteout, fsync=fsync)


class Expected(NamedTuple):
    """The two trees that may be seen."""

    old: Tree
    new: Tree


class Field:
    """A directory in which cases are tried: shared lowers, a fresh upper each time.

    Upper and work may be in another one, *disk*.
    """

    def __init__(self, top: str, features: Features | None = None, disk: str = "") -> None:
        self.top = top
        disk = disk or top
        self.features = features or Features()
        lowers = (f"{top}/l1", f"{top}/l2")
        self.dirs = Dirs(lowers, f"{disk}/upper", f"{disk}/work")
        for path in lowers:
            os.mkdir(path)
        corpus.plant_lowers(lowers)
        self.lowers_before = [harvest(lower, times=True) for lower in lowers]

    def __str__(self) -> str:
        return f"in {self.top}, fsync={self.features.fsync}, whiteout={self.features.whiteout}"

    def unchanged(self) -> bool:
        """Tell whether the lowers are as they were planted."""
        return [harvest(lower, times=True) for lower in self.dirs.lowers] == self.lowers_before

    def fresh(self) -> None:
        """Make upper and work anew."""
        for path in self.dirs[1:]:
            shutil.rmtree(path, ignore_errors=True)
            os.mkdir(path)
        corpus.plant_upper(self.dirs.upper, self.features.whiteout)

    def client(self) -> Client:
        return Client(self.dirs, self.features)

    def expect(self, case: Case) -> Expected:
        """Run *case* on a plain directory and return the trees before and after."""
        top = f"{self.top}/plain"
        os.mkdir(top)
        try:
            corpus.plant_plain(top)
            case.prepare(Plain(top))
            old = settled(harvest(top, times=True))
            case.do(Plain(top))
            new = settled(harvest(top, times=True))
            for path, thing in new.items():
                if thing.flags & FLAGS.protecting:  # else it could not be removed
                    Plain(top).set_flags(path, 0)
            return Expected(old, new)
        finally:
            shutil.rmtree(top)

    def staged(self) -> list[str]:
        """Return what lies in the staging area."""
        staged = os.listdir(f"{self.dirs.work}/work")
        return [name for name in staged if name != "incompat"]  # it stays until all is whole


def count(field: Field, case: Case, *, reading: bool) -> Gate:
    """Run *case* undisturbed; return the gate that saw its calls."""
    field.fresh()
    gate = Gate(reading=reading)
    with field.client() as client:
        case.prepare(client)
        with gate.armed():
            case.do(client)
    return gate


def undisturbed(field: Field, case: Case, expected: Expected) -> list[str]:
    """Say what is wrong when nothing disturbs *case*."""
    field.fresh()
    with field.client() as client:
        case.prepare(client)
        before = differences(expected.old, settled(client.harvest()))
        case.do(client)
        after = differences(expected.new, settled(client.harvest()))
    with field.client() as client:
        again = differences(expected.new, settled(client.harvest()))
    return [
        *(f"before: {word}" for word in before),
        *(f"after: {word}" for word in after),
        *(f"after remount: {word}" for word in again),
    ]


def judge(expected: Expected, seen: Tree) -> list[str]:
    """Say what makes *seen* neither the old nor the new tree."""
    if seen in expected:
        return []
    old, new = differences(expected.old, seen), differences(expected.new, seen)
    return [f"neither: {word}" for word in min(old, new, key=len)]


def killed(field: Field, case: Case, expected: Expected, gate: Gate) -> list[str]:
    """Let the daemon die at *gate*, mount anew, and say what is wrong then."""
    field.fresh()
    with field.client() as client:
        strike(client, case, gate)
    with field.client() as client:
        seen = settled(client.harvest())
        words = judge(expected, seen) or again(client, case, expected, seen)
        if field.staged():
            words.append(f"left in work: {field.staged()}")
    return words


def strike(client: Client, case: Case, gate: Gate) -> None:
    """Do a case until *gate* lets the daemon die, if it does."""
    case.prepare(client)
    try:
        with gate.armed():
            case.do(client)
    except BaseException as exc:
        if not died(exc):
            raise


def died(exc: BaseException) -> bool:
    """Tell whether *exc* is the simulated death of the daemon."""
    if isinstance(exc, BaseExceptionGroup):
        return exc.split(PowerOff)[1] is None
    return isinstance(exc, PowerOff)


def again(client: Client, case: Case, expected: Expected, seen: Tree) -> list[str]:
    """Do the operation where it was not done, and some others; say what is wrong."""
    try:
        if seen == expected.old != expected.new:
            case.do(client)
        words = differences(expected.new, settled(client.harvest()))
        client.mkdir("after")
        client.create("after/file")
        client.rename("after/file", "after-file")
        client.rmdir("after")
        client.unlink("after-file")
        words += differences(expected.new, settled(client.harvest()))
    except OSError as exc:
        return [f"later operations fail: {exc!r}"]
    return [f"later: {word}" for word in words]


def descriptors() -> set[tuple[str, str]]:
    """Return the open descriptors of this process, and what they are open on."""
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        try:
            found.add((fd, os.readlink(f"/proc/self/fd/{fd}")))
        except OSError:  # the listing's own
            continue
    return found


def kills(calls: int) -> Iterator[tuple[str, Gate]]:
    """Yield a gate for each moment at which the daemon may die in *calls* calls.

    After the last call and before the first are moments too.
    """
    for at in range(1, calls + 1):
        yield f"killed before call {at}", dying_before(at)
        yield f"killed after call {at}", dying_after(at)


def faults(calls: int, errnos: tuple[int, ...], *, more: float = 0) -> Iterator[tuple[str, Gate]]:
    """Yield a gate for each call that may fail, with *more* after it, and each way in which."""
    for at in range(1, calls + 1):
        for number in errnos:
            yield f"{errno.errorcode[number]} at call {at}", failing(at, number, more=more)
