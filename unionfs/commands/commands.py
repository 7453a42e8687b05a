"""Which subcommands `unionfs` has, and mount(8)'s way of calling it.

mount(8) and fstab(5) reach us through mount.fuse, as `unionfs SOURCE MOUNTPOINT
-o OPTIONS`: a first word that is no subcommand is a source.  Only the module of
the command in question is imported, so that a mount serves soon.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import NoReturn, Protocol

import unionfs
from unionfs.commands import arguments
from unionfs.commands.background import Daemon
from unionfs.mounting.options import Refused

BAD_INPUT = 2  # exit status

_VERSION = f"unionfs {unionfs.__version__}"
_NO_DIRECTORY = "the working directory is gone or out of reach: give absolute names"

# name -> one line of help
COMMANDS: dict[str, str] = {
    "mount": "mount a union of directories",
    "umount": "unmount a union and wait until its daemon is gone",
    "run": "run a command in a union root that is thrown away afterwards",
    "diff": "list what was added, changed and deleted",
    "boot": "make this machine's root a union when it boots, or not",
    "commit": "carry chosen changes into the lower, so that they stay",
    "maintain": "run a command, or a shell, in the lower made writable",
    "config": "explain or propose what is to survive a reboot, path by path",
    "status": "list all unions, or show the layers and options of one",
    "probe": "test what rename(2) does in a directory, on any file system",
    "check": "find and repair what is wrong in an upper layer",
    "settle": "make the files whole that an upper layer has in part",
}


# The probe is a room of its own, as it runs without all others.
_PROBE = "unionfs.probe"


class _Command(Protocol):
    """The functions of each command module."""

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's arguments."""

    def run(self, arguments: argparse.Namespace) -> int:
        """Carry the command out and return the exit status."""


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints have the form of our other messages."""

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_INPUT, f"unionfs: {message}\nTry '{self.prog} --help'.\n")


def _module(name: str) -> _Command:
    module: _Command = importlib.import_module(
        _PROBE if name == "probe" else f"unionfs.commands.{name}"
    )
    return module


def _configured(name: str, parser: argparse.ArgumentParser) -> _Command:
    module = _module(name)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    module.configure(parser)
    return module


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands, for --help and the manual page."""
    whole = _Parser(
        prog="unionfs",
        description="See several directories as one; changes go to the top one alone.",
        epilog="mount(8) and fstab(5) use: unionfs SOURCE MOUNTPOINT -o OPTIONS",
        allow_abbrev=False,
    )
    whole.add_argument("--version", action="version", version=_VERSION)
    commands = whole.add_subparsers(metavar="COMMAND", required=True)
    for name, line in COMMANDS.items():
        _configured(name, commands.add_parser(name, help=line, description=_sentence(line)))
    return whole


def command_parser(name: str) -> tuple[argparse.ArgumentParser, _Command]:
    """Return the parser of one command, and the module that carries it out."""
    single = _Parser(
        prog=f"unionfs {name}", description=_sentence(COMMANDS[name]), allow_abbrev=False
    )
    return single, _configured(name, single)


def _sentence(line: str) -> str:
    return line[0].upper() + line[1:] + "."


def main(words: Sequence[str], daemon: Daemon | None) -> int:
    """Run the command in *words* and return the exit status; *daemon* awaits orders to mount."""
    try:
        return _dispatch(words, daemon)
    except Refused as exc:
        print(f"unionfs: {exc}", file=sys.stderr)
        return BAD_INPUT
    except FileNotFoundError as exc:
        if exc.filename is not None:
            raise
        print(f"unionfs: {_NO_DIRECTORY}", file=sys.stderr)  # only getcwd(3) names no file
        return BAD_INPUT
    except BrokenPipeError:  # the reader of our output has enough
        sys.stderr.close()
        return 1


def _dispatch(words: Sequence[str], daemon: Daemon | None) -> int:
    if words and words[0] in COMMANDS:
        return _run(words[0], words[1:], daemon)
    if words and not words[0].startswith("-"):
        return _run_for_mount(words, daemon)
    if words[:1] == ["--version"]:
        print(_VERSION)  # without the modules of all commands
    else:
        parser().parse_args(words)
    return 0


def _run(name: str, words: Sequence[str], daemon: Daemon | None) -> int:
    single, module = command_parser(name)
    parsed = single.parse_args(arguments.before_parsing(words))
    parsed.daemon = daemon
    return module.run(parsed)


def _run_for_mount(words: Sequence[str], daemon: Daemon | None) -> int:
    """Mount as mount.fuse(8) asks; its -t, -n and -s mean nothing here."""
    if len(words) == 1:
        raise Refused(f"unknown command '{words[0]}': see unionfs --help")
    helper = _Parser(prog="unionfs", usage="%(prog)s SOURCE MOUNTPOINT [-o OPTIONS]")
    helper.add_argument("source")
    helper.add_argument("mountpoint")
    helper.add_argument("-o", dest="options", action="append", default=[])
    helper.add_argument("-v", dest="verbose", action="count", default=0)
    helper.add_argument("-f", dest="foreground", action="store_true")
    helper.add_argument("-t", dest="_type")
    helper.add_argument("-n", "-s", dest="_ignored", action="store_true")
    without_source = words[1] == "-o"  # mount(8) has made a command of it: -t fuse unionfs
    parsed = helper.parse_args(["", *words] if without_source else words)
    parsed.lower, parsed.ram, parsed.upper, parsed.work = [], None, None, None
    parsed.daemon = daemon
    return _module("mount").run(parsed)
