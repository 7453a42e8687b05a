"""The words on the command line that `mount` and `run` share."""

import argparse
import re
from collections.abc import Iterable
from dataclasses import replace

from unionfs.mounting.options import Options, Refused, checked_size, parse

LAYER_OPTIONS = """\
options of -o (separated by commas; \\, \\: and \\\\ stand for themselves in names):
  lowerdir=A:B          lower layers, top first; lowerdir+=C adds one below
  upperdir=U,workdir=W  the writable layer and its staging directory
  ram[=SIZE]            a writable layer in RAM: 512M, 50%
  ro rw nosuid nodev noexec noatime nodiratime relatime sync dirsync ...
                        as in mount(8); remount (with ro or rw) changes them on a live mount
  metacopy=on|off       copy only the metadata up when only that changes [on]
  redirect_dir=on|off   rename directories of lower layers in one step [on]
  whiteout=overlay|aufs how upper says "deleted": as overlayfs does, or by names .wh.* [overlay]
  fsync=auto|strict|off what is made durable when [auto]
  passthrough=upper|all|off
                        which files the kernel reads and writes without the daemon [upper]
  noopen=on|off         files are used without asking the daemon to open them; nothing passes
                        through then [off]
  loop=on|off           the fast event loop [on]
  direct=on|off         requests answered without libfuse [on]
  handshake=on|off      the extended kernel handshake [on]
  far=all|N:N, near=... lowers, by their place from 1, that may keep one waiting, or do not [those
                        on NFS, SMB, FUSE, 9p, Ceph, AFS]
  boot=on|off           this will be the root of the machine: the daemon is watched and spared [off]
  dead=reboot|panic|halt|nothing
                        what to do when the daemon of a boot=on mount dies [reboot]
  fsname=NAME           the source shown in the mount table [unionfs]
"""

_LOOKS_LIKE_SIZE = re.compile(r"[0-9]+[a-zA-Z%]*")


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


def before_parsing(arguments: Iterable[str]) -> list[str]:
    """Return the arguments with an optional SIZE joined to its --ram.

    argparse would take any next word for the SIZE, also the mount point.  Words
    after `--` are left alone.
    """
    joined: list[str] = []
    rest = iter(arguments)
    for word in rest:
        joined.append(word)
        if word == "--":
            break
        if joined[-2:-1] == ["--ram"]:
            joined[-2:] = (
                [f"--ram={word}"] if _LOOKS_LIKE_SIZE.fullmatch(word) else ["--ram=", word]
            )
    return [*joined, *rest]


def options_from(arguments: argparse.Namespace, base: Options | None = None) -> Options:
    """Return what the words of `add_layers`, and --upper and --work, ask for."""
    options = parse(arguments.options, base or Options())
    if arguments.lower and options.lowers:
        raise Refused("lower layers are given twice, by --lower and by lowerdir=: use one")
    if arguments.lower:
        options = replace(options, lowers=tuple(arguments.lower))
    if arguments.ram is not None:
        options = replace(options, ram=checked_size(arguments.ram))
    for key in ("upper", "work"):
        said = getattr(arguments, key, None)
        if said is not None:
            if getattr(options, key) is not None:
                raise Refused(f"{key} is given twice, by --{key} and by {key}dir=: use one")
            options = replace(options, **{key: said})
    return options
