"""What a union with two writable sides changes: each path is the affair of its own side.

Scratch holds directories for the sake of persisted names in them, and so does state for what does
not persist: of a path of the other side neither says anything.
"""

from collections.abc import Iterator

from unionfs.audit.comparison import Change, Whiteout, changes
from unionfs.layers.stack import Stack, State


def of_scratch(stack: Stack, whiteout: Whiteout = "overlay") -> Iterator[Change]:
    """Yield what scratch changes, or the only upper, in the order of the paths."""
    for change in changes(stack, whiteout):
        if stack.state is None or not stack.state.rules.at(change.path).persisted:
            yield change


def of_state(state: State, stack: Stack) -> Iterator[Change]:
    """Yield what state changes, in the order of the paths."""
    for change in changes(Stack(state.upper, state.work, stack.lowers)):
        if state.rules.at(change.path).persisted:
            yield change


def of_both(stack: Stack, whiteout: Whiteout = "overlay") -> list[Change]:
    """Return what either side changes, in the order of the paths."""
    found = [*of_scratch(stack, whiteout)]
    if stack.state is not None:
        found += of_state(stack.state, stack)
    return sorted(found, key=lambda change: change.path.split(b"/"))
