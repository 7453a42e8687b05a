"""`unionfs mount`: the command that returns when the mount serves.

It reads the command line and hands the daemon its orders (`background`).  The modules
for mounting are imported only where this process itself needs them.
"""

import argparse
import dataclasses
import os
import sys
from dataclasses import replace

from unionfs.commands import arguments as words
from unionfs.commands import background
from unionfs.host import inherited
from unionfs.mounting.options import Options, Refused, parse, settled


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    words.add_layers(parser)
    parser.add_argument("--upper", metavar="DIR", help="the layer that takes all changes")
    parser.add_argument(
        "--work", metavar="DIR", help="an empty directory beside upper, for staging"
    )
    parser.add_argument("--state", metavar="DIR", help="the layer that takes what persists")
    parser.add_argument(
        "--state-work",
        metavar="DIR",
        help="its directory for staging, on the same mount [.unionfs-work in it]",
    )
    parser.add_argument(
        "--persist",
        metavar="PATH",
        action="append",
        default=[],
        help="a path that persists with all below it, or a glob; !PATH takes one out again; may be"
        " repeated, and the last that matches a path counts",
    )
    parser.add_argument(
        "--state-required", action="store_true", help="no mount where state cannot be had"
    )
    words.add_configuration(parser)
    parser.add_argument("-f", "--foreground", action="store_true", help="stay in the foreground")
    parser.add_argument("mountpoint", metavar="MOUNTPOINT", help="where to mount")
    parser.epilog = f"Without an upper the union is read-only.\n\n{words.layer_options()}"


def run(arguments: argparse.Namespace) -> int:
    """Mount, or change the flags of a live mount."""
    base = Options(subtype=_own_name(), source=getattr(arguments, "source", "") or "unionfs")
    options = words.options_from(arguments, base)
    if options.remount:
        from unionfs.commands import remount  # noqa: PLC0415 - a mount does not need it

        return remount.remount(arguments.mountpoint, arguments.options)
    if options.config is not None or _configuration(arguments) is not None:
        options = _configured(arguments, options, base)
    try:
        options = settled(options)
    except Refused:
        _let_go(options)
        raise
    mountpoint = os.path.realpath(arguments.mountpoint)
    if arguments.foreground:
        return _in_foreground(options, mountpoint, arguments.verbose)
    return _in_background(options, mountpoint, arguments)


def _configuration(arguments: argparse.Namespace) -> str | None:
    """Return the configuration's file that the command line names, "" for the machine's own."""
    from_fedora: str | None = getattr(arguments, "readonly_root", None)
    if from_fedora is None:
        return getattr(arguments, "config", None)
    if getattr(arguments, "config", None) is not None:
        raise Refused("--config and --readonly-root exclude each other: leave one out")
    return from_fedora or "/etc/sysconfig/readonly-root"


def _configured(arguments: argparse.Namespace, options: Options, base: Options) -> Options:
    """Return the options, completed by the configuration; print what cannot be had of it."""
    from unionfs.mounting import configurations, opening, sides  # noqa: PLC0415 - few have one

    opening.require_privileges()
    file = _configuration(arguments)
    found = configurations.read((options.config if file is None else file) or None)
    options = words.options_from(arguments, parse(found.options, base))
    options, troubles = sides.filled(replace(options, config=os.path.abspath(found.source)), found)
    for trouble in troubles:
        print(f"unionfs: warning: {trouble}", file=sys.stderr)
    return options


def _let_go(options: Options) -> None:
    """Unmount the disks that were mounted for a union whose mount has failed."""
    if options.disks:
        from unionfs.mounting import ourdisks  # noqa: PLC0415 - few mounts have any

        ourdisks.let_go(options.disks)


def _in_background(options: Options, mountpoint: str, arguments: argparse.Namespace) -> int:
    daemon: background.Daemon | None = arguments.daemon
    if daemon is None:  # this is not root, or the command line has an unusual form
        from unionfs.mounting import opening  # noqa: PLC0415 - the daemon looks itself

        opening.require_privileges()
        daemon = background.start(watched=options.boot == "on")
    return daemon.mount(mountpoint, dataclasses.asdict(options), arguments.verbose)


def _in_foreground(options: Options, mountpoint: str, verbosity: int) -> int:
    from unionfs.mounting import daemon, logs  # noqa: PLC0415 - only here is this process the daemon

    inherited.serve_everybody()
    logs.to_stderr(verbosity)
    return daemon.open_and_serve(options, mountpoint, started=lambda: None)


def _own_name() -> str:
    """Return the file system's subtype: Debian's unionfs-fuse has the name `unionfs`, too."""
    return "pyunionfs" if os.path.basename(sys.argv[0]) == "pyunionfs" else "unionfs"
