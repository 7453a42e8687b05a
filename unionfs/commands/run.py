"""`unionfs run`: run a command in a union root of its own, which is then thrown away, or kept.

There are three processes: this one waits and passes signals on; the daemon serves
the union; the command runs in it.  The daemon holds a pipe whose other end this
process has.  However this process ends, the daemon notices, ends all processes in
the namespace, and then itself: nothing stays behind.  (prctl(2)'s PR_SET_PDEATHSIG
would not do for the daemon: setfsuid(2) clears it.)
"""

import argparse
import contextlib
import logging
import os
import signal
import sys
import threading
import time
from dataclasses import replace
from typing import NamedTuple

from unionfs.commands import arguments as words
from unionfs.commands import privateroot
from unionfs.host import inherited, mountcalls
from unionfs.layers.stack import Stack
from unionfs.mounting import daemon, live, logs, opening, uppers
from unionfs.mounting.options import Options, Refused, settled

log = logging.getLogger(__name__)

_FAILED = 1  # exit status

# How many changes the summary shows; `unionfs diff` lists all that are kept.
_SHOWN = 40

# Seconds that the daemon may take to end all processes and itself.
_PATIENCE = 10.0

# Passed on to the command, unless the terminal has sent them to it as well.
_FORWARDED = frozenset({
    signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP,
    signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH, signal.SIGALRM,
})  # fmt: skip
_SI_KERNEL = 0x80  # sigaction(2), si_code


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    words.add_layers(parser)
    parser.add_argument(
        "--keep", metavar="DIR", help="keep the changes in DIR/upper; a later run goes on from them"
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="print no summary of changes")
    parser.add_argument("command", metavar="COMMAND", nargs="+", help="what to run, after --")
    parser.usage = "%(prog)s [--lower DIR] [--ram SIZE | --keep DIR] [-o OPTIONS] -- COMMAND ..."
    parser.epilog = (
        "The lower layer is / unless --lower names others.  /proc, /sys, /dev and /run are the\n"
        "host's own; other file systems mounted below / are shown read-only.\n"
        "The exit status is COMMAND's, 128 + N if signal N killed it, 126 or 127 if it cannot be\n"
        f"run or found, 2 if the union cannot be made.\n\n{words.layer_options()}"
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit status."""
    logs.to_stderr(arguments.verbose)
    options = _options(arguments)
    opening.require_privileges()
    order = _Order(arguments.command, _directory(), inherited.Belongings())
    stack = _opened(options, arguments.keep)
    try:
        status = _run_over(stack, options, order)
        if not arguments.quiet:
            _summarize(stack, arguments.keep or options.upper)
        return status
    finally:
        stack.close()


def _directory() -> str:
    """Return the working directory; / if it is gone."""
    try:
        return os.getcwd()
    except OSError as exc:
        log.info("working directory: %s; starting in /", exc.strerror)
        return "/"


def _options(arguments: argparse.Namespace) -> Options:
    options = words.options_from(arguments)
    if arguments.keep is not None and (options.ram is not None or options.upper):
        raise Refused("--keep and another upper exclude each other: leave one out")
    if arguments.keep is not None:
        keep = os.path.abspath(arguments.keep)
        options = replace(options, upper=f"{keep}/upper", work=f"{keep}/work")
    elif not options.upper:
        options = replace(options, ram=options.ram or "")
    return settled(replace(options, lowers=options.lowers or ("/",)))


def _opened(options: Options, keep: str | None) -> Stack:
    """Open the layers; make the directories of --keep, and remove them if that is refused."""
    made = []
    try:
        for path in (os.path.abspath(keep), options.upper, options.work) if keep else ():
            if path and not os.path.lexists(path):
                os.mkdir(path)
                made.append(path)
        stack = opening.open_stack(options)
    except OSError as exc:
        raise Refused(f"cannot keep changes in '{keep}': {exc.strerror}") from None
    except Refused:
        for path in reversed(made):
            os.rmdir(path)
        raise
    if options.upper in made and stack.upper is not None:
        uppers.resemble(stack.upper.fd, stack.lowers[0].fd)
    return stack


# The three processes


class _Order(NamedTuple):
    """The command to be run, and how."""

    command: list[str]
    directory: str
    belongings: inherited.Belongings


def _run_over(stack: Stack, options: Options, order: _Order) -> int:
    mountcalls.unshare_mounts()
    bound = privateroot.copies_of_host_mounts(options.lowers)
    root = privateroot.mountpoint()
    server = _start_daemon(stack, options, root, bound)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {*_FORWARDED, signal.SIGCHLD})
    try:
        child = os.fork()
        if not child:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            _become(order, root, bound)
        for tree in bound:
            os.close(tree.tree)
        _leave_to_command()
        return _attend(child, server.pid, root)
    finally:
        _end_daemon(server)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


class _Server(NamedTuple):
    """The daemon, seen from the process that started it."""

    pid: int
    lifeline: int  # the daemon ends when this is closed


def _start_daemon(
    stack: Stack, options: Options, root: str, bound: list[privateroot.Bound]
) -> _Server:
    """Return the daemon once the union serves."""
    ready, ready_end = os.pipe()
    lifeline_end, lifeline = os.pipe()
    parent = os.getpid()
    child = os.fork()
    if not child:
        for fd in (ready, lifeline, *(tree.tree for tree in bound)):
            os.close(fd)
        sys.exit(_serve(stack, options, root, _Line(parent, ready_end, lifeline_end)))
    os.close(ready_end)
    os.close(lifeline_end)
    with open(ready, "rb") as pipe:
        if pipe.read(1):
            return _Server(child, lifeline)
    _, status = os.waitpid(child, 0)
    raise SystemExit(max(os.waitstatus_to_exitcode(status), _FAILED))


class _Line(NamedTuple):
    """The process that started the daemon, seen from the daemon."""

    pid: int
    ready: int  # takes a byte when the union serves
    lifeline: int  # a pipe that ends with the other process


def _serve(stack: Stack, options: Options, root: str, parent: _Line) -> int:
    os.setsid()  # the terminal's signals are for the command
    inherited.leave_caller()
    _leave_to_command()

    def started() -> None:
        os.write(parent.ready, b"1")
        os.close(parent.ready)
        threading.Thread(target=end_with_parent, daemon=True).start()

    def end_with_parent() -> None:
        os.read(parent.lifeline, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    def end_others() -> None:
        privateroot.end_others(parent.pid)

    status = daemon.serve(stack, options, root, started, before_unmounting=end_others)
    return status or daemon.sync(stack, options)


def _leave_to_command() -> None:
    """Let go of input, output and whatever the caller has opened; messages go to stderr."""
    inherited.close_leaked()
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for fd in (0, 1):
        os.dup2(null, fd)
    os.close(null)


def _become(order: _Order, root: str, bound: list[privateroot.Bound]) -> None:
    """Turn this process into the command; does not return."""
    try:
        mountcalls.signal_at_death_of_parent(signal.SIGKILL)
        privateroot.enter(root, bound, order.directory)
        order.belongings.give_back()
        privateroot.become(order.command)
    except OSError as exc:
        print(f"unionfs: cannot enter the union: {exc.strerror}", file=sys.stderr)
    finally:
        sys.stderr.flush()
        os._exit(_FAILED)


def _attend(child: int, server: int, root: str) -> int:
    """Pass signals on until the command has ended; return its exit status."""
    while True:
        info = signal.sigwaitinfo({*_FORWARDED, signal.SIGCHLD})
        if info.si_signo != signal.SIGCHLD:
            if info.si_code != _SI_KERNEL:
                os.kill(child, info.si_signo)
            continue
        ended, status = os.waitpid(child, os.WNOHANG)
        if (ended or _has_ended(server)) and live.find(root).status is None:
            print("unionfs: the union's daemon died; the command is ended", file=sys.stderr)
            privateroot.end_others()  # the command too, unless it got SIGBUS before
            return _FAILED
        if ended:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def _has_ended(pid: int) -> bool:
    """Tell whether a child has ended, and leave its status to be waited for."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _end_daemon(server: _Server) -> None:
    os.close(server.lifeline)
    deadline = time.monotonic() + _PATIENCE
    while not _has_ended(server.pid):
        if time.monotonic() > deadline:
            log.warning("a process still holds the union; its daemon is killed")
            os.kill(server.pid, signal.SIGKILL)
            break
        time.sleep(0.005)
    os.waitpid(server.pid, 0)


# The summary


class _Tally(NamedTuple):
    lines: list[str]
    counts: dict[str, int]


def _summarize(stack: Stack, kept: str | None) -> None:
    from unionfs.audit import comparison  # noqa: PLC0415 - not needed before the command has ended

    tally = _Tally([], {"added": 0, "changed": 0, "deleted": 0})
    for change in comparison.changes(stack):
        tally.counts[change.kind] += 1
        if len(tally.lines) < _SHOWN:
            detail = f" ({change.detail})" if change.detail else ""
            tally.lines.append(f"{change.kind:8} /{os.fsdecode(change.path)}{detail}")
    total = sum(tally.counts.values())
    hidden = [f"... and {total - _SHOWN} more"] if total > _SHOWN else []
    counts = ", ".join(f"{count} {kind}" for kind, count in tally.counts.items() if count)
    where = f"kept in '{kept}'" if kept else "thrown away"
    last = f"unionfs: {counts}; {where}" if total else "unionfs: nothing was changed"
    with contextlib.suppress(BrokenPipeError):
        print(*tally.lines, *hidden, last, sep="\n", file=sys.stderr)
