"""`unionfs config`: what a configuration asks for, in plain English, and one to begin with."""

import argparse
import os
import sys
from collections.abc import Iterator

from unionfs.audit import paths
from unionfs.commands import suggestions
from unionfs.layers.persistence import Rules
from unionfs.mounting import configurations, fstab
from unionfs.mounting.configuration import Configuration, Disk, Ram, Room
from unionfs.mounting.options import Refused
from unionfs.mounting.truepaths import resolved

_EPILOG = """\
FILE is a TOML file (*.toml, see unionfs(5)), or one in the form of Fedora's readonly-root.  Without
one it is /etc/unionfs.toml or, where there is none, /etc/sysconfig/readonly-root.

--check explains what would be mounted, and names rules that are probably mistakes.
The exit status is 0; 2 if the file is wrong: the message gives the line, and a correct form.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.epilog = _EPILOG
    verbs = parser.add_mutually_exclusive_group(required=True)
    verbs.add_argument(
        "--check", metavar="FILE", nargs="?", const="", help="explain what a configuration asks for"
    )
    verbs.add_argument(
        "--suggest", action="store_true",
        help="propose what should persist, by what is installed, as TOML",
    )  # fmt: skip
    verbs.add_argument(
        "--boot", action="store_true", help="print where both sides are, for the boot scripts"
    )
    parser.add_argument("--root", metavar="DIR", default="/", help="of an image, or of a test [/]")


def run(arguments: argparse.Namespace) -> int:
    """Print the explanation, the suggestion or the boot's form."""
    paths.let_stdout_write_any_name()
    if not os.path.isdir(arguments.root):
        raise Refused(f"root '{arguments.root}' is no directory")
    if arguments.suggest:
        print(suggestions.as_toml(arguments.root))
        return 0
    found = configurations.read(arguments.check or None, arguments.root)
    lines = (
        _for_boot(found, arguments.root) if arguments.boot else _explained(found, arguments.root)
    )
    print("\n".join(lines))
    return 0


# For people


def _row(key: str, text: str) -> str:
    return f"{key:12} {text}".rstrip()


def _rows(key: str, texts: Iterator[str]) -> Iterator[str]:
    for text in texts:
        yield _row(key, text)
        key = ""


def _explained(found: Configuration, root: str) -> Iterator[str]:
    yield _row("file", found.source)
    yield from _rows("lower", (f"{name} is only read" for name in found.lowers))
    yield from _rows(
        "scratch", _places(found.scratch, "what is changed goes to", "gone at each mount")
    )
    if found.state:
        yield from _rows("state", _places(found.state, "what persists goes to", "and stays"))
        yield _row("", _without_state(found))
    yield from _rows("persist", _persisting(found)) if found.rules else [_row("persist", "nothing")]
    yield from _rows("planted", (f"{path} begins {_BEGINS[kind]}" for kind, path in found.planted))
    yield from _rows("options", iter(found.options))
    yield from _rows("note", iter(found.notes))
    yield from _rows("doubt", _doubts(found, root))


_BEGINS = {"empty": "empty", "dirs": "with its directories, and no file"}


def _places(rooms: tuple[Room, ...], first: str, last: str) -> Iterator[str]:
    yield f"{first} {rooms[0]}, {last}"
    yield from (f"where that cannot be had, {room}" for room in rooms[1:])


def _without_state(found: Configuration) -> str:
    if found.state_required:
        return "where it cannot be had, nothing is mounted"
    return "where it cannot be had, all goes to scratch, with a warning"


def _persisting(found: Configuration) -> Iterator[str]:
    for rule in found.persist:
        yield f"{rule.removeprefix('!')} does not" if rule.startswith("!") else rule


def _doubts(found: Configuration, root: str) -> Iterator[str]:
    """Yield warnings about rules that are allowed, but probably not meant."""
    rules = Rules.parse(found.persist)
    for number, rule in enumerate(found.rules):
        path = rule.text.removeprefix("!")
        true = resolved(path, root)
        if true != os.path.normpath(path):
            yield f"{rule.where}: '{path}' is below a symlink, where nothing persists: say {true}"
        if _says_nothing_new(found.persist[:number], rule.text):
            yield f"{rule.where}: '{rule.text}' changes nothing: rules before it say the same"
    for kind, path in found.planted:
        if rules.at(os.fsencode(path)).persisted:
            yield f"'{path}' ({kind}) persists: it begins as it was"
    if set(found.scratch).intersection(found.state) - {Ram()}:
        yield "scratch and state are in the same place: scratch is emptied at each mount"


def _says_nothing_new(before: tuple[str, ...], rule: str) -> bool:
    """Tell whether a rule changes nothing: its path, with all below it, is so already."""
    path = rule.removeprefix("!")
    at = Rules.parse(before).at(os.fsencode(path))
    is_glob = any(character in path for character in "*?[")
    return not is_glob and not at.leads and at.persisted is not rule.startswith("!")


# For boot/stage


def _for_boot(found: Configuration, root: str) -> Iterator[str]:
    """Yield the file, and a line for each place that can be used, the best first.

    SIDE WAIT WHAT OPTIONS WITHIN: WHAT is a word as on the kernel's command line; WAIT is `wait` or
    `now`; no options are `-`; WITHIN is a directory on a disk, or nothing.
    """
    if "/" not in found.lowers:
        raise Refused(f"{found.source}: at boot / has to be a lower layer: say lower = [..., '/']")
    yield f"file - {found.source}"
    for side, rooms in (("scratch", found.scratch), ("state", found.state if found.rules else ())):
        for room in rooms:
            line = _boot_line(room, root)
            if line is None or len(line.split()) not in {3, 4}:
                print(f"unionfs: {side}: {room} cannot be used at boot", file=sys.stderr)
            else:
                yield f"{side} {line}"
    if found.state_required:
        yield "required"


def _boot_line(room: Room, root: str) -> str | None:
    if isinstance(room, Ram):
        return f"now {f'tmpfs:{room.options}' if room.options else 'tmpfs'} -"
    if isinstance(room, Disk):
        return f"{'wait' if room.awaited else 'now'} {room.device} {room.options or '-'}"
    holder = fstab.holder(room.path, root)
    if holder is None or holder.is_bind or holder.kind == "tmpfs":
        return None  # on the root, which is only read then, or nowhere
    within = os.path.relpath(room.path, holder.mountpoint)
    return (
        f"wait {holder.device} {holder.options or '-'} {'' if within == '.' else within}".rstrip()
    )
