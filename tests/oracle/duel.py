"""One example on all stages, and what must hold after each step and at the end."""

import contextlib
import itertools
import os
from collections.abc import Callable
from typing import Any

from hypothesis import note

from . import markers_on_disk
from .known import kernel_may_differ, kernel_says, kernel_tree
from .stages import Mount, Place
from .steps import Player, Step
from .strategies import UPPER, Entry, Stack, stack_of, without_useless_whiteouts
from .trees import (
    FILES,
    OVERLAY,
    PLAIN,
    Harvest,
    Spelling,
    differences,
    fingerprint,
    harvest,
    merged,
    plant,
    walk,
)


class Identity:
    """Which number of the union stands for which object of the plain directory.

    An object that was seen in the plain directory is held by a descriptor, so
    that its number is not given to another one.
    """

    def __init__(self) -> None:
        self.numbers: dict[int, int] = {}  # st_ino of the plain directory -> of the union
        self.devices: set[int] = set()
        self._held: dict[int, int] = {}  # st_ino of the plain directory -> descriptor
        self._pending: list[int] = []

    def plain(self, st: os.stat_result, at: str | int) -> None:
        self._pending.append(st.st_ino)
        if st.st_ino not in self._held:
            follow = 0 if isinstance(at, int) else os.O_NOFOLLOW
            path = f"/proc/self/fd/{at}" if isinstance(at, int) else at
            self._held[st.st_ino] = os.open(path, os.O_PATH | follow)

    def union(self, st: os.stat_result, at: str | int) -> None:
        self.devices.add(st.st_dev)
        assert len(self.devices) == 1, f"st_dev is not one: {self.devices}"
        if self._pending:
            plain = self._pending.pop(0)
            kept = self.numbers.setdefault(plain, st.st_ino)
            assert kept == st.st_ino, f"{at}: st_ino was {kept:x}, is {st.st_ino:x}"

    def forget(self) -> None:
        self._pending.clear()

    def close(self) -> None:
        while self._held:
            os.close(self._held.popitem()[1])

    def compare(self, plain: str, union: str) -> None:
        """Compare two whole trees, and d_ino with st_ino; no number may stand for two."""
        self.forget()
        alive: dict[int, str] = {}  # st_ino -> path
        ones = {path: st for path, _, st in walk(plain)}
        for path, entry, st in walk(union):
            if path not in ones:
                continue
            self.plain(ones[path], os.path.join(plain, path))
            self.union(st, path)
            assert entry is None or entry.inode() == st.st_ino, f"d_ino is not st_ino: {path}"
            other = alive.setdefault(st.st_ino, path)
            same = ones[other].st_ino == ones[path].st_ino
            assert same, f"one st_ino for two objects: {other}, {path}"


class Duel:
    """A plain directory, the union, and where wanted kernel overlayfs, at the same program."""

    def __init__(
        self, place: Place, union: Mount, kernel: Mount | None, spelling: Spelling
    ) -> None:
        self.place = place
        self.union = union
        self.kernel = kernel
        self.spelling = spelling
        self.examples = 0
        self.finished: dict[str, tuple[Harvest, dict[str, int]]] = {}  # name -> tree, st_ino

    def fight(
        self, planned: list[Entry], *programs: list[Step], between: Callable[[], None]
    ) -> None:
        """Play the programs, with *between* called between them; raise where anything differs."""
        note("\n".join(["", *map(str, planned), *map(str, itertools.chain(*programs)), ""]))
        name = f"e{self.examples:06}"
        self.examples += 1
        stack = stack_of(planned)
        if self.spelling is FILES:  # overlayfs lists such a whiteout that nothing lies below
            stack = without_useless_whiteouts(stack)
        self._plant(name, stack)
        lowers = [fingerprint(os.path.join(lower, name)) for lower in self.place.lowers]
        with contextlib.closing(Identity()) as identity:
            for number, program in enumerate(programs):
                if number:
                    between()
                    identity.devices.clear()  # a mount has its own
                self._play(name, program, identity)
                self._compare(name, identity)
                markers_on_disk.check(
                    os.path.join(self.union.upper, name), merged(stack[UPPER + 1 :]), self.spelling
                )
        after = [fingerprint(os.path.join(lower, name)) for lower in self.place.lowers]
        assert lowers == after, "a lower layer was changed"
        assert not self.union.leftovers(), f"work is not empty: {self.union.leftovers()}"
        self.finished[name] = self._look_again(name)

    def check_finished(self) -> None:
        """Check that every example looks as it did when it ended: for after a remount."""
        for name, old in self.finished.items():
            tree, numbers = self._look_again(name)
            assert not differences(old[0], tree), (name, differences(old[0], tree))
            assert numbers == old[1], (name, "st_ino changed")

    def _look_again(self, name: str) -> tuple[Harvest, dict[str, int]]:
        root = os.path.join(self.union.target, name)
        return harvest(root), {path: st.st_ino for path, _, st in walk(root)}

    def _plant(self, name: str, stack: Stack) -> None:
        uppers = [self.union.upper] + ([self.kernel.upper] if self.kernel else [])
        places = [(lower, layer) for lower, layer in zip(self.place.lowers, stack[1:], strict=True)]
        places += [(upper, stack[UPPER]) for upper in uppers]
        for directory, layer in places:
            if layer is not None:
                spelling = self.spelling
                if spelling is FILES and layer in (stack[UPPER], stack[-1]):
                    spelling = OVERLAY  # only the layers between have something to hide this way
                plant(os.path.join(directory, name), layer, spelling)
        plant(os.path.join(self.place.plain, name), merged(stack), PLAIN)

    def _play(self, name: str, program: list[Step], identity: Identity) -> None:
        players = [
            Player(os.path.join(self.place.plain, name), identity.plain),
            Player(os.path.join(self.union.target, name), identity.union),
        ]
        if self.kernel:
            players.append(Player(os.path.join(self.kernel.target, name), forgiving=True))
        try:
            for number, step in enumerate(program):
                identity.forget()
                said = []
                for player in players:
                    try:
                        said.append(player.play(step))
                    except AssertionError as exc:
                        raise AssertionError(f"step {number}, {step}: {exc}") from None
                self._judge(number, step, said)
        finally:
            for player in players:
                player.close()

    def _judge(self, number: int, step: Step, said: list[Any]) -> None:
        plain, union, *kernel = said
        assert union == plain, (
            f"step {number}, {step}: union {union!r:.300}, plain {plain!r:.300}\n{self.union.log()}"
        )
        if kernel and not kernel_may_differ(step, plain, kernel[0]):
            says = kernel_says(step, kernel[0])
            assert says == plain, (
                f"step {number}, {step}: overlayfs {says!r:.300}, plain {plain!r:.300}"
            )

    def _compare(self, name: str, identity: Identity) -> None:
        plain = harvest(os.path.join(self.place.plain, name))
        found = differences(plain, harvest(os.path.join(self.union.target, name)))
        assert not found, "\n".join(["the union's tree differs from the plain one:", *found])
        identity.compare(
            os.path.join(self.place.plain, name), os.path.join(self.union.target, name)
        )
        if self.kernel:
            # Overlayfs lists a whiteout in a directory that nothing lies below.
            seen = harvest(os.path.join(self.kernel.target, name), forgiving=True)
            found = differences(kernel_tree(plain, seen), seen)
            assert not found, "\n".join(["overlayfs's tree differs from the plain one:", *found])
