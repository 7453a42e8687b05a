"""Directories as programs read them: without state, so no directory has to be opened or closed.

An offset (telldir(3)) is a hash of the name before it, and names are shown in
the order of their hashes, as ext4 does.  So an offset means the same however
often the directory was listed and changed meanwhile: a name that was there all the
time is shown once.  A name that came or went during the reading may show or not, and
reading from the start again lists anew (rewinddir(3), readdir(3)).
"""

import bisect
import errno
import itertools
import os
import stat
import time
from collections.abc import Iterator, Mapping

from unionfs.layers.far import Ask
from unionfs.layers.whiteouts import INO_SHIFT, KIND_MASK
from unionfs.view.node import Node
from unionfs.view.strides import FEW, Strides
from unionfs.view.union import Union

DOTS = (b".", b"..")
_DIRECTORY = stat.S_IFDIR >> 12

# Offsets of names are at least 2, after `.` and `..`, and below 2**63.  Among a million names
# two share an offset with a probability of 1e-7; one is lost only if a reply ends between them.
_HASH_SHIFT = 2
_HASH_MIDDLE = (1 << 61) + len(DOTS)

# Seconds for which a listing is kept for the requests that follow; and seconds for which it is kept
# however many there are, as a listing that is being read must not be made anew each time.
_KEPT_SECONDS = 30.0
_SURE_SECONDS = 2.0
_MOST_KEPT = 64
_MOST_NAMES = 100_000


def _offset(name: bytes) -> int:
    return (hash(name) >> _HASH_SHIFT) + _HASH_MIDDLE


# The inode number in place of an unknown one: libfuse, FUSE_UNKNOWN_INO.
_UNKNOWN_INO = 0xFFFFFFFF

# One entry of a listing, looked up: its name, node, attributes and the offset that follows.  The
# attributes are None for entries that do not count as look-ups: `.` and `..`, and names that cannot
# be looked up, or only by asking a far layer.
Listed = tuple[bytes, Node, os.stat_result | None, int]

# One entry of a listing, as the layers' own listings tell it: its name, inode number, kind (DT_*)
# and the offset that follows.  (There may be 100,000, and a record takes its time.)
Hinted = tuple[bytes, int, int, int]


def _bare(hint: int) -> Node:
    """Return a node, of no table, with what a listing tells of a name."""
    ino, format_ = hint >> INO_SHIFT or _UNKNOWN_INO, (hint & KIND_MASK) << 12
    return Node(ino, format_, 0, None, b"", upper=False, below=())


class _Listing:
    """What a directory showed at one moment."""

    __slots__ = ("hints", "names", "revision", "sought", "used")

    def __init__(self, hints: Mapping[bytes, int], revision: int) -> None:
        self.names = sorted(hints, key=hash)  # the order of `_offset`
        self.hints = hints  # see `Union.listing`
        self.revision = revision  # of the union: until it grows, the directory shows the same
        self.sought = False  # a reader seeks in it
        self.used = 0.0  # time.monotonic()


class Listings:
    """The directories of one mount that are being read."""

    def __init__(self, union: Union) -> None:
        self.union = union
        self._recent: dict[Node, _Listing] = {}  # the one used last at the end
        self._names = 0  # in all of these
        self._strides = Strides()

    def most(self, node: Node, start: int) -> int:
        """Return how many entries a reply from the offset *start* on may hold."""
        most = self._strides.most(node, start)
        if most == FEW and node in self._recent:
            self._recent[node].sought = True
        return most

    def sent(self, node: Node, start: int, after: int, most: int) -> None:
        """Take note that a reply of at most *most* entries ended at the offset *after*."""
        self._strides.sent(node, start, after, most)

    def read(self, node: Node, start: int) -> Iterator[Listed]:
        """Look up the entries from the offset *start* on."""
        listing, first = self._from(node, start)
        for index in range(start, len(DOTS)):
            yield DOTS[index], self._dot(node, index), None, index + 1
        if start:  # since it was listed, names may have come to be elsewhere
            for name in itertools.islice(listing.names, first, None):
                try:
                    found = self._find(node, name, 0)
                except (Ask, OSError) as exc:
                    _require_listable(exc)
                    yield name, _bare(listing.hints[name]), None, _offset(name) + 1
                    continue
                if found is not None:
                    yield name, *found, _offset(name) + 1
            return
        hints, find = listing.hints, self.union.lookup.finder(node)
        for name in listing.names:
            hint = hints[name]
            try:
                found = find(name, hint) or self._find(node, name, hint)
            except (Ask, OSError) as exc:  # a program that wants to know more looks the name up
                _require_listable(exc)
                yield name, _bare(hint), None, (hash(name) >> _HASH_SHIFT) + _HASH_MIDDLE + 1
                continue
            if found is not None:
                yield name, *found, (hash(name) >> _HASH_SHIFT) + _HASH_MIDDLE + 1

    def read_names(self, node: Node, start: int) -> Iterator[Hinted]:
        """Yield the entries from the offset *start* on, with no more look-ups than are needed."""
        listing, first = self._from(node, start)
        for index in range(start, len(DOTS)):
            yield DOTS[index], self._dot(node, index).ino, _DIRECTORY, index + 1
        names, hints = listing.names, listing.hints
        for index in range(first, len(names)):
            name = names[index]
            hint = hints[name]
            ino, kind = hint >> INO_SHIFT, hint & KIND_MASK
            if not ino:
                try:
                    found = self._find(node, name, 0)
                except (Ask, OSError) as exc:
                    _require_listable(exc)
                    yield name, _UNKNOWN_INO, kind, (hash(name) >> _HASH_SHIFT) + _HASH_MIDDLE + 1
                    continue
                if found is None:
                    continue
                ino, kind = found[0].ino, found[0].format >> 12
                self.union.nodes.drop_if_unknown(found[0])
            yield name, ino, kind, (hash(name) >> _HASH_SHIFT) + _HASH_MIDDLE + 1

    def _from(self, node: Node, start: int) -> tuple[_Listing, int]:
        """Return a listing and the index of the first name at *start* or after."""
        listing, revision = self._drop(node), self.union.known.revision
        if listing is None or (start == 0 and listing.revision != revision):
            listing = _Listing(self.union.listing(node), revision)
        first = bisect.bisect_left(listing.names, start, key=_offset)
        if (
            not start or first < len(listing.names) or listing.sought
        ):  # else the reader has seen all
            self._keep(node, listing)
        return listing, first

    def _keep(self, node: Node, listing: _Listing) -> None:
        listing.used = time.monotonic()
        while self._recent and self._outdated(listing.used):
            self._drop(next(iter(self._recent)))
        self._recent[node] = listing
        self._names += len(listing.names)

    def _outdated(self, now: float) -> bool:
        """Tell whether the least recently used listing is to be dropped."""
        many = len(self._recent) >= _MOST_KEPT or self._names > _MOST_NAMES
        oldest = next(iter(self._recent.values()))
        return now - oldest.used > (_SURE_SECONDS if many else _KEPT_SECONDS)

    def _drop(self, node: Node) -> _Listing | None:
        listing = self._recent.pop(node, None)
        if listing is not None:
            self._names -= len(listing.names)
        return listing

    @staticmethod
    def _dot(node: Node, index: int) -> Node:
        return node.parent or node if index else node

    def _find(self, node: Node, name: bytes, hint: int) -> tuple[Node, os.stat_result] | None:
        """Look a listed name up; None where it is gone by now."""
        return self.union.lookup.listed_node(node, name, hint)


def _require_listable(error: Exception) -> None:
    """Raise *error* unless the name is to be listed all the same: nobody may think that it is gone.

    It is listed where its layer's disk fails, or its marks are damaged; a look-up gives the error.
    """
    if isinstance(error, OSError) and error.errno != errno.EIO:
        raise error
