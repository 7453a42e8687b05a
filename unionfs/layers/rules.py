"""Which layers make up a name, and what may replace it: rules free of any I/O.

A stack is read top first.  What one layer holds under a name is a `Found`;
`visible` picks the entries that show through, `merged` does it for whole
listings.  They agree by law: a name is in `merged` exactly when its column is
not empty in `visible` (tests/core/layers/test_rules.py).  The rules are those of
overlayfs.rst, "Upper and Lower", "whiteouts and opaque directories",
"Metadata only copy up".
"""

import enum
import errno
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, TypeVar


class Found(enum.Enum):
    """What one layer holds under one name."""

    NOTHING = enum.auto()
    WHITEOUT = enum.auto()  # hides the name in every layer below
    FILE = enum.auto()  # anything that is not a directory
    METACOPY = enum.auto()  # a regular file whose content is that of the file below
    DIRECTORY = enum.auto()
    OPAQUE = enum.auto()  # a directory that hides the ones below it


# Getting a member from its enumeration takes a call before Python 3.12.
_NOTHING, _WHITEOUT = Found.NOTHING, Found.WHITEOUT
_FILES = frozenset({Found.FILE, Found.METACOPY})
_LAST = frozenset({Found.FILE, Found.OPAQUE})


class HasFound(Protocol):
    """Anything that says what a layer holds."""

    @property
    def found(self) -> Found:
        """What the layer holds."""


Entry = TypeVar("Entry", bound=HasFound)


def visible(column: Iterable[Entry]) -> list[Entry]:
    """Return the entries that show through, top first; ask no layer below a decided one."""
    shown: list[Entry] = []
    for entry in column:
        found = entry.found
        if found is _NOTHING:
            continue
        if found is _WHITEOUT:
            break
        if shown and (found in _FILES) != (shown[0].found in _FILES):
            break
        shown.append(entry)
        if found in _LAST:
            break
    return shown


def merged(listings: Sequence[Mapping[bytes, int]]) -> dict[bytes, int]:
    """Merge the listings of a directory's layers, top first.

    A listing maps a name to zero where that layer hides it (a whiteout), else to
    anything.  Return each visible name with the topmost listing's value.
    """
    shown: dict[bytes, int] = {}
    hidden: set[bytes] = set()
    for listing in listings:
        for name, hint in listing.items():
            if name in shown or name in hidden:
                continue
            if hint:
                shown[name] = hint
            else:
                hidden.add(name)
    return shown


def require_replaceable(
    *, source_is_directory: bool, target_is_directory: bool, target_is_empty: bool
) -> None:
    """Raise the errno of rename(2) where one object must not take the place of another."""
    if target_is_directory:
        if not source_is_directory:
            raise OSError(errno.EISDIR, "the target is a directory")
        if not target_is_empty:
            raise OSError(errno.ENOTEMPTY, "the target directory is not empty")
    elif source_is_directory:
        raise OSError(errno.ENOTDIR, "the target is not a directory")
