"""The layers of one union, opened: an upper and its work, or none, and the lowers, top first.

`opening` makes a `Stack` out of what the user named; the union reads it.
"""

import os
from dataclasses import dataclass

from unionfs.layers.layer import Layer, WritableLayer


@dataclass(frozen=True, slots=True)
class Stack:
    """What a union is made of; `upper` and `work` are both there or both None."""

    upper: WritableLayer | None
    work: WritableLayer | None
    lowers: tuple[Layer, ...]  # top first
    within: frozenset[Layer] = frozenset()  # those that lie within another one
    # A descriptor of the root of the detached mount that holds upper and work; -1: there is none.
    copy: int = -1

    def close(self) -> None:
        """Close the descriptors of all layers; this also ends the exclusive use of upper."""
        for layer in (self.upper, self.work, *self.lowers):
            if layer is not None:
                layer.close()
        if self.copy >= 0:
            os.close(self.copy)
