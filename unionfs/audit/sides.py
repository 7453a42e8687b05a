"""What a union with two writable sides changes: only a path's own side tells its changes.

Scratch holds directories that only lead to persisted names, and state holds directories that only
lead to names of scratch.  So neither side says anything of the other's paths.
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
