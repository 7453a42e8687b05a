"""kill -9 of the daemon at each of its modifying calls for a real program.

The program may die with its root, or notice; then the union is mounted anew.
"""

import os
import shutil
import stat

import pytest

from unionfs.audit.examination import Examination
from unionfs.mounting import opening
from unionfs.mounting.options import Options

from .accounts import ACCOUNTS
from .contender import Place
from .programs import Program, inside, read
from .real import Mortal
from .sample import SEED, chosen
from .tools import TOOLS
from .trees import harvest

_PROGRAMS = (*ACCOUNTS, *TOOLS)
# With passthrough the kernel writes to new files by itself; without, that is the daemon's too.
_OPTIONS = ((), ("passthrough=off",))
_PLACES = ("directory", "disk")  # fixtures: a tmpfs, and ext4, where the daemon syncs more
_SHARE = 0.008


class Stage:
    """A union of what a program finds and of this machine's root, made fresh at will."""

    def __init__(self, top: str, program: Program, *options: str) -> None:
        self.program = program
        self.lower, self.upper, self.work = (f"{top}/{name}" for name in ("lower", "upper", "work"))
        os.mkdir(self.lower)
        os.mkdir(f"{self.lower}/dev")
        for name, minor in (("null", 3), ("urandom", 9)):
            os.mknod(f"{self.lower}/dev/{name}", stat.S_IFCHR | 0o666, os.makedev(1, minor))
        program.plant(self.lower)
        self.planted = harvest(self.lower, times=True)
        place = Place(f"{self.lower}:/", self.upper, self.work, f"{top}/mnt")
        self.union = Mortal(place, *options)
        self.root = place.mountpoint
        self.printed = ""

    def fresh(self) -> None:
        for path in (self.upper, self.work):
            shutil.rmtree(path, ignore_errors=True)
            os.mkdir(path)

    def run(self) -> None:
        done = inside(self.root, self.program.script)
        self.printed = done.out
        if done.status != 0:
            raise OSError(f"{self.program.name}: status {done.status}: {done.err}")

    def calls(self) -> int:
        """Run the program undisturbed; return how many calls the daemon made for it."""
        self.fresh()
        self.union.mount()
        calls = self.union.calls(self.run)
        words = self.program.done(self.root)
        self.union.unmount()
        assert words + self.examined() == []
        return calls

    def killed(self, at: int) -> tuple[list[bool], list[str]]:
        """Kill the daemon at a call; tell which files are replaced, and what is wrong."""
        self.fresh()
        self.union.mount()
        self.union.die(at, self.run)
        self.union.mount()
        words = [f"left in work: {name}" for name in self.union.staged()]
        replaced = self.replaced()
        words += self.program.whole(self.root, self.printed)
        self.union.unmount()
        return replaced, words + self.examined()

    def replaced(self) -> list[bool]:
        """Tell of each file that the program replaces whether it is another one by now."""
        return [
            read(f"{self.root}/{name}") != read(f"{self.lower}/{name}")
            for name in self.program.replaced
        ]

    def again(self) -> list[str]:
        """Mount, clean up as the documentation says, and run the program; say what is wrong."""
        self.union.mount()
        try:
            inside(self.root, self.program.recover)
            self.run()
            words = self.program.done(self.root)
        except OSError as exc:
            words = [f"again: {exc}"]
        self.union.unmount()
        return words + self.examined()

    def examined(self) -> list[str]:
        """Say what `unionfs check` finds while the upper is not mounted."""
        here = os.open(".", os.O_RDONLY)
        stack = opening.open_stack(
            Options(lowers=(self.lower, "/"), upper=self.upper, work=self.work)
        )
        try:
            found = Examination(stack.upper, stack.work, stack.lowers, "overlay").run()
        finally:
            stack.close()
            os.fchdir(here)
            os.close(here)
        return [f"check: {problem.where} {problem.path!r}: {problem.words}" for problem in found]


@pytest.fixture(params=_PROGRAMS, ids=lambda program: program.name)
def stage(request):
    """Return the stage of each program; the seed says which gets which options and which place."""
    number = SEED + _PROGRAMS.index(request.param)
    place = request.getfixturevalue(_PLACES[number // 2 % 2])
    stage = Stage(place, request.param, *_OPTIONS[number % 2])
    yield stage
    stage.union.end()
    assert harvest(stage.lower, times=True) == stage.planted


def test_a_program_leaves_each_file_old_or_new_and_succeeds_when_it_is_run_again(stage):
    calls = stage.calls()
    moments = chosen([at for number in range(1, calls + 1) for at in (number, -number)], _SHARE)
    on = stage.union
    print(f"{on.place.upper} {on.options}: {calls} calls, {len(moments)} kills")  # noqa: T201
    before = [False] * len(stage.program.replaced)
    for at in sorted(moments, key=lambda at: (abs(at), at < 0)):
        replaced, words = stage.killed(at)
        lost = [
            f"{name} was new at an earlier call, and is the lower one"
            for name, then, now in zip(stage.program.replaced, before, replaced, strict=True)
            if then and not now
        ]
        before = replaced
        assert (SEED, at, words + lost) == (SEED, at, [])
        assert (SEED, at, stage.again()) == (SEED, at, [])
