"""The union of a stack and its verbs: of one side, or of two.

Modules for two sides are imported only for a union that has two: a boot waits for each module.
"""

from typing import TYPE_CHECKING, TypeGuard

from unionfs.changes.changes import Changes
from unionfs.changes.copyup import CopyUp
from unionfs.layers.stack import Stack
from unionfs.view.union import Features, Union

if TYPE_CHECKING:
    from unionfs.view.sides import TwoSided


def union_of(stack: Stack, features: Features) -> Union:
    """Return the union of a stack, which has one side or two."""
    if stack.state is None:
        return Union(stack, features)
    from unionfs.view.sides import TwoSided  # noqa: PLC0415 - see above

    return TwoSided(stack, stack.state, features)


def verbs_of(union: Union) -> tuple[CopyUp, Changes]:
    """Return the verbs that copy up, and those that change names, of a union."""
    if _has_two_sides(union):
        from unionfs.changes import sides  # noqa: PLC0415 - see above

        return sides.verbs_of(union)
    copyup = CopyUp(union)
    return copyup, Changes(union, copyup)


def make_ways(union: Union, changes: Changes) -> None:
    """Make the directories that lead to what persists, and are missing, of a union of two sides."""
    if _has_two_sides(union):
        from unionfs.changes import scaffolds  # noqa: PLC0415 - see above

        scaffolds.make_again(union, changes)


def _has_two_sides(union: Union) -> TypeGuard["TwoSided"]:
    return union.two_sided
