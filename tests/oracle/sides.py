"""A union with two writable sides beside a plain directory, and after a reboot.

The rules are those of one mount, and each example lies in a directory of its own, so all begin with
`/e*`.  Directories do not cross (docs/limits.md): such a rename is not played in the plain
directory.  After a reboot scratch is empty, and what is there follows from the rules.
"""

import contextlib
import os
import random
import stat
from itertools import chain
from typing import Any

from hypothesis import note

from unionfs.host.syscalls import RENAME_EXCHANGE
from unionfs.layers.persistence import RuleNode, Rules

from .duel import Duel, Identity
from .stages import Mount, Place
from .steps import Player, Step
from .strategies import UPPER, Entry, stack_of
from .trees import OVERLAY, Harvest, Seen, differences, harvest

_PARTS = ("a", "b", "c", "*", "[ab]")


# Files of one side among those of the other, whole directories, and both, one in the other.
RULES = (
    ("/e*/b", "/e*/*/b"),
    ("/e*/a", "!/e*/a/b", "/e*/c"),
    ("/e*/*", "!/e*/b", "!/e*/a/a/a"),
)


def random_rules(seed: int) -> tuple[str, ...]:
    """Return rules for paths of the examples, some of which take paths out again."""
    chance = random.Random(seed)
    rules = []
    for number in range(chance.randint(2, 5)):
        path = "/".join(chance.choice(_PARTS) for _ in range(chance.choice((1, 2, 2, 3))))
        rules.append(("!" if number and chance.random() < 0.3 else "") + f"/e*/{path}")
    return tuple(rules)


class SidedMount(Mount):
    """A union with a scratch in RAM, whose `upper` is its state."""

    def __init__(self, place: Place, rules: tuple[str, ...]) -> None:
        name = os.path.join(place.disk, "sided")
        super().__init__(
            os.path.join(place.top, "sided"), place.lowers, name + "/state", name + "/work"
        )
        self.rules = rules

    def mount(self, kind: str, *options: str) -> None:
        """Mount with us."""
        del kind
        sides = f"ram,statedir={self.upper},stateworkdir={self.work},persist={':'.join(self.rules)}"
        self._start(",".join([f"lowerdir={':'.join(self.lowers)}", sides, *options]))


class SidedDuel(Duel):
    """A plain directory and a union with two sides at the same program."""

    def __init__(self, place: Place, union: SidedMount) -> None:
        super().__init__(place, union, None, OVERLAY)
        self.rules = Rules.parse(union.rules)
        self.left: dict[str, Harvest] = {}  # name -> what is to be there after a reboot

    def fight(self, planned: list[Entry], *programs: list[Step], between: Any = None) -> None:
        """Play the programs; raise where anything differs."""
        del between
        note(
            "\n".join(["", *self.rules.texts, *map(str, planned), *map(str, chain(*programs)), ""])
        )
        name = f"e{self.examples:06}"
        self.examples += 1
        self._plant(name, stack_of([_in_lower(entry) for entry in planned]))
        before = harvest(os.path.join(self.union.target, name))
        with contextlib.closing(Identity()) as identity:
            for program in programs:
                self._play(name, program, identity)
            self._compare(name, identity)
        assert not self.union.leftovers(), f"work is not empty: {self.union.leftovers()}"
        after = harvest(os.path.join(self.place.plain, name))
        self.left[name] = kept(before, after, self.rules.at(os.fsencode(name)))

    def _play(self, name: str, program: list[Step], identity: Identity) -> None:
        plain = Player(os.path.join(self.place.plain, name), identity.plain)
        union = Player(os.path.join(self.union.target, name), identity.union)
        with contextlib.closing(plain), contextlib.closing(union):
            for number, step in enumerate(program):
                identity.forget()
                if step.verb == "rename" and self._refuses(name, plain, step):
                    said = union.play(step)
                    # What the host refuses to anybody comes first, and changes neither.
                    others = "EXDEV" if said == "EXDEV" else plain.play(step)
                    assert said == others, f"step {number}, {step}: {said!r}, not EXDEV"
                    continue
                right = plain.play(step)
                self._judge(number, step, [right, union.play(step)])

    def _refuses(self, name: str, plain: Player, step: Step) -> bool:
        """Tell whether a rename that the plain directory may carry out is EXDEV in the union."""
        old, new = (_true_path(plain.root, path) for path in step.args[:2])
        flags = step.args[2]
        rules = [self.rules.at(os.fsencode(os.path.join(name, path))) for path in (old, new)]
        across = rules[0].persisted != rules[1].persisted
        if not across and not rules[0].leads and not rules[1].leads:
            return False
        found = [_find(os.path.join(plain.root, path)) for path in (old, new)]
        if found[0] is None or not all(_parent_is_there(plain.root, path) for path in (old, new)):
            return False
        # Some the kernel itself refuses.
        if found[1] is None and flags == RENAME_EXCHANGE:
            return False
        if found[1] is not None and flags != RENAME_EXCHANGE:
            over = stat.S_ISDIR(found[1].st_mode)
            if flags or stat.S_ISDIR(found[0].st_mode) != over:
                return False
        crossing = found if flags == RENAME_EXCHANGE and found[1] is not None else found[:1]
        if any(st is not None and stat.S_ISDIR(st.st_mode) for st in crossing):
            return not old.startswith(new + "/") and not new.startswith(old + "/") and old != new
        same = found[1] is not None and os.path.samestat(*found)
        exchanged = across and not same and len(crossing) > 1
        return exchanged and any(st is not None and st.st_nlink > 1 for st in crossing)

    def check_reboot(self) -> None:
        """Check that after a reboot what the rules say is there, and nothing else."""
        for name, expected in self.left.items():
            found = harvest(os.path.join(self.union.target, name))
            wrong = differences(expected, _without_links(found, expected))
            assert not wrong, "\n".join([f"{name}, rules {self.rules.texts}:", *wrong])


def _in_lower(entry: Entry) -> Entry:
    return entry._replace(layer=max(entry.layer, UPPER + 1))


def _find(path: str) -> os.stat_result | None:
    with contextlib.suppress(OSError):
        return os.lstat(path)
    return None


def _true_path(root: str, path: str) -> str:
    """Return a path below *root* that leads through no symlink."""
    parent, name = os.path.split(os.path.join(root, path))
    return os.path.relpath(os.path.join(os.path.realpath(parent), name), os.path.realpath(root))


def _parent_is_there(root: str, path: str) -> bool:
    st = _find(os.path.dirname(os.path.join(root, path)))
    return st is not None and stat.S_ISDIR(st.st_mode)


# What a reboot leaves


def kept(before: Harvest, after: Harvest, rule: RuleNode) -> Harvest:
    """Return the tree after a reboot: *after* where the rules say persisted, else *before*.

    A directory that leads to what persists is there in any case.  Links are not compared: those of
    the other side are gone; nor are all attributes of a directory that is made again.
    """
    found: Harvest = {"": before[""]}
    for path in sorted(before.keys() | after.keys(), key=lambda path: path.split("/")):
        parent = os.path.dirname(path)
        if not path or parent not in found or not _is_directory(found[parent]):
            continue
        here = _rule(rule, path)
        thing = (after if here.persisted else before).get(path)
        if not here.persisted and (thing is None or not _is_directory(thing)):
            thing = _made_again(path, after, rule) or thing
        if thing is not None:
            found[path] = thing._replace(links=0)
    return found


def _rule(rule: RuleNode, path: str) -> RuleNode:
    for name in path.split("/"):
        rule = rule.child(os.fsencode(name))
    return rule


def _is_directory(thing: Seen) -> bool:
    return stat.S_ISDIR(thing.mode)


def _made_again(path: str, after: Harvest, rule: RuleNode) -> Seen | None:
    below = (inner for inner in after if inner.startswith(path + "/"))
    if path in after and any(_rule(rule, inner).persisted for inner in below):
        return Seen(stat.S_IFDIR, 0, 0, 0, 0, 0, 0, b"", ())
    return None


def _without_links(found: Harvest, expected: Harvest) -> Harvest:
    """Return what was found, as far as it is compared."""
    bare = Seen(stat.S_IFDIR, 0, 0, 0, 0, 0, 0, b"", ())
    return {
        path: bare
        if path in expected and expected[path] == bare and _is_directory(thing)
        else thing._replace(links=0)
        for path, thing in found.items()
    }
