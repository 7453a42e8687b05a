"""Which paths persist: the rules of a union with two writable layers, free of any I/O.

Changes under a persisted path go to the layer *state*, which stays; all others go to
*scratch*, which is wiped.  A rule is an absolute path, in which each component may
be a glob as fnmatch(3) has it; it speaks of the path and of all below it, whether or not
anything is there.  `!PATH` takes a path out again.  Of all rules that speak of a path, the
last one decides.  This is the law; a test shows that the tree here agrees with it:

    persisted(path) = the last rule that matches path or one of its parents persists

The rules are kept as a tree of components, which is walked together with the union's own
tree: a `RuleNode` is what the rules say at one path and below it.  A name costs one look into
a dictionary, and one match for each glob in its place.
"""

import fnmatch
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple


class _Verdict(NamedTuple):
    """What a rule says; a verdict of higher order outweighs the others."""

    order: int  # of the rules, from 1; 0: no rule has spoken
    persists: bool


_UNSAID = _Verdict(0, persists=False)


@dataclass(slots=True, eq=False)
class _Branch:
    """The rules that have their first components in common."""

    verdict: _Verdict = _UNSAID  # of the rule that ends here
    literals: "dict[bytes, _Branch]" = field(default_factory=dict)  # name -> those below it
    globs: "dict[str, _Glob]" = field(default_factory=dict)  # the glob as written -> those below it
    last_to_keep: int = 0  # the highest order of the rules below here that make something persist
    last_to_drop: int = 0  # the highest order of those that take something out

    def below(self, name: bytes) -> "Iterator[_Branch]":
        """Yield the branches that go on under *name*."""
        literal = self.literals.get(name)
        if literal is not None:
            yield literal
        for glob in self.globs.values():
            if glob.pattern.match(os.fsdecode(name)):
                yield glob.branch

    def grow(self, component: str) -> "_Branch":
        """Return the branch of a rule's next component; a new component gets a new branch."""
        if not _is_glob(component):
            return self.literals.setdefault(os.fsencode(component), _Branch())
        if component not in self.globs:
            pattern = re.compile(fnmatch.translate(component))
            self.globs[component] = _Glob(pattern, _Branch())
        return self.globs[component].branch

    def may_change(self, verdict: _Verdict) -> bool:
        """Tell whether a rule below here says the contrary of *verdict*, and outweighs it."""
        last = self.last_to_drop if verdict.persists else self.last_to_keep
        return last > verdict.order

    def may_speak(self, verdict: _Verdict) -> bool:
        """Tell whether a rule below here outweighs *verdict*, whatever it says."""
        return max(self.last_to_drop, self.last_to_keep) > verdict.order


class _Glob(NamedTuple):
    pattern: re.Pattern[str]
    branch: _Branch


@dataclass(frozen=True, slots=True)
class RuleNode:
    """What the rules say of one path."""

    persisted: bool  # the path itself belongs to state
    leads: bool  # something below it may belong to the other side
    _verdict: _Verdict
    _branches: tuple[_Branch, ...]

    def child(self, name: bytes) -> "RuleNode":
        """Return what the rules say of *name* in this directory."""
        if not self.leads:
            return self
        verdict = self._verdict
        found: list[_Branch] = []
        for branch in self._branches:
            for below in branch.below(name):
                found.append(below)
                verdict = max(verdict, below.verdict)
        return _node(verdict, found)


# The nodes of all paths below which no rule changes anything.
ALL_PERSISTS = RuleNode(persisted=True, leads=False, _verdict=_UNSAID, _branches=())
NOTHING_PERSISTS = RuleNode(persisted=False, leads=False, _verdict=_UNSAID, _branches=())


def _node(verdict: _Verdict, branches: Iterable[_Branch]) -> RuleNode:
    # One that says the same may be what another, which says the contrary, is to outweigh later.
    heard = tuple(branch for branch in branches if branch.may_speak(verdict))
    if any(branch.may_change(verdict) for branch in heard):
        return RuleNode(verdict.persists, leads=True, _verdict=verdict, _branches=heard)
    return ALL_PERSISTS if verdict.persists else NOTHING_PERSISTS


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of a mount; without any, nothing persists."""

    texts: tuple[str, ...]  # in the order given, each in its shortest form
    root: RuleNode = field(compare=False)

    @classmethod
    def parse(cls, texts: Iterable[str]) -> "Rules":
        """Read rules, a path or `!PATH` each; the last that speaks of a path decides.

        ValueError says which is bad, and what would be right.
        """
        trunk = _Branch()
        shortest: list[str] = []
        for order, text in enumerate(texts, 1):
            persists, components = _read(text)
            _add(trunk, components, _Verdict(order, persists))
            shortest.append(("" if persists else "!") + "/" + "/".join(components))
        return cls(tuple(shortest), _node(_UNSAID, [trunk]))

    def at(self, path: bytes) -> RuleNode:
        """Return what the rules say of a path: relative to the root, b"." or b"" for the root."""
        node = self.root
        for name in path.split(b"/"):
            if name not in {b"", b"."}:
                node = node.child(name)
        return node

    def __bool__(self) -> bool:
        return bool(self.texts)


def _add(trunk: _Branch, components: list[str], verdict: _Verdict) -> None:
    branch = trunk
    for component in components:
        if verdict.persists:
            branch.last_to_keep = verdict.order
        else:
            branch.last_to_drop = verdict.order
        branch = branch.grow(component)
    branch.verdict = verdict


def _read(text: str) -> tuple[bool, list[str]]:
    """Return whether a rule makes something persist, and the components of its path."""
    mark = "!" if text.startswith("!") else ""
    path = text.removeprefix("!")
    if not path:
        raise ValueError(f"bad rule '{text}': it names no path; say {mark}/PATH")
    if not path.startswith("/"):
        raise ValueError(f"bad rule '{text}': the path is not absolute; say '{mark}/{path}'")
    components = [component for component in path.split("/") if component not in {"", "."}]
    if not components:
        raise ValueError(f"bad rule '{text}': the root is of both sides; say '{mark}/*' for all")
    for component in components:
        trouble = _trouble(component)
        if trouble:
            raise ValueError(f"bad rule '{text}': {trouble}")
    return not mark, components


def _trouble(component: str) -> str | None:
    """Say why a component can name nothing, or None."""
    if component == "..":
        return "'..' is not followed; say the path without it"
    if "\0" in component:
        return "no path has a NUL in it; leave it out"
    try:
        os.fsencode(component)
    except UnicodeEncodeError:
        return f"{component!a} cannot be a file's name; say it in UTF-8"
    if "**" in component:
        return "'**' is not known; a directory's rule holds for all below it, and '*' for one name"
    return _bracket_trouble(component)


# What may be special in a component.  `[` begins a set, which may have `!` and `]` for its first.
_SPECIAL = re.compile(r"[*?\[]")
_SET = re.compile(r"\[(!?+\]?+[^\]]*)\]|\[")


def _is_glob(component: str) -> bool:
    return _SPECIAL.search(component) is not None


def _bracket_trouble(component: str) -> str | None:
    for found in _SET.finditer(component):
        if found[1] is None:
            return "'[' has no ']'; say '[[]' for the character itself"
        for first, last in re.findall(r"(.)-(.)", found[1].removeprefix("!"), re.DOTALL):
            if first > last:
                return f"'{first}-{last}' runs backwards; say '{last}-{first}'"
    return None
