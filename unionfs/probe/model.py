"""What a check is, and what it may find.

A check is a function that renames things in the current directory, where its
tree lies, and raises what it finds wrong.  `required` tells what POSIX demands
of rename() from what Linux and good file systems add; only the former decides
whether a file system passes.

Sources: "POSIX" in the docstrings of checks is IEEE Std 1003.1-2017, rename();
"Linux" is rename(2) of the Linux man-pages.
"""

import enum
import errno
import os
from collections.abc import Callable
from dataclasses import dataclass

from unionfs.probe import trees
from unionfs.probe.trees import Tree

# What a file system answers when it lacks hard links, symlinks, flags, ...
LACKING = (errno.EPERM, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTTY)


class Verdict(enum.StrEnum):
    """What came out of a check."""

    HOLDS = "holds"
    DIFFERS = "differs"
    NOT_SUPPORTED = "not supported"
    NOT_TRIED = "not tried"


class DiffersError(Exception):
    """The file system does something else; the message says what was seen."""


class NotSupportedError(Exception):
    """The file system lacks what the check is about."""


class NotTriedError(Exception):
    """The check needs a privilege or a tool that is not there."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The verdict on one check, and what was seen."""

    verdict: Verdict
    seen: str = ""


@dataclass(frozen=True, slots=True)
class Trial:
    """One run of a check: the tree it starts with, and how long it may race."""

    tree: Tree
    rounds: int

    def shows(self, wanted: Tree) -> None:
        """Raise unless the directory now holds exactly *wanted*.

        Names that are gone are looked up too: a listing and a look-up go
        different ways, and caches of absent and of present names lie apart.
        """
        wrong = trees.difference(trees.harvest(), trees.plain(wanted))
        if wrong is not None:
            raise DiffersError(wrong)
        for name in self.tree:
            if name not in wanted and os.path.lexists(name):
                raise DiffersError(f"{name} is not listed, but found")

    def unchanged(self) -> None:
        """Raise unless the directory still holds the tree of the start."""
        self.shows(self.tree)

    def refused(self, source: str, target: str, *errnos: int) -> None:
        """Raise unless the rename fails with one of *errnos* and changes nothing."""
        refuses(lambda: os.rename(source, target), *errnos)
        self.unchanged()


Action = Callable[[Trial], str | None]  # may return a note to be shown beside "holds"


@dataclass(frozen=True, slots=True)
class Check:
    """A semantic, how to try it, and whether POSIX requires it."""

    title: str
    tree: Tree
    required: bool
    act: Action

    @property
    def slug(self) -> str:
        """The name of its directory and its key in the JSON."""
        return self.act.__name__.replace("_", "-")


def posix(title: str, tree: Tree) -> Callable[[Action], Check]:
    """Make a check of what POSIX requires of rename()."""
    return lambda act: Check(title, tree, required=True, act=act)


def beyond(title: str, tree: Tree) -> Callable[[Action], Check]:
    """Make a check of what Linux adds, or what programs have come to expect."""
    return lambda act: Check(title, tree, required=False, act=act)


def refuses(call: Callable[[], object], *errnos: int) -> None:
    """Raise unless *call* fails with one of *errnos*."""
    wanted = " or ".join(map(error_name, errnos))
    try:
        call()
    except OSError as exc:
        if exc.errno not in errnos:
            raise DiffersError(f"{error_name(exc.errno)}, not {wanted}") from None
    else:
        raise DiffersError(f"succeeds, not {wanted}")


def expect(condition: object, otherwise: str) -> None:
    """Raise that *otherwise* was seen unless *condition* is true."""
    if not condition:
        raise DiffersError(otherwise)


def error_name(number: int | None) -> str:
    """Return the name of an errno, as man pages write it."""
    return errno.errorcode.get(number or 0, f"error {number}")
