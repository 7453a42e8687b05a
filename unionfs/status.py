"""`unionfs status`: what a mounted union is made of, and what the kernel granted it."""

import argparse
import json
from collections.abc import Iterator
from typing import Any

from unionfs import live
from unionfs.options import Refused

# Of what the kernel answered; the rest is for --json.
_SHOWN = (
    "protocol", "loop", "direct", "handshake", "passthrough", "noopen",
    "max_readahead", "max_write", "refused",
)  # fmt: skip


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("mountpoint", metavar="MOUNTPOINT", help="where it is mounted")
    parser.add_argument("--json", action="store_true", help="print all of it as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print the status."""
    mounted = live.find(arguments.mountpoint)
    if mounted.status is None:
        raise Refused(f"the daemon of '{mounted.mountpoint}' is dead: unmount it")
    if arguments.json:
        print(json.dumps(mounted.status, indent=2))
    else:
        for key, value in _lines(mounted.status):
            print(f"{key:12} {value}")
    return 0


def _lines(status: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "daemon", f"process {status['pid']}"
    layers = status["layers"]
    for key in ("upper", "work"):
        yield key, layers[key]["name"] if layers[key] else "none, read-only"
    for layer in layers["lowers"]:
        yield "lower", layer["name"]
    yield "options", " ".join(_said(*pair) for pair in status["options"].items())
    kernel = status.get("kernel", {})
    yield "kernel", " ".join(_said(key, kernel[key]) for key in _SHOWN if kernel.get(key))
    yield "granted", " ".join(kernel.get("flags", []))


def _said(key: str, value: object) -> str:
    return key if value is True else f"{key}={value}"
