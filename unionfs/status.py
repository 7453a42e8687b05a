"""`unionfs status`: which unions there are; what one is made of, and what the kernel granted it.

The places of layers are those where they are now (`whereabouts`).
"""

import argparse
import json
import os
from collections.abc import Iterator
from typing import Any

from unionfs import live, paths, unions, whereabouts
from unionfs.options import Refused

_FAILED = 1  # exit status: a union does not serve

# Of what the kernel answered; the rest is for --json.
_SHOWN = (
    "protocol", "loop", "direct", "handshake", "passthrough", "noopen",
    "max_readahead", "max_write", "refused",
)  # fmt: skip


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "mountpoint", metavar="MOUNTPOINT", nargs="?", help="where it is mounted [all unions]"
    )
    parser.add_argument("--json", action="store_true", help=paths.JSON_HELP)
    parser.epilog = "The exit status is 1 if some union does not serve."


def run(arguments: argparse.Namespace) -> int:
    """Print the status of one union, or of all."""
    paths.let_stdout_write_any_name()
    if arguments.mountpoint is None:
        return _print_all(as_json=arguments.json)
    mounted = live.find(arguments.mountpoint)
    if mounted.status is None:
        raise Refused(f"the daemon of '{mounted.mountpoint}' is dead: unmount it")
    _locate_layers(mounted.status)
    if arguments.json:
        print(json.dumps(mounted.status, indent=2))
    else:
        for key, value in _lines(mounted.status):
            print(f"{key:12} {value}")
    return 0


def _locate_layers(status: dict[str, Any], root: str = "") -> None:
    """Add to each layer where it is now: `place`, null if that is not known, and `deleted`."""
    layers = status["layers"]
    for layer in filter(None, (layers["upper"], layers["work"], *layers["lowers"])):
        link = f"/proc/{status['pid']}/fd/{layer['fd']}"
        try:
            found = whereabouts.find(link, layer["name"], root)
        except OSError:  # not permitted, or the daemon has just ended
            found = whereabouts.Whereabouts(None, deleted=False)
        layer["place"], layer["deleted"] = found


def _lines(status: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "daemon", f"process {status['pid']}"
    layers = status["layers"]
    for key in ("upper", "work"):
        yield key, _placed(layers[key]) if layers[key] else "none, read-only"
    for layer in layers["lowers"]:
        yield "lower", _placed(layer)
    yield "options", " ".join(_said(*pair) for pair in status["options"].items())
    kernel = status.get("kernel", {})
    yield "kernel", " ".join(_said(key, kernel[key]) for key in _SHOWN if kernel.get(key))
    yield "granted", " ".join(kernel.get("flags", []))


def _said(key: str, value: object) -> str:
    return key if value is True else f"{key}={value}"


def _placed(layer: dict[str, Any]) -> str:
    """Return the place of a layer, and, where that is another, the name it was mounted by."""
    name, place = layer["name"], layer["place"]
    if layer["deleted"]:
        return f"{_shown(name)} (deleted)"
    if place is None:
        return f"{_shown(name)} (moved, out of sight)" if os.path.isabs(name) else name
    return _shown(place) if place == name else f"{_shown(place)} (mounted as {_shown(name)})"


def _shown(path: str) -> str:
    return paths.shown(os.fsencode(path).lstrip(b"/")) if os.path.isabs(path) else path


# All unions


def _print_all(*, as_json: bool) -> int:
    found = unions.all_unions()
    for union in found:
        if union.status is not None:
            _locate_layers(union.status, union.root)
    if as_json:
        print(json.dumps([union._asdict() for union in found], indent=2))
    else:
        _print_table([tuple(_cells(union)) for union in found])
    return 0 if all(union.status for union in found) else _FAILED


def _cells(union: unions.Union) -> Iterator[str]:
    where = "" if union.namespace is None else f" (namespace of process {union.namespace})"
    yield _shown(union.mountpoint) + where
    if union.status is None:
        yield "is dead" if union.state == "dead" else "does not answer"
        yield "unmount it" if union.state == "dead" else ""
        return
    yield f"process {union.status['pid']}"
    yield _in_short(union.status["layers"])


def _in_short(layers: dict[str, Any]) -> str:
    first, *others = layers["lowers"]
    lowers = _placed(first) + (f" and {len(others)} more" if others else "")
    return f"{_placed(layers['upper'])} over {lowers}" if layers["upper"] else lowers


def _print_table(rows: list[tuple[str, ...]]) -> None:
    if not rows:
        print("no union is mounted")
        return
    rows = [("MOUNT POINT", "DAEMON", "LAYERS"), *rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(map(str.ljust, row, widths)).rstrip())
