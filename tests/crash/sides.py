"""Two writable sides on trial: files cross while the daemon dies, or its calls fail.

State has what the corpus has in upper, and the rules say so; scratch begins empty.  After a death
scratch is emptied, as a boot does: what persists is that of before or of after, and all else is the
lower's.
"""

import os
import shutil
from collections.abc import Iterator

from tests.layers import opened
from unionfs.changes import scaffolds
from unionfs.host.syscalls import RENAME_EXCHANGE
from unionfs.layers.layer import WritableLayer
from unionfs.layers.persistence import Rules
from unionfs.layers.stack import Stack, State
from unionfs.view.sides import TwoSided
from unionfs.view.union import Features, Union

from . import corpus
from .client import Client, Dirs
from .corpus import Case
from .gate import Gate
from .trees import Tree, differences
from .trial import Expected, Field, settled, strike

RULES = Rules.parse(("/u*", "/m", "/me", "/o", "/gone*"))


class SidedClient(Client):
    """The verbs over two sides."""

    def __init__(
        self, dirs: Dirs, features: Features, state: tuple[str, str], rules: Rules = RULES
    ) -> None:
        self._state = state
        self._rules = rules
        super().__init__(dirs, features)
        assert isinstance(self.union, TwoSided)
        scaffolds.make_again(self.union, self.operations.changes)

    def joined(self, stack: Stack, features: Features) -> Union:
        layers = [
            WritableLayer(fd, name=path)
            for fd, path in zip(opened(*self._state), self._state, strict=True)
        ]
        return TwoSided(stack, State(layers[0], layers[1], self._rules), features)


class SidedField(Field):
    """A directory in which cases are tried with two sides; state is on *disk*."""

    def __init__(self, top: str, features: Features, disk: str) -> None:
        super().__init__(top, features)
        self.state = (f"{disk}/state", f"{disk}/state-work")
        self.initial = self.expect(Case("nothing", lambda _verbs: None)).old

    def fresh(self) -> None:
        self.reboot()
        for path in self.state:
            shutil.rmtree(path, ignore_errors=True)
            os.mkdir(path)
        corpus.plant_upper(self.state[0])

    def reboot(self) -> None:
        """Empty scratch."""
        for path in self.dirs[1:]:
            shutil.rmtree(path, ignore_errors=True)
            os.mkdir(path)

    def client(self) -> SidedClient:
        return SidedClient(self.dirs, self.features, self.state)

    def kept(self, tree: Tree) -> Tree:
        """Return what a reboot leaves of a tree; links of the other side are gone."""
        return bare(
            {
                path: thing
                for source, persists in ((self.initial, False), (tree, True))
                for path, thing in source.items()
                if RULES.at(os.fsencode(path)).persisted == persists
            }
        )

    def staged(self) -> list[str]:
        works = (self.dirs.work, self.state[1])
        return [name for work in works for name in os.listdir(f"{work}/work")]


def bare(tree: Tree) -> Tree:
    """Return a tree without the numbers of links."""
    return {path: thing._replace(links=1) for path, thing in tree.items()}


def crossings() -> Iterator[Case]:
    """Yield what takes files, and their names, to the other side."""
    renames = (
        ("f", "u"), ("big", "unew"), ("u", "f"), ("u", "new"), ("t", "m/up"), ("m/low", "f"),
        ("u1", "f"), ("h1", "unew"), ("s", "usymlink"), ("dev", "udevice"), ("fifo", "u"),
        ("d/x", "u1"), ("m/both", "e/both"), ("f", "gone"),
    )  # fmt: skip
    for old, new in renames:
        yield Case(f"rename {old} {new}", _call("rename", old, new))
    for old, new in (("f", "ulink"), ("u", "link"), ("big", "m/new"), ("m/low", "d/link")):
        yield Case(f"link {old} {new}", _call("link", old, new))
    for old, new in (("f", "u"), ("m/up", "big")):
        yield Case(f"exchange {old} {new}", _call("rename", old, new, RENAME_EXCHANGE))
    for old, new in (("u", "f"), ("m/up", "f"), ("u", "e/new")):
        changed = _call("append", "f", b"more")
        yield Case(f"f changed, then rename {old} {new}", _call("rename", old, new), changed)
    begun = _call("overwrite", "big", b"new")  # in part, where scratch takes blocks
    for call in (
        ("rename", "big", "unew"), ("rename", "big", "u"), ("link", "big", "ulink"),
        ("rename", "m/up", "big", RENAME_EXCHANGE), ("rename", "u", "big"),
    ):  # fmt: skip
        yield Case(f"big changed, then {' '.join(map(str, call))}", _call(*call), begun)
    linked = _call("link", "u", "a")
    for call in (
        ("unlink", "u"), ("rename", "u", "b"), ("rename", "a", "ub"), ("rename", "f", "u"),
        ("rename", "m/up", "u"), ("rename", "f", "a"), ("rename", "m/up", "a"), ("unlink", "a"),
        ("append", "a", b"more"), ("link", "a", "uc"), ("link", "u", "c"),
    ):  # fmt: skip
        yield Case(f"linked across, then {' '.join(map(str, call))}", _call(*call), linked)
    yield Case("one of two of scratch", _call("rename", "f", "ub"), _call("link", "f", "a"))


def _call(verb, *args):
    return lambda verbs: getattr(verbs, verb)(*args)


def killed(field: SidedField, case: Case, expected: Expected, gate: Gate) -> list[str]:
    """Let the daemon die at *gate*, reboot, and say what is wrong then."""
    field.fresh()
    with field.client() as client:
        strike(client, case, gate)
    old, new = map(field.kept, expected)
    seen = rebooted(field)
    words = [] if seen in (old, new) else min(differences(old, seen), differences(new, seen))
    return [*words, *(f"left in work: {name}" for name in field.staged())]


def rebooted(field: SidedField) -> Tree:
    """Return what a reboot leaves."""
    field.reboot()
    with field.client() as client:
        return bare(settled(client.harvest()))


def failed(field: SidedField, case: Case, expected: Expected, gate: Gate) -> list[str]:
    """Let a call fail at *gate*; say what is wrong at once, and after a reboot."""
    field.fresh()
    with field.client() as client:
        client.keep()
        case.prepare(client)
        words = [f"before: {word}" for word in _differ(expected.old, client)]
        promised = expected.new
        try:
            with gate.armed():
                case.do(client)
        except OSError:
            promised = expected.old
        words += _differ(promised, client, tidied=not gate.tidying)
        client.forget()
        found = _differ(promised, client, tidied=not gate.tidying)
        words += [f"forgotten: {word}" for word in found]
    found = differences(field.kept(promised), rebooted(field))
    return [*words, *(f"after a reboot: {word}" for word in found)]


def _differ(expected: Tree, client: Client, *, tidied: bool = True) -> list[str]:
    """Say what is other than expected; what is left in work until the next mount is a link."""
    seen = settled(client.harvest())
    return differences(expected, seen) if tidied else differences(bare(expected), bare(seen))
