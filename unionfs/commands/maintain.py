"""`unionfs maintain`: run a command, or a shell, in the lower of a union, writable meanwhile.

On a machine that runs on a union, this is the way to change the true root: apt,
update-initramfs and update-grub find /dev, /proc, /sys, /run and /boot in place.  The
command has a mount namespace of its own: the union goes on above it, and nobody else can
write to the lower.

There are two processes beside the command.  This one waits.  The other has the
namespace, ends what still runs there, and makes the lower read-only again.  If that one is
killed, this one does the same.  Neither ends before the command has ended.
"""

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Iterator

from unionfs.commands import offline, privateroot, truelower
from unionfs.host import mountcalls
from unionfs.mounting import live
from unionfs.mounting.places import Place

_FAILED = 1  # exit status

# Beside what the kernel provides: the file systems that a kernel or boot loader is written to.
_BOOT_PLACES = ("/boot", "/boot/efi", "/boot/firmware", "/efi")

_EPILOG = """\
Without a COMMAND: a shell.  The lower is that of the union at /, or of --union.  /dev, /proc,
/sys and /run are the machine's own, and so is /boot where that is a file system.

Changes of the lower show in the union at the next boot.  Until then some files show them and
some do not: a file that the union has in memory, or in its upper, stays as it was.
Services that a package starts run with the others, over the union.

The exit status is COMMAND's; 126 or 127 if it cannot be run or found; 1 if the lower could not
be made read-only again: a message says so.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.epilog = _EPILOG
    parser.add_argument(
        "--union", metavar="MOUNTPOINT", default="/", help="which union's lower [/]"
    )
    parser.add_argument("command", metavar="COMMAND", nargs="*", help="what to run, after --")


def run(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit status."""
    offline.require_root()
    mounted = live.find(arguments.union)
    lower = truelower.find(mounted)
    command = arguments.command or [os.environ.get("SHELL") or "/bin/sh"]
    guarded = truelower.is_read_only(lower)
    _ignore_signals()
    guard = os.fork()
    if not guard:
        sys.exit(_guard(lower, mounted.mountpoint, command))
    _, status = os.waitpid(guard, 0)
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return code
    print(f"unionfs: killed by {signal.Signals(-code).name}", file=sys.stderr)
    if guarded:
        truelower.protect(lower, mounted.mountpoint)
    return _FAILED


def _ignore_signals() -> None:
    """Leave the terminal's signals to the command, and outlive it."""
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _guard(lower: Place, union: str, command: list[str]) -> int:
    try:
        _drop_caches()
        with truelower.writable(lower, union) as root:
            bound = [*privateroot.copies_of_kernel_places(), *_boot_places()]
            child = os.fork()
            if not child:
                _become(command, root, bound)
            for tree in bound:
                os.close(tree.tree)
            _, status = os.waitpid(child, 0)
            privateroot.end_others()
            _drop_caches()
    except OSError as exc:
        print(f"unionfs: {exc}", file=sys.stderr)
        return _FAILED
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _drop_caches() -> None:
    """Make the kernel drop the files that nobody uses; the daemon then forgets them, too.

    A failure does no harm.  The second call drops files that the first spared as used lately.
    """
    with contextlib.suppress(OSError):
        for _ in range(2):
            with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as file:
                file.write("3")  # pages and names: proc(5)


def _boot_places() -> Iterator[privateroot.Bound]:
    """Yield writable copies of the file systems from which the machine boots."""
    for place in _BOOT_PLACES:
        if os.path.ismount(place):
            tree = privateroot.copied(place, read_only=False)
            if tree is not None:
                yield privateroot.Bound(place, tree)


def _become(command: list[str], root: str, bound: list[privateroot.Bound]) -> None:
    """Turn this process into the command; does not return."""
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    mountcalls.signal_at_death_of_parent(signal.SIGKILL)
    privateroot.enter(root, bound, "/")
    os.environ["debian_chroot"] = "maintain"  # noqa: SIM112 - bash's prompt on Debian shows it
    privateroot.become(command)
