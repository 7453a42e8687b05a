"""`unionfs settle`: make the files whole that an upper has in part (copyup=blocks).

A union does that when it is unmounted.  If its daemon was killed, or the machine lost
its power, the end of the next mount does it, or this command, which mounts nothing.
"""

import argparse
import os
import sys

from unionfs.changes import settling
from unionfs.changes.copyup import CopyUp
from unionfs.commands import offline
from unionfs.commands.arguments import add_lowers
from unionfs.commands.check import CLEAN, FAILED, LEFT
from unionfs.mounting import logs, opening
from unionfs.mounting.options import Options, Refused
from unionfs.view.union import Features, Union

_HELP = """\
The missing blocks of each such file are copied from the lower layers.  Afterwards kernel
overlayfs can use UPPER, too, and UPPER can be a lower layer.  UPPER must not be mounted, and
its disk needs the room for whole files.

The lower layers and the work directory are those that UPPER was last mounted with, as
recorded on it, if they are not given.

exit status: 0 all files are whole, 4 some are not, 8 it failed
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.epilog = _HELP
    parser.add_argument("upper", metavar="UPPER", help="an upper directory that is not mounted")
    add_lowers(parser, "a lower layer, as check has it [those of the last mount]")
    parser.add_argument("--work", metavar="DIR", help="its work directory [that of the last mount]")


def run(arguments: argparse.Namespace) -> int:
    """Make all files whole, and say how many could not be."""
    offline.require_root()
    logs.to_stderr(0)
    try:
        left = _settle(arguments)
    except OSError as exc:
        print(f"unionfs: {exc}", file=sys.stderr)
        return FAILED
    return LEFT if left else CLEAN


def _settle(arguments: argparse.Namespace) -> int:
    upper = offline.find_upper(arguments.upper)
    try:
        recorded_lowers, recorded_work = offline.recorded(upper)
    finally:
        os.close(upper.fd)
    lowers, work = arguments.lower or recorded_lowers, arguments.work or recorded_work
    if not lowers or not work:
        raise Refused(f"{upper.label}: say with --lower and --work what it was mounted with")
    options = Options(lowers=tuple(lowers), upper=arguments.upper, work=work)
    stack = opening.open_stack(options)
    try:
        return settling.settle(CopyUp(Union(stack, Features())).partials)
    finally:
        os.chdir("/")  # not in a layer
        stack.close()
