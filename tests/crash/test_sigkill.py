"""kill -9 of a real daemon at each of its modifying calls; and no call goes around the count."""

import os

import pytest

from . import script
from .contender import Place
from .corpus import Case
from .plain import Plain
from .real import Mortal
from .sample import SEED, chosen
from .trees import Tree, differences, harvest
from .trial import Field, judge, settled

_CASES = [
    Case("append f", lambda v: v.append("f", b"more")),
    Case("empty d/deep/y", lambda v: v.empty("d/deep/y")),
    Case("chmod big", lambda v: v.chmod("big", 0o600)),
    Case("unlink m/both", lambda v: v.unlink("m/both")),
    Case("mkdir gone-directory", lambda v: v.mkdir("gone-directory")),
    Case("rename d new", lambda v: v.rename("d", "new")),
    Case("rename f m/both", lambda v: v.rename("f", "m/both")),
    Case("rename d/x t, exchanged", lambda v: v.rename("d/x", "t", 2)),
    Case("link f d/new", lambda v: v.link("f", "d/new")),
]


class Mounts:
    """A union of a field's layers, mounted and killed at will."""

    def __init__(self, field: Field) -> None:
        self.field = field
        lowers, upper, work = field.dirs
        self.union = Mortal(Place(":".join(lowers), upper, work, f"{field.top}/mnt"))
        self.mountpoint = self.union.place.mountpoint
        self.plain = Plain(self.mountpoint)

    def calls(self, do) -> int:
        """Return how many calls the daemon makes for it."""
        self.field.fresh()
        self.union.mount()
        calls = self.union.calls(do)
        self.union.unmount()
        return calls

    def kill(self, at: int, do) -> None:
        """Do it on a fresh upper, have the daemon killed at a call, and mount anew."""
        self.field.fresh()
        self.union.mount()
        self.union.die(at, do)
        self.union.mount()


@pytest.fixture
def mounts(directory):
    mounts = Mounts(Field(directory))
    yield mounts
    mounts.union.end()


@pytest.mark.parametrize("case", _CASES, ids=lambda case: case.name)
def test_a_daemon_killed_at_any_call_leaves_the_old_tree_or_the_new(mounts, case):
    expected = mounts.field.expect(case)
    numbers = range(1, mounts.calls(lambda: case.do(mounts.plain)) + 1)
    for at in chosen([at for number in numbers for at in (number, -number)], share=0.1):
        mounts.kill(at, lambda: case.do(mounts.plain))
        seen = settled(harvest(mounts.mountpoint, times=True))
        assert (SEED, at, judge(expected, seen)) == (SEED, at, [])
        assert (SEED, at, mounts.union.staged()) == (SEED, at, [])
        mounts.union.unmount()
    assert mounts.field.unchanged()


_ACTORS = (script.replace_without_directory, script.account, script.delete_and_make_anew)


def _states(plain: str, actor, monkeypatch) -> list[Tree]:
    """Return what *plain* shows before and after each system call of the actor that changes it."""
    script.plant(plain)
    states = [harvest(plain)]

    def write(fd: int, data: bytes) -> int:
        states.append(harvest(plain))  # open(2) came first, and may have made or emptied the file
        return os_write(fd, data)

    os_write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        for step in script.steps(actor, plain):
            step.do()
            states.append(harvest(plain))
    return states


@pytest.mark.parametrize("actor", _ACTORS, ids=lambda actor: actor.__name__)
def test_a_program_finds_one_of_its_own_states_whenever_the_daemon_was_killed(
    mounts, actor, monkeypatch
):
    """Also without fsync: what the daemon wrote is the kernel's, kill -9 takes none of it."""
    states = _states(f"{mounts.field.top}/plain", actor, monkeypatch)
    script.plant(f"{mounts.field.dirs.lowers[0]}/top")
    steps = script.steps(actor, f"{mounts.mountpoint}/top")

    def work() -> None:
        for step in steps:
            step.do()

    for at in chosen(range(1, mounts.calls(work) + 1), share=0.05):
        mounts.kill(at, work)
        seen = harvest(f"{mounts.mountpoint}/top")
        allowed = seen in states or min((differences(s, seen) for s in states), key=len)
        assert (SEED, at, allowed) == (SEED, at, True)
        mounts.union.unmount()
