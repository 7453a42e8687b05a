"""Open directories: what was listed when reading began, at offsets that stay.

An offset is an index into the names of that moment (telldir(3)), `.` and `..`
first; names that came later are not listed, and names that went are left out.
Reading from the start again lists anew (rewinddir(3)).
"""

import errno
import os
import stat
from collections.abc import Iterator
from typing import NamedTuple

from unionfs.node import Node
from unionfs.union import Union
from unionfs.whiteouts import KIND_BITS, KIND_MASK

_DOTS = (b".", b"..")
_DIRECTORY = stat.S_IFDIR >> 12


class Listed(NamedTuple):
    """One entry of a listing, looked up."""

    name: bytes
    node: Node
    st: os.stat_result | None  # None for `.` and `..`, which are no look-ups
    after: int  # the offset that follows


# One entry of a listing, as the layers' own listings tell it: its name, inode number, kind (DT_*)
# and the offset that follows.  (There may be 100,000, and a record takes its time.)
Hinted = tuple[bytes, int, int, int]


class _Listing:
    """An open directory: its node, and the names it showed when reading began."""

    __slots__ = ("hints", "names", "node")

    def __init__(self, node: Node) -> None:
        self.node = node
        self.names: list[bytes] | None = None
        self.hints: list[int] = []  # beside `names`; see `Union.listing`


class Listings:
    """The open directories of one mount, by handle."""

    def __init__(self, union: Union) -> None:
        self.union = union
        self._open: dict[int, _Listing] = {}  # handle -> an open directory
        self._next = 1

    def open(self, node: Node) -> int:
        """Open a directory and return its handle."""
        handle = self._next
        self._next += 1
        self._open[handle] = _Listing(node)
        return handle

    def node(self, handle: int) -> Node:
        """Return the node of an open directory."""
        return self._open[handle].node

    def close(self, handle: int) -> None:
        """Forget an open directory."""
        del self._open[handle]

    def read(self, handle: int, start: int) -> Iterator[Listed]:
        """Look up the entries from the offset *start* on."""
        names, _ = self._names(handle, start)
        node = self._open[handle].node
        for offset in range(start, len(_DOTS)):
            yield Listed(_DOTS[offset], self._dot(node, offset), None, offset + 1)
        for index in range(max(start - len(_DOTS), 0), len(names)):
            name = names[index]
            found = self._find(node, name)
            if found is not None:
                yield Listed(name, *found, index + len(_DOTS) + 1)

    def read_names(self, handle: int, start: int) -> Iterator[Hinted]:
        """Yield the entries from the offset *start* on; no look-up is made where none is needed."""
        names, hints = self._names(handle, start)
        node = self._open[handle].node
        for offset in range(start, len(_DOTS)):
            yield _DOTS[offset], self._dot(node, offset).ino, _DIRECTORY, offset + 1
        for index in range(max(start - len(_DOTS), 0), len(names)):
            ino, kind = hints[index] >> KIND_BITS, hints[index] & KIND_MASK
            if not ino:
                found = self._find(node, names[index])
                if found is None:
                    continue
                ino, kind = found[0].ino, found[0].format >> 12
                self.union.nodes.drop_if_unknown(found[0])
            yield names[index], ino, kind, index + len(_DOTS) + 1

    def _names(self, handle: int, start: int) -> tuple[list[bytes], list[int]]:
        listing = self._open[handle]
        if start == 0 or listing.names is None:
            shown = self.union.listing(listing.node)
            listing.names, listing.hints = list(shown), list(shown.values())
        return listing.names, listing.hints

    @staticmethod
    def _dot(node: Node, offset: int) -> Node:
        return node.parent or node if offset else node

    def _find(self, node: Node, name: bytes) -> tuple[Node, os.stat_result] | None:
        """Look a listed name up; None where it is gone by now, or damaged.

        A damaged name is left out (and logged), so that the others are listed; a
        look-up of it says EIO.
        """
        try:
            return self.union.lookup(node, name)
        except OSError as exc:
            if exc.errno != errno.EIO:
                raise
            return None
