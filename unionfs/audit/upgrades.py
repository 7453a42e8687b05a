"""Which persisted paths hide something new, as the lowers have been upgraded since.

dpkg asks such a question about a configuration file: "yours, or the package's?".  This module only
finds the paths about which to ask.  For each path that state changes, it compares what the lowers
have there now with what they had when the path was first changed (`firsts`).
"""

import enum
from collections.abc import Iterator
from typing import NamedTuple

from unionfs.audit import sides
from unionfs.audit.comparison import Change
from unionfs.layers import firsts
from unionfs.layers.stack import Stack, State
from unionfs.view.lookup_result import LookupResult
from unionfs.view.node import directory_of
from unionfs.view.union import Features, Union


class Below(enum.Enum):
    """What the lowers have under a persisted path now; the value is the wording."""

    SAME = ""
    NEW = "differs from the new lower"
    GONE = "gone from the lower"
    UNKNOWN = "the lower has one, too; what it had before is not known"
    NOTHING = "only here"


class Persisted(NamedTuple):
    """A persisted path that is not what the lowers have."""

    change: Change
    below: Below

    def line(self) -> str:
        """Return the line for people."""
        return self.change.line() + (f"; {self.below.value}" if self.below.value else "")


def persisted(state: State, stack: Stack) -> Iterator[Persisted]:
    """Yield the persisted paths that state changes, in order; directories only where they are new.

    Directories that only lead to such a path (scaffolds) are left out.
    """
    lowers = Union(Stack(None, None, stack.lowers), Features())
    for change in sides.of_state(state, stack):
        below = _below(state, lowers, change.path)
        shows = below is Below.NEW and not _hides_content(change)
        yield Persisted(change, Below.SAME if shows else below)


# The detail of a change that leaves the lower's content.
_METADATA = ("mode ", "owner ", "mtime", "attributes ", "flags ")


def _hides_content(change: Change) -> bool:
    said = change.detail.split(", ")
    return change.kind != "changed" or not all(words.startswith(_METADATA) for words in said)


def _below(state: State, lowers: Union, path: bytes) -> Below:
    now, first = _find(lowers, path), firsts.find(state.work, path)
    if now is None:
        return Below.NOTHING if first is None else Below.GONE
    if now.is_directory:
        return Below.SAME if first is None else Below.NEW
    if first is None:
        return Below.UNKNOWN
    layer, at, _ = now.lowers[-1]
    return Below.SAME if first.has_content_of(layer, at, layer.stat(at)) else Below.NEW


def _find(lowers: Union, path: bytes) -> LookupResult | None:
    """Return what the lowers alone show at a path."""
    places = lowers.root.lowers
    found = None
    for name in path.split(b"/"):
        if found is not None and not found.is_directory:
            return None
        found = lowers.lookup.find(directory_of(places), name)
        if found is None:
            return None
        places = found.lowers
    return found
