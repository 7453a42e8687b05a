"""`unionfs diff`: which paths were added, changed and deleted against the lower layers."""

import argparse
import json
import sys
from typing import Any

from unionfs.audit import paths, sides, upgrades
from unionfs.audit.comparison import Change, Whiteout
from unionfs.commands import offline
from unionfs.layers.layer import WritableLayer
from unionfs.layers.stack import Stack, State
from unionfs.mounting import live
from unionfs.mounting.options import Refused

_FAILED = 1  # exit status

_HELP = """\
DIR is where a union is mounted, or an upper directory.  If the lowers of an upper directory
are not given, they are those that it was last mounted over, as recorded on it.

A line says added, changed or deleted, the path, and what changed.  Of a deleted
directory, only the directory itself is listed; of a renamed one, both paths.

For a union with two sides it lists what scratch changes.  With --state it lists the persisted
paths of a mounted union that were changed, and whether they hide what an upgrade of the lower has
brought: "differs from the new lower" means that the lower's file is not the one that was there
when the path was first changed.

Exit status: 0; 1 if something could not be read: a message names the path.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.epilog = _HELP
    parser.add_argument("directory", metavar="DIR", help="a mounted union, or an upper directory")
    offline.add_layers(parser)
    parser.add_argument(
        "--state", action="store_true", help="what persists, and what it hides of a new lower"
    )
    parser.add_argument("--json", action="store_true", help=paths.JSON_HELP)


def run(arguments: argparse.Namespace) -> int:
    """Print the changes."""
    offline.require_root()
    if arguments.state:
        return _print_state(arguments)
    stack, whiteout = _open(arguments)
    if stack.upper is None:
        raise Refused(f"'{arguments.directory}' is mounted without an upper: nothing can change")
    paths.let_stdout_write_any_name()
    found = [*sides.of_scratch(stack, whiteout)]
    if arguments.json:
        print(json.dumps(_document(stack, found), indent=2))
    else:
        for change in _readable(found):
            print(change.line())
    return _tell_unreadable(found)


def _readable(found: list[Change]) -> list[Change]:
    return [change for change in found if not change.unreadable]


def _tell_unreadable(found: list[Change]) -> int:
    """Report the paths that could not be compared; return the exit status."""
    unreadable = [change for change in found if change.unreadable]
    for change in unreadable:
        print(f"unionfs: {paths.shown(change.path)}: {change.detail}", file=sys.stderr)
    return _FAILED if unreadable else 0


def _print_state(arguments: argparse.Namespace) -> int:
    if arguments.lower or arguments.whiteout:
        raise Refused("--state is for a mounted union: leave --lower and --whiteout out")
    stack = live.find(arguments.directory).open_stack()
    if stack.state is None:
        raise Refused(f"'{arguments.directory}' is mounted without a state side: nothing persists")
    paths.let_stdout_write_any_name()
    found = [*upgrades.persisted(stack.state, stack)]
    readable = [one for one in found if not one.change.unreadable]
    if arguments.json:
        print(json.dumps(_state_document(stack, stack.state, readable), indent=2))
    else:
        for one in readable:
            print(one.line())
    return _tell_unreadable([one.change for one in found])


def _state_document(stack: Stack, state: State, found: list[upgrades.Persisted]) -> dict[str, Any]:
    return {
        "state": state.upper.name,
        "lowers": [layer.name for layer in stack.lowers],
        "changes": [{**_as_json(one.change), "lower": one.below.name.lower()} for one in found],
    }


def _document(stack: Stack, found: list[Change]) -> dict[str, Any]:
    return {
        "upper": stack.upper.name if stack.upper else None,
        "lowers": [layer.name for layer in stack.lowers],
        "changes": [_as_json(change) for change in _readable(found)],
    }


def _as_json(change: Change) -> dict[str, str]:
    return {"path": paths.absolute(change.path), "kind": change.kind, "detail": change.detail}


def _open(arguments: argparse.Namespace) -> tuple[Stack, Whiteout]:
    mounted = _mounted(arguments.directory)
    if mounted is None:
        return _open_offline(arguments), arguments.whiteout or "overlay"
    if arguments.lower or arguments.whiteout:
        raise Refused(
            f"'{arguments.directory}' is mounted, its layers are known: leave --lower and"
            " --whiteout out"
        )
    return mounted.open_stack(), whiteout_of(mounted)


def whiteout_of(mounted: live.LiveMount) -> Whiteout:
    """Return how the upper of a live union says "deleted"."""
    options = mounted.status["options"] if mounted.status else {}
    return "aufs" if options.get("whiteout") == "aufs" else "overlay"


def _mounted(directory: str) -> live.LiveMount | None:
    try:
        return live.find(directory)
    except Refused:
        return None  # `offline` gives as good a message


def _open_offline(arguments: argparse.Namespace) -> Stack:
    place = offline.find_upper(arguments.directory)
    names = arguments.lower or offline.recorded(place)[0]
    if not names:
        raise Refused(
            f"{place.label} was never mounted by unionfs: say with --lower which lower layers"
            " it belongs to"
        )
    upper = WritableLayer(offline.open_to_read(place), name=place.name)
    return Stack(upper, None, offline.open_lowers(names))
