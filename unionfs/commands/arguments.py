"""The words on the command line that `mount` and `run` share."""

import argparse
import os
import re
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import replace

from unionfs.mounting.options import Options, Refused, checked_size, choices, parse

_LAYER_OPTIONS = """\
options of -o (separated by commas; \\, \\: and \\\\ stand for themselves in names):
  lowerdir=A:B          lower layers, top first; lowerdir+=C adds one below
  upperdir=U,workdir=W  the writable layer and its staging directory
  ram[=SIZE]            a writable layer in RAM: 512M, 50%
  statedir=S,persist=A:B
                        a second writable layer, for the paths A and B; all else goes to the first
                        one, which is emptied at each mount; stateworkdir=W, state-required
  config[=FILE]         what a configuration says, as --config
  ro rw nosuid nodev noexec noatime nodiratime relatime sync dirsync ...
                        as in mount(8); remount (with ro or rw) changes them on a live mount
  fsname=NAME           the source shown in the mount table [unionfs]
"""
_COLUMN = 24  # the column in which a meaning begins
_WIDTH = 97

# Words of the command line that name one directory -> the word of `-o`.
_DIRECTORIES = {
    "upper": "upperdir",
    "work": "workdir",
    "state": "statedir",
    "state_work": "stateworkdir",
}

# Options whose operand may be left out -> whether the next word is that operand.
_LOOKS_LIKE_SIZE = re.compile(r"[0-9]+[a-zA-Z%]*")


def _may_be_file(word: str) -> bool:
    """Tell whether a word may be a file; the mount point is a directory."""
    return not word.startswith("-") and not os.path.isdir(word)


_OPTIONAL: dict[str, Callable[[str], object]] = {
    "--ram": _LOOKS_LIKE_SIZE.fullmatch,
    "--config": _may_be_file,
    "--readonly-root": _may_be_file,
    "--check": _may_be_file,
}


def add_lowers(parser: argparse.ArgumentParser, meaning: str) -> None:
    """Add the option that names lower layers."""
    parser.add_argument("--lower", metavar="DIR", action="append", default=[], help=meaning)


def add_layers(parser: argparse.ArgumentParser) -> None:
    """Add the options that name layers."""
    add_lowers(parser, "a layer that is only read; may be repeated, the first is on top")
    parser.add_argument(
        "--ram",
        metavar="SIZE",
        nargs="?",
        const="",
        help="keep changes in RAM and lose them at the end; SIZE as tmpfs takes it: 512M, 50%%"
        " [50%%]",
    )
    parser.add_argument(
        "-o",
        dest="options",
        metavar="OPTIONS",
        action="append",
        default=[],
        help="options as for overlayfs and mount(8), see below",
    )
    parser.add_argument(
        "-v", "--verbose", action="count", default=0, help="log more; twice for debugging"
    )


def add_configuration(parser: argparse.ArgumentParser) -> None:
    """Add the options that name a file which says what to mount."""
    parser.add_argument(
        "--config",
        metavar="FILE",
        nargs="?",
        const="",
        help="mount what a configuration says: unionfs-config(1) [/etc/unionfs.toml]; options given"
        " here win",
    )
    parser.add_argument(
        "--readonly-root",
        metavar="FILE",
        nargs="?",
        const="",
        help="mount what Fedora's readonly-root says [/etc/sysconfig/readonly-root]",
    )


def layer_options() -> str:
    """Return what --help says of `-o`."""
    return _LAYER_OPTIONS + "".join(
        _help_line(f"{name}={'|'.join(words)}", meaning)
        for name, (words, meaning) in choices().items()
    )


def _help_line(said: str, meaning: str) -> str:
    lines = textwrap.wrap(meaning, _WIDTH - _COLUMN)
    if len(said) + 2 >= _COLUMN:
        return f"  {said}\n" + textwrap.indent("\n".join(lines), " " * _COLUMN) + "\n"
    head = f"  {said}".ljust(_COLUMN)
    return head + f"\n{' ' * _COLUMN}".join(lines) + "\n"


def before_parsing(arguments: Iterable[str]) -> list[str]:
    """Return the arguments with operands that may be left out joined to their options.

    argparse would take any next word for the SIZE of --ram, even the mount point.  Words
    after `--` are left alone.
    """
    joined: list[str] = []
    rest = iter(arguments)
    for word in rest:
        joined.append(word)
        if word == "--":
            break
        if joined[-2:-1] and joined[-2] in _OPTIONAL:
            option, fits = joined[-2], _OPTIONAL[joined[-2]]
            joined[-2:] = [f"{option}={word}"] if fits(word) else [f"{option}=", word]
    return [*joined, *rest]


def options_from(arguments: argparse.Namespace, base: Options | None = None) -> Options:
    """Return the options given by the words of `add_layers`, and by --upper and --work."""
    options = parse(arguments.options, base or Options())
    if arguments.lower and options.lowers:
        raise Refused("lower layers are given twice, by --lower and by lowerdir=: use one")
    if arguments.lower:
        options = replace(options, lowers=tuple(arguments.lower))
    if arguments.ram is not None:
        options = replace(options, ram=checked_size(arguments.ram))
    for key, word in _DIRECTORIES.items():
        said = getattr(arguments, key, None)
        if said is not None:
            if getattr(options, key) is not None:
                dashed = key.replace("_", "-")
                raise Refused(f"{dashed} is given twice, by --{dashed} and by {word}=: use one")
            options = replace(options, **{key: said})
    persist = (*options.persist, *getattr(arguments, "persist", ()))
    required = options.state_required or getattr(arguments, "state_required", False)
    return replace(options, persist=persist, state_required=required)
