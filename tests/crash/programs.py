"""Real programs that replace files, and what must hold when the union under them dies.

A program runs in a union root over this machine's own: its binaries, libraries
and settings are the machine's, what it changes was planted in a lower above.
Whatever was under way, each file that the program replaces by rename(2) is
whole; and after what the program's documentation asks for, it succeeds.

The programs themselves are in `accounts` and `tools`.
"""

import subprocess
from collections.abc import Callable
from typing import NamedTuple

_ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C",
    "TZ": "UTC",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_SYSTEM": "/dev/null",
    "GIT_OPTIONAL_LOCKS": "0",
}
_PATIENCE = 120  # seconds; a program that does not notice the death of its root by then hangs


class Done(NamedTuple):
    """What a script printed, and its exit status."""

    status: int
    out: str
    err: str


def inside(top: str, script: str) -> Done:
    """Run *script* with *top* as its root."""
    return _run(["chroot", top, "/bin/sh", "-euc", script])


def outside(directory: str, script: str) -> Done:
    """Run *script* in *directory*, with the machine's own root."""
    return _run(["/bin/sh", "-euc", script], directory)


def _run(command: list[str], directory: str = "/") -> Done:
    done = subprocess.run(
        command, cwd=directory, env=_ENVIRONMENT, stdin=subprocess.DEVNULL, capture_output=True,
        text=True, check=False, timeout=_PATIENCE,
    )  # fmt: skip
    return Done(done.returncode, done.stdout, done.stderr)


def must(done: Done) -> str:
    """Return what was printed by what must not fail."""
    if done.status != 0:
        raise OSError(f"status {done.status}: {done.out}{done.err}")
    return done.out


class Program(NamedTuple):
    """One program at work; a tree is given by its top, and judged in words."""

    name: str
    plant: Callable[[str], None]  # fills the lower
    script: str
    whole: Callable[[str, str], list[str]]  # what is wrong after a crash; and what was printed
    done: Callable[[str], list[str]]  # what is wrong after a run that said to have succeeded
    replaced: tuple[str, ...]  # files that are replaced by rename(2), once
    recover: str = ":"  # what the documentation tells to do after a crash


def read(path: str) -> str | None:
    """Return the text of a file, None where there is none."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return None
