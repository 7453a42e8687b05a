"""The layers of one union, opened: an upper and its work, or none, and the lowers, top first.

A union of two sides has a second upper with its work, *state*, for the paths that persist; the
first is *scratch* then.

`opening` makes a `Stack` out of what the user named; the union reads it.
"""

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unionfs.layers.layer import Layer, WritableLayer

if TYPE_CHECKING:
    from unionfs.layers.persistence import Rules

# State's work in state's own root, where no other is named: nobody sees this name.
OWN_WORK = ".unionfs-work"


def is_own_work(directory: bytes, name: bytes) -> bool:
    """Tell whether a name in a directory of state is that of state's work, which is no content."""
    return directory == b"." and os.fsdecode(name) == OWN_WORK


@dataclass(frozen=True, slots=True)
class State:
    """The second writable side of a union, for the paths that *rules* say."""

    upper: WritableLayer
    work: WritableLayer
    rules: "Rules"
    copy: int = -1  # as that of `Stack`

    def close(self) -> None:
        """Close the descriptors; this also ends the exclusive use."""
        self.upper.close()
        self.work.close()
        if self.copy >= 0:
            os.close(self.copy)


@dataclass(frozen=True, slots=True)
class Stack:
    """What a union is made of; `upper` and `work` are both there or both None."""

    upper: WritableLayer | None
    work: WritableLayer | None
    lowers: tuple[Layer, ...]  # top first
    within: frozenset[Layer] = frozenset()  # those that lie within another one
    # A descriptor of the root of the detached mount that holds upper and work; -1: there is none.
    copy: int = -1
    state: State | None = None
    state_lost: str = ""  # why there is none though one was asked for

    def writable(self) -> tuple[WritableLayer, ...]:
        """Return what is written to: upper and work, and those of state."""
        state = (self.state.upper, self.state.work) if self.state else ()
        return *filter(None, (self.upper, self.work)), *state

    def close(self) -> None:
        """Close the descriptors of all layers; this also ends the exclusive use of upper."""
        if self.state is not None:
            self.state.close()
        for layer in (self.upper, self.work, *self.lowers):
            if layer is not None:
                layer.close()
        if self.copy >= 0:
            os.close(self.copy)
