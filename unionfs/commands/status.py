"""`unionfs status`: which unions there are; what one is made of, how full, and what it was granted.

The figures come from `survey`; this module words them, and decides whether all is well.
"""

import argparse
import functools
import json
import os
from collections.abc import Iterator
from typing import Any

from unionfs.audit import paths, usage
from unionfs.audit.usage import Contents
from unionfs.commands import liveview, survey
from unionfs.commands.liveview import Report
from unionfs.mounting import unions
from unionfs.mounting.options import Refused
from unionfs.mounting.unions import Union

# The parts of the kernel's answer that are shown; the rest is for --json.
_SHOWN = (
    "protocol", "loop", "direct", "handshake", "passthrough", "noopen",
    "max_readahead", "max_write", "refused",
)  # fmt: skip

_WRITABLE = ("upper", "state")
_STATE = ("state", "state_work")

_LEVELS = dict(zip(usage.LEVELS, ("warning", "critical"), strict=True))

_EPILOG = """\
Of one union: where its layers are, how full their file systems are, by bytes and by inodes, and
the ten largest files in upper.

The exit status is 0 when all is well; 1 when a union is dead or does not answer, or an upper,
or state, has reached 80 % (a warning) or 95 % (critical) of its bytes or inodes, or its disk takes
no changes any more, or state is lost; 2 for bad input.  In --json 'level' is 0, 80 or 95.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "mountpoint", metavar="MOUNTPOINT", nargs="?", help="where it is mounted [all unions]"
    )
    parser.add_argument("--json", action="store_true", help=paths.JSON_HELP)
    parser.add_argument(
        "--watch", action="store_true", help="repeat every two seconds, and show how upper grows"
    )
    parser.epilog = _EPILOG


def run(arguments: argparse.Namespace) -> int:
    """Print the status of one union, or of all."""
    if arguments.watch and arguments.json:
        raise Refused("--watch and --json exclude each other: leave one of them out")
    paths.let_stdout_write_any_name()
    if arguments.watch:
        return _watch(arguments.mountpoint)
    report = _all() if arguments.mountpoint is None else _one(arguments.mountpoint)
    if arguments.json:
        print(json.dumps(report.document, indent=2))
    else:
        print("\n".join(report.lines))
    return report.status


def _watch(mountpoint: str | None) -> int:
    if mountpoint is None:
        return liveview.show(_all(), _all)
    look = functools.partial(_one, os.path.abspath(mountpoint))  # a look changes the directory
    return liveview.show(_one(mountpoint), look)


# One union


def _one(mountpoint: str) -> Report:
    union = unions.find(mountpoint)
    document = {"state": union.state, **(union.status or {})}
    if union.status is None:
        return Report([_row("daemon", _trouble(union))], document, None, is_well=False)
    room = survey.complete(document)
    found = survey.add_changes(document)
    lines = [*_lines(document), *_changes(found), *_warnings(document)]
    return Report(lines, document, room, is_well=_is_well(document))


def _is_well(status: dict[str, Any]) -> bool:
    if status["level"] or status.get("state_lost"):  # which older daemons do not say
        return False
    return not any(layer and layer["trouble"] for layer in _uppers(status))


def _uppers(status: dict[str, Any]) -> Iterator[dict[str, Any] | None]:
    return (status["layers"].get(role) for role in _WRITABLE)


def _trouble(union: Union) -> str:
    return "is dead: unmount it" if union.state == "dead" else "does not answer"


def _row(key: str, value: str) -> str:
    return f"{key:12} {value}"


def _lines(status: dict[str, Any]) -> Iterator[str]:
    yield _row("daemon", f"process {status['pid']}")
    layers = status["layers"]
    yield from _placed_rows(layers)
    yield _row("options", " ".join(_said(*pair) for pair in status["options"].items()))
    kernel = status.get("kernel", {})
    yield _row("kernel", " ".join(_said(key, kernel[key]) for key in _SHOWN if kernel.get(key)))
    yield _row("granted", " ".join(kernel.get("flags", [])))


def _placed_rows(layers: dict[str, Any]) -> Iterator[str]:
    """Yield a row for each layer, and one below the first of each file system: its room."""
    named = [(key, layers[key]) for key in ("upper", "work")]
    named += [(key.replace("_", " "), layers[key]) for key in _STATE if layers.get(key)]
    told = set()
    for key, layer in [*named, *(("lower", layer) for layer in layers["lowers"])]:
        if layer is None:
            yield _row(key, "none, read-only")
            continue
        yield _row(key, _placed(layer))
        room = survey.room_of(layer)
        if room is not None and layer["device"] not in told:
            told.add(layer["device"])
            yield _row("", room.words())


def _changes(found: Contents | None) -> Iterator[str]:
    if found is None:
        return
    yield _row("changes", f"{usage.shown(found.size)} in {found.inodes} files and directories")
    for large in found.largest:
        yield f"{usage.shown(large.size):>12} {paths.shown(large.path)}"


def _warnings(status: dict[str, Any]) -> Iterator[str]:
    for role, layer in zip(_WRITABLE, _uppers(status), strict=True):
        if layer and layer["trouble"]:
            yield _row("critical", f"{role} takes no changes: its file system {layer['trouble']}")
        room = survey.room_of(layer)
        if room is not None and room.level:
            yield _row(_LEVELS[room.level], room.trouble(role))
    if status.get("state_lost"):
        yield _row("critical", f"nothing persists: {status['state_lost']}")


def _said(key: str, value: object) -> str:
    if isinstance(value, list):
        value = ":".join(value)
    return key if value is True else f"{key}={value}"


def _placed(layer: dict[str, Any]) -> str:
    """Return the place of a layer, and the name it was mounted by, if that differs."""
    if layer.get("far"):
        return f"{_near(layer)} (far)"
    return _near(layer)


def _near(layer: dict[str, Any]) -> str:
    name, place = layer["name"], layer["place"]
    if layer["deleted"]:
        return f"{_shown(name)} (deleted)"
    if place is None:
        return f"{_shown(name)} (moved, out of sight)" if os.path.isabs(name) else name
    return _shown(place) if place == name else f"{_shown(place)} (mounted as {_shown(name)})"


def _shown(path: str) -> str:
    return paths.shown(os.fsencode(path).lstrip(b"/")) if os.path.isabs(path) else path


# All unions


def _all() -> Report:
    found = unions.all_unions()
    for union in found:
        if union.status is not None:
            survey.complete(union.status, union.root)
    document = [union._asdict() for union in found]
    is_well = all(union.status and _is_well(union.status) for union in found)
    return Report(list(_table(found)), document, None, is_well=is_well)


def _cells(union: Union) -> Iterator[str]:
    where = "" if union.namespace is None else f" (namespace of process {union.namespace})"
    yield _shown(union.mountpoint) + where
    if union.status is None:
        yield from (_trouble(union), "", "")
        return
    layers = union.status["layers"]
    room = survey.room_of(layers["upper"])
    yield f"process {union.status['pid']}"
    yield f"{room.percent} %" if room else ""
    yield _in_short(layers)


def _in_short(layers: dict[str, Any]) -> str:
    first, *others = layers["lowers"]
    lowers = _placed(first) + (f" and {len(others)} more" if others else "")
    return f"{_placed(layers['upper'])} over {lowers}" if layers["upper"] else lowers


def _table(found: list[Union]) -> Iterator[str]:
    if not found:
        yield "no union is mounted"
        return
    rows = [("MOUNT POINT", "DAEMON", "FULL", "LAYERS"), *(tuple(_cells(union)) for union in found)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(map(str.ljust, row, widths)).rstrip()
