"""`unionfs mount`: the command that returns when the mount serves.

The daemon is a child that inherits stderr until it serves: its complaints are
the command's, its exit status too.  One byte through a pipe says "it serves";
then the parent leaves with status 0 and the child lets go of the terminal.
"""

import argparse
import os
import signal
import sys
from collections.abc import Callable

from unionfs import arguments as words
from unionfs import daemon, live, logs, mountcalls, opening
from unionfs.options import Options, Refused, parse, settled

_FAILED = 1  # exit status


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    words.add_layers(parser)
    parser.add_argument("--upper", metavar="DIR", help="the layer that takes all changes")
    parser.add_argument(
        "--work", metavar="DIR", help="an empty directory beside upper, for staging"
    )
    parser.add_argument("-f", "--foreground", action="store_true", help="stay in the foreground")
    parser.add_argument("mountpoint", metavar="MOUNTPOINT", help="where to mount")
    parser.epilog = f"Without an upper the union is read-only.\n\n{words.LAYER_OPTIONS}"


def run(arguments: argparse.Namespace) -> int:
    """Mount, or change the flags of a live mount."""
    logs.to_stderr(arguments.verbose)
    base = Options(subtype=_own_name(), source=getattr(arguments, "source", "") or "unionfs")
    options = words.options_from(arguments, base)
    if options.remount:
        return _remount(arguments.mountpoint, arguments.options)
    options = settled(options)
    mountpoint = os.path.realpath(arguments.mountpoint)
    if arguments.foreground:
        return _serve(options, mountpoint, started=lambda: None)
    return _in_background(options, mountpoint)


def _own_name() -> str:
    """Return the file system's subtype: Debian's unionfs-fuse owns the other name too."""
    return "pyunionfs" if os.path.basename(sys.argv[0]) == "pyunionfs" else "unionfs"


def _serve(options: Options, mountpoint: str, started: Callable[[], None]) -> int:
    opening.require_privileges()
    stack = opening.open_stack(options, mountpoint)
    try:
        return daemon.serve(stack, options, mountpoint, started)
    finally:
        stack.close()


def _in_background(options: Options, mountpoint: str) -> int:
    """Fork the daemon; return 0 in the parent when it serves, else its exit status."""
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        return _await(child, reading)
    os.close(reading)
    os.setsid()

    def let_go() -> None:
        _leave_terminal()
        os.write(writing, b"1")
        os.close(writing)

    return _serve(options, mountpoint, let_go)


def _await(child: int, reading: int) -> int:
    try:
        if os.read(reading, 1):
            return 0
    except KeyboardInterrupt:
        os.kill(child, signal.SIGTERM)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        print(f"unionfs: the daemon died of {signal.Signals(-code).name}", file=sys.stderr)
    return code if code > 0 else _FAILED


def _leave_terminal() -> None:
    """Log to syslog, and let go of the descriptors that the command came with."""
    logs.to_syslog()
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for fd in range(3):
        os.dup2(null, fd)
    os.close(null)


# Remounting

# What statvfs(3) says -> the flag of mount(2); the others are the same bits.
_ST_RELATIME = 4096
_SAME_BITS = (
    mountcalls.MS_RDONLY
    | mountcalls.MS_NOSUID
    | mountcalls.MS_NODEV
    | mountcalls.MS_NOEXEC
    | mountcalls.MS_SYNCHRONOUS
    | mountcalls.MS_NOATIME
    | mountcalls.MS_NODIRATIME
)


def _remount(mountpoint: str, strings: list[str]) -> int:
    """Change the flags of a live mount, starting from those that it has."""
    mounted = live.find(mountpoint)
    if mounted.status is None:
        raise Refused(f"the daemon of '{mountpoint}' is dead: unmount it and mount it again")
    options = parse(strings, Options(flags=_flags_at(mounted.mountpoint)))
    if not options.flags & mountcalls.MS_RDONLY and mounted.status["layers"]["upper"] is None:
        raise Refused(
            f"'{mountpoint}' has no upper layer, so it stays read-only:"
            " mount it again with --upper and --work, or with --ram"
        )
    flags = options.flags | mountcalls.MS_REMOUNT
    try:
        mountcalls.mount("none", mounted.mountpoint, "none", flags)
    except OSError as exc:
        print(f"unionfs: cannot remount '{mountpoint}': {exc.strerror}", file=sys.stderr)
        return _FAILED
    return 0


def _flags_at(path: str) -> int:
    said = os.statvfs(path).f_flag
    return said & _SAME_BITS | (mountcalls.MS_RELATIME if said & _ST_RELATIME else 0)
