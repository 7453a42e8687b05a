"""Steps that change how a machine boots: printed first, then done, and undone where one fails.

A step is a file that is written or removed, or a command that is run.  Files
are replaced by rename, so a machine that loses power in the middle boots by
the old file or the new one.
"""

import contextlib
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


class Failed(Exception):  # noqa: N818 - says what happened to a step
    """A step could not be done; the steps before it have been undone."""


class Step(Protocol):
    """One step."""

    def __str__(self) -> str:
        """Describe the step, in a line for people."""

    def do(self) -> None:
        """Do the step; OSError or Failed where it cannot be done."""

    def undo(self) -> None:
        """Undo the step."""


def _read(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None


def _replace(path: str, text: bytes, mode: int) -> None:
    aside = f"{path}.unionfs-new"
    fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        os.write(fd, text)
        os.fchmod(fd, mode)
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(aside, path)


@dataclass
class Write:
    """Write a file; its directory is made where need be."""

    path: str
    text: bytes
    mode: int = 0o644

    def __post_init__(self) -> None:
        self._before = _read(self.path)

    @property
    def is_done(self) -> bool:
        """Tell whether the file has that content already."""
        return self._before == self.text

    def __str__(self) -> str:
        return f"{'write' if self._before is None else 'change'} {self.path}"

    def do(self) -> None:
        """Write it."""
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            self.mode = os.stat(self.path).st_mode & 0o7777
        _replace(self.path, self.text, self.mode)

    def undo(self) -> None:
        """Write the old content, or remove the file."""
        if self._before is None:
            os.unlink(self.path)
        else:
            _replace(self.path, self._before, self.mode)


@dataclass
class Remove:
    """Remove a file, and its directory if that is empty then and is *own*."""

    path: str
    own: bool = False

    def __post_init__(self) -> None:
        self._before = _read(self.path)

    @property
    def is_done(self) -> bool:
        """Tell whether there is no such file."""
        return self._before is None

    def __str__(self) -> str:
        return f"remove {self.path}"

    def do(self) -> None:
        """Remove it."""
        self._mode = os.stat(self.path).st_mode & 0o7777
        os.unlink(self.path)
        if self.own:
            with contextlib.suppress(OSError):  # not empty
                os.rmdir(os.path.dirname(self.path))

    def undo(self) -> None:
        """Write it again."""
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        _replace(self.path, self._before or b"", self._mode)


@dataclass
class Run:
    """Run a command that brings something up to date; undoing the step runs it again."""

    words: Sequence[str]
    root: str = "/"

    is_done = False

    def __str__(self) -> str:
        return f"run {' '.join(self.words)}"

    def do(self) -> None:
        """Run it."""
        words = list(self.words) if self.root == "/" else ["chroot", self.root, *self.words]
        done = subprocess.run(words, check=False, capture_output=True, text=True)
        if done.returncode:
            said = (done.stderr or done.stdout).strip()
            raise Failed(f"{' '.join(self.words)} failed: {said}")

    def undo(self) -> None:
        """Run the command again, over the old files."""
        with contextlib.suppress(Failed):
            self.do()


def needed(steps: Sequence[Step]) -> list[Step]:
    """Return the steps that change something; nothing where only commands would be run."""
    left = [step for step in steps if not getattr(step, "is_done", False)]
    return left if any(not isinstance(step, Run) for step in left) else []


def _undo(done: list[Step]) -> None:
    """Undo steps, the last first, but commands after all files, which they read."""
    done.reverse()
    for step in sorted(done, key=lambda step: isinstance(step, Run)):
        step.undo()


def carry_out(steps: Sequence[Step]) -> None:
    """Do all steps, in order; where one fails, undo those before it and report that."""
    done: list[Step] = []
    for step in steps:
        try:
            step.do()
        except (OSError, Failed) as exc:
            _undo(done)
            raise Failed(f"{step}: {exc}; nothing was changed") from None
        done.append(step)
