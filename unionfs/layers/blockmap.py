"""Which bytes of a partial copy are its own, and which are still the lower file's.

A partial copy is a metadata-only copy whose file in upper holds some of the content.  Blocks of
one size divide the file.  A byte is the lower's as long as it lies before `limit` and its block is
not marked; all others are the copy's, also where the copy has a hole.  So what lies behind the
lower's end is the copy's without a mark, and a file that was cut shows nothing of the lower again
when it grows.

Maps are values: a change makes another.  In each, the block before `limit` is not marked, so that
a copy is complete exactly when its limit is 0.

On disk, in an attribute (`markers.BLOCKS`): a byte for the version, 1; a byte s, blocks having 2^s
bytes; `limit`, 8 bytes; the marks, a bit for each block from the lowest of the first byte on, and
zeros that are left out at their end.  Numbers are little-endian.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

# 64 KiB, which takes 17 us to fill: less than the request that needs it.  256 KiB take 144; with
# 16 KiB, 7 us, maps are four times as long.
SHIFT = 16

# Of one map.  An attribute has room for 64 KiB (xattr(7)), and is written with each new mark.
_MOST_BLOCKS = 1 << 17
_MOST_SHIFT = 47

_HEAD = struct.Struct("<BBQ")
_VERSION = 1


class Run(NamedTuple):
    """Bytes that are in one place."""

    start: int
    end: int
    lower: bool  # in the lower file


class BlockMap(NamedTuple):
    """The map of one partial copy."""

    limit: int  # bytes
    marks: int = 0  # bit n: block n is the copy's
    shift: int = SHIFT

    @classmethod
    def unmarked(cls, size: int) -> "BlockMap":
        """Return the map of a copy of *size* bytes that holds none of them."""
        shift = SHIFT
        while size >> shift >= _MOST_BLOCKS:
            shift += 1
        return cls(size, 0, shift)

    @property
    def is_complete(self) -> bool:
        """Tell whether nothing of the lower shows any more."""
        return self.limit == 0

    def runs(self, start: int, end: int) -> Iterator[Run]:
        """Yield where the bytes from *start* to *end* are, neighbours in different places."""
        while start < end:
            stop, lower = self._run(start)
            yield Run(start, min(stop, end), lower)
            start = stop

    def _run(self, start: int) -> tuple[int, bool]:
        """Return where the run ends that *start* is in, and whether it is the lower's."""
        if start >= self.limit:
            return _FOR_EVER, False
        block = start >> self.shift
        marks = self.marks >> block
        if marks & 1:
            return (block + _ones(marks)) << self.shift, False
        if not marks:
            return self.limit, True
        return (block + _zeros(marks)) << self.shift, True

    def has(self, start: int, end: int) -> bool:
        """Tell whether all blocks that hold bytes from *start* to *end* are the copy's."""
        end = min(end, self.limit)
        if start >= end:
            return True
        first, last = start >> self.shift, (end - 1) >> self.shift
        return not ~(self.marks >> first) & ((1 << last - first + 1) - 1)

    def beginning(self, at: int) -> int:
        """Return where the block begins that has the byte *at*."""
        return at >> self.shift << self.shift

    def missing(self, start: int, end: int) -> tuple[Run, Run]:
        """Return what a write from *start* to *end* needs of the lower, before and behind it.

        That is the rest of the blocks that it writes to in part; mostly nothing.
        """
        first = self.beginning(start)
        if start >= self.limit:
            return Run(start, start, lower=True), Run(end, end, lower=True)
        last = min(-(-end >> self.shift) << self.shift, self.limit)
        head = first if self._is_lower(start) else start
        tail = last if end < last and self._is_lower(end) else end
        return Run(head, start, lower=True), Run(end, tail, lower=True)

    def _is_lower(self, at: int) -> bool:
        return at < self.limit and not self.marks >> (at >> self.shift) & 1

    def marked(self, start: int, end: int) -> "BlockMap":
        """Return the map when the copy has all blocks that hold bytes from *start* to *end*."""
        end = min(end, self.limit)
        if start >= end:
            return self
        first, last = start >> self.shift, (end - 1) >> self.shift
        return self._trimmed(self.limit, self.marks | ((1 << last - first + 1) - 1) << first)

    def cut(self, size: int) -> "BlockMap":
        """Return the map when the file has had no more than *size* bytes."""
        if size >= self.limit:
            return self
        blocks = -(-size >> self.shift)
        return self._trimmed(size, self.marks & ((1 << blocks) - 1))

    def _trimmed(self, limit: int, marks: int) -> "BlockMap":
        """Move the limit before the marked blocks at the end, of which it says all there is."""
        blocks = -(-limit >> self.shift)
        unmarked = ((1 << blocks) - 1) & ~marks
        kept = unmarked.bit_length()  # up to the last block that is not marked
        return BlockMap(min(limit, kept << self.shift), marks & ((1 << kept) - 1), self.shift)

    def encoded(self) -> bytes:
        """Return its form on disk."""
        marks = self.marks.to_bytes((self.marks.bit_length() + 7) // 8, "little")
        return _HEAD.pack(_VERSION, self.shift, self.limit) + marks

    @classmethod
    def decoded(cls, data: bytes) -> "BlockMap":
        """Return the map that *data* is the form of; ValueError where it is none."""
        if len(data) < _HEAD.size:
            raise ValueError("it is too short")
        version, shift, limit = _HEAD.unpack_from(data)
        if version != _VERSION or not SHIFT <= shift <= _MOST_SHIFT or limit >= 1 << 63:
            raise ValueError("it is of another version, or damaged")
        found = cls(limit, int.from_bytes(data[_HEAD.size :], "little"), shift)
        if found != found._trimmed(found.limit, found.marks):
            raise ValueError("its marks go beyond its limit")
        return found


_FOR_EVER = 1 << 63  # behind any byte of a file


def _zeros(number: int) -> int:
    """Return how many bits of *number*, which is not 0, are 0 before the lowest that is 1."""
    return (number & -number).bit_length() - 1


def _ones(number: int) -> int:
    return _zeros(~number)
