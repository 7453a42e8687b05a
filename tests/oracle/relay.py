"""Uppers that pass from hand to hand: what one writes, the other mounts, and writes on.

Many examples share each mount, for mounting costs more than all else.
"""

import os
from collections.abc import Iterator
from typing import NamedTuple

from hypothesis import strategies as st

from .examples import for_all
from .known import kernel_may_differ, kernel_says, kernel_tree
from .stages import KERNEL, Mount, Place
from .steps import Player, Step
from .strategies import Entry, entries, programs, stack_of
from .trees import OVERLAY, PLAIN, Harvest, differences, harvest, merged, mtime_of, plant

US = "unionfs"
THEM = "overlay"


class Turn(NamedTuple):
    """Who has the upper next, and whether it is changed or only looked at."""

    who: str
    plays: bool
    options: tuple[str, ...] = ()


class Runner(NamedTuple):
    """One example: what was planned, for messages, and a program for each turn that plays."""

    name: str
    planned: list[Entry]
    programs: list[list[Step]]

    def __str__(self) -> str:
        lines = [self.name, *map(str, self.planned)]
        for program in self.programs:
            lines += ["--", *map(str, program)]
        return "\n".join(lines)


def draw(count: int, turns: list[Turn], seed: int, *, links: bool = True) -> list[Runner]:
    """Draw examples, without links between lower files: those take an index to be kept.

    *links*: programs may make some in upper.  Kernel overlayfs without `index=on`
    breaks them where they are in a lower (overlayfs.rst, "Non-standard behavior").
    """
    drawn: list[Runner] = []
    wanted = st.tuples(*[programs(files=False, links=links)] * sum(turn.plays for turn in turns))

    @for_all(count, entries(links=False), wanted, shrink=False, seed=seed)
    def take(planned, played):
        drawn.append(Runner(f"e{len(drawn):06}", planned, list(played)))

    take()
    return drawn


def plant_all(place: Place, upper: str, runners: list[Runner]) -> None:
    """Make the layers of all examples, and the plain directories."""
    for runner in runners:
        stack = stack_of(runner.planned)
        directories = [upper, *place.lowers]
        for directory, layer in zip(directories, stack, strict=True):
            if layer is not None:
                plant(os.path.join(directory, runner.name), layer, OVERLAY)
        plant(os.path.join(place.plain, runner.name), merged(stack), PLAIN)


def run(place: Place, mount: Mount, runners: list[Runner], turns: list[Turn]) -> None:
    """Let one after the other mount the upper, look at all trees, and play where it is to play."""
    round_of = 0
    for number, turn in enumerate(turns):
        mount.mount(turn.who, *turn.options)
        for runner in runners:
            where = f"turn {number}, {turn.who}: {runner}"
            _compare(place, mount, runner, turn.who, f"at the beginning of {where}")
            if turn.plays:
                for wrong in _play(place, mount, runner, turn.who, runner.programs[round_of]):
                    raise AssertionError(f"{wrong}, in {where}")
                _compare(place, mount, runner, turn.who, f"at the end of {where}")
        mount.umount(turn.who)
        round_of += turn.plays


def _compare(place: Place, mount: Mount, runner: Runner, who: str, when: str) -> None:
    plain = os.path.join(place.plain, runner.name)
    seen = harvest(os.path.join(mount.target, runner.name), forgiving=who == THEM)
    expected = harvest(plain)
    if who == THEM:
        expected = kernel_tree(expected, seen)
    found = differences(expected, seen)
    assert not found, "\n".join([*found, when])
    if who == THEM:
        _take_new_times(plain, expected)


def _take_new_times(plain: str, expected: Harvest) -> None:
    """Let the plain directory have the new times that are overlayfs's own, for the next turn."""
    for path, thing in expected.items():
        at = os.path.join(plain, path)
        if not thing.mtime and mtime_of(os.lstat(at)):
            os.utime(at, follow_symlinks=False)


def _play(
    place: Place, mount: Mount, runner: Runner, who: str, program: list[Step]
) -> Iterator[str]:
    plain = Player(os.path.join(place.plain, runner.name))
    other = Player(os.path.join(mount.target, runner.name), forgiving=who == THEM)
    for number, step in enumerate(program):
        right, said = plain.play(step), other.play(step)
        if who == THEM:
            said = kernel_says(step, said)
        if said != right and not (who == THEM and kernel_may_differ(step, right, said)):
            yield f"step {number}, {step}: {said!r:.300}, plain {right!r:.300}"


WITH = {US: (), THEM: KERNEL}


def turns(*who: str) -> list[Turn]:
    """Return turns with redirects and metadata-only copies; the last one only looks."""
    made = [Turn(one, plays=True, options=WITH[one]) for one in who]
    return [*made[:-1], made[-1]._replace(plays=False)]
