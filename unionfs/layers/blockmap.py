"""Which bytes of a partial copy are its own, and which are still the lower file's.

A partial copy is a metadata-only copy whose file in upper holds some of the content.  Blocks of
one size divide the file.  A byte is the lower's as long as it lies before `limit` and its block is
not marked; all others are the copy's, also where the copy has a hole.  So bytes behind the lower's
end are the copy's without a mark, and a file that was cut shows nothing of the lower again when it
grows.  Maps are values: a change makes another.

On disk, in an attribute (`markers.BLOCKS`): a byte for the version, 1; a byte s, blocks having 2^s
bytes; `limit`, 8 bytes; the marks, a bit for each block from the lowest of the first byte on, and
zeros that may be left out at their end.  Numbers are little-endian.  While a file is being cut it
is version 2: a number of 8 bytes stands before the marks.  If the file has that size, it was cut to
it, and that is the limit, too; else it is a map as above.

Where upper is on a disk, a mark is made before its block is written, and no mark is taken back but
by `cut`.  A power cut may lose a block that was not synced and leave the mark.  Then the block is a
hole in the copy, or has one, as blocks are always written as a whole the first time: it counts as
not marked (`without`).  Not all file systems say where holes are: `syscalls.knows_holes`.

So a block that is not marked has to be a hole: what room is reserved for reads as data once a page
of it was read, and a file system may write zeros where a file ended that grows (btrfs), or beside
what is written (where its own blocks are larger: `least_shift`).  The last block of the lower is
written before the file grows (`edge`), and others before room is reserved for them (`part`).
"""

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

# 4 KiB, a page: programs that write whole pages, as databases do, need nothing filled.  To fill
# 4 KiB takes 3 us; 64 KiB takes 17 us, and more room.
SHIFT = 12

# Blocks of one map.  An attribute has room for 64 KiB (xattr(7)).
MOST_BLOCKS = (64 << 13) - 128
_MOST_SHIFT = 47

# Blocks of a map on a disk: each new mark writes it, and ext4 has 4 KiB for all attributes.
MOST_BLOCKS_ON_DISK = 2 << 13
# Where that is too long: an ext4 of less than 512 MiB has 1 KiB for them.
FEWER_BLOCKS = 2 << 10

_HEAD = struct.Struct("<BBQ")
_CUT = struct.Struct("<Q")
_VERSION, _VERSION_CUT = 1, 2

# Blocks of a part of a map that is looked at as a whole.
_FEW_BLOCKS = 512

# A run ends in the next byte that has blocks of both kinds, or of the other kind alone.
_HAS_LOWER = re.compile(rb"[^\xff]", re.DOTALL)
_HAS_OWN = re.compile(rb"[^\0]", re.DOTALL)


class Run(NamedTuple):
    """Bytes that are in one place."""

    start: int
    end: int
    lower: bool  # in the lower file


class BlockMap(NamedTuple):
    """The map of one partial copy."""

    limit: int  # bytes
    marks: bytes = b""  # bit n % 8 of byte n // 8: block n is the copy's; no zeros at the end
    shift: int = SHIFT

    @classmethod
    def unmarked(cls, size: int, most: int = MOST_BLOCKS, least: int = SHIFT) -> "BlockMap":
        """Return the map of a copy of *size* bytes that holds none of them, of *most* blocks.

        None is smaller than 2^*least* bytes.
        """
        return cls(size, b"", max(least, (size // most).bit_length()))

    @property
    def is_complete(self) -> bool:
        """Tell whether nothing of the lower shows any more."""
        blocks = -(-self.limit >> self.shift)
        if len(self.marks) << 3 < blocks:
            return False
        whole = blocks >> 3
        probes = self.marks[: whole : (whole >> 1) or 1]  # mostly all need not be compared
        if probes != b"\xff" * len(probes):
            return False
        rest = (1 << (blocks & 7)) - 1
        if rest and self.marks[whole] & rest != rest:
            return False
        return self.marks.startswith(b"\xff" * whole)

    def runs(self, start: int, end: int) -> Iterator[Run]:
        """Yield where the bytes from *start* to *end* are."""
        if end - start <= _FEW_BLOCKS << self.shift:
            yield from self._few_runs(start, end)
            return
        while start < end:
            stop, lower = self._run(start, end)
            yield Run(start, stop, lower)
            start = stop

    def _few_runs(self, start: int, end: int) -> Iterator[Run]:
        """Yield the runs where the marks are few enough for one number."""
        limit, shift = min(self.limit, end), self.shift
        block = start >> shift
        marks = int.from_bytes(self.marks[block >> 3 : (limit >> shift >> 3) + 1], "little")
        marks >>= block & 7
        while start < limit:
            lower = not marks & 1
            count = _zeros(marks if lower else ~marks) if marks else _FEW_BLOCKS + 1
            block += count
            marks >>= count
            stop = min(block << shift, limit)
            if stop == self.limit < end and not lower:
                break
            yield Run(start, stop, lower)
            start = stop
        if start < end:
            yield Run(start, end, lower=False)

    def _run(self, start: int, end: int) -> tuple[int, bool]:
        """Return where the run ends that *start* is in, or *end*, and whether it is the lower's."""
        if start >= self.limit:
            return end, False
        block, last = start >> self.shift, (end - 1) >> self.shift
        own = self._is_own(block)
        stop = min(self._next(block, last, own=own) << self.shift, end)
        if own:
            return (end if stop >= self.limit else stop), False
        return min(stop, self.limit), True

    def _is_own(self, block: int) -> int:
        at = block >> 3
        return at < len(self.marks) and self.marks[at] >> (block & 7) & 1

    def _next(self, block: int, last: int, *, own: int) -> int:
        """Return the first block from *block* on that is of the other kind; after *last*, any."""
        marks, at, same = self.marks, block >> 3, 0xFF if own else 0
        if at < len(marks):
            others = (marks[at] ^ same) >> (block & 7)
            if others:
                return block + _zeros(others)
            found = (_HAS_LOWER if own else _HAS_OWN).search(marks, at + 1, (last >> 3) + 1)
            if found:
                return found.start() * 8 + _zeros(marks[found.start()] ^ same)
        return min(last + 1, len(marks) * 8) if own else last + 1

    def has(self, start: int, end: int) -> bool:
        """Tell whether all blocks that hold bytes from *start* to *end* are the copy's."""
        end = min(end, self.limit)
        if start >= end:
            return self.edge(start) is None
        first, last = start >> self.shift, (end - 1) >> self.shift
        if not self._is_own(first):
            return False
        return first == last or self._next(first, last, own=1) > last

    def is_filled_by(self, start: int, end: int) -> bool:
        """Tell whether a write from *start* to *end* needs nothing of the lower."""
        return start < self.limit and not (start | end) & (1 << self.shift) - 1

    def missing(self, start: int, end: int) -> tuple[Run, Run]:
        """Return what a write from *start* to *end* needs of the lower, before and behind it.

        That is the rest of the blocks that it writes to in part; mostly nothing.
        """
        whole = (1 << self.shift) - 1
        if start >= self.limit or not (start | end) & whole:
            return Run(start, start, lower=True), Run(end, end, lower=True)
        first = self.beginning(start)
        last = min(-(-end >> self.shift) << self.shift, self.limit)
        head = first if self._is_lower(start) else start
        tail = last if end < last and self._is_lower(end) else end
        return Run(head, start, lower=True), Run(end, tail, lower=True)

    def edge(self, start: int) -> Run | None:
        """Return the lower's part of its last block, if a change at *start* is behind that.

        None, too, where that block is the copy's, or all of it was the lower's.
        """
        first = self.beginning(self.limit)
        if start < self.limit or first == self.limit or self._is_own(first >> self.shift):
            return None
        return Run(first, self.limit, lower=True)

    def part(self, start: int, end: int) -> Run | None:
        """Return the first run of the lower's in blocks that hold bytes from *start* to *end*.

        Where that is behind the lower, its last block is one of those.
        """
        edge = self.edge(end)
        if edge is not None:
            start = min(start, edge.start)
        last = min(-(-end >> self.shift) << self.shift, self.limit)
        runs = self.runs(self.beginning(start), last)
        return next((run for run in runs if run.lower), None)

    def piece(self, run: Run, most: int) -> Run:
        """Return what is copied first of a run: whole blocks, of *most* bytes, or one of more.

        What is copied gets marks, and a mark is one of a whole block.
        """
        end = self.beginning(run.start + max(most, 1 << self.shift))
        return run._replace(end=min(run.end, end))

    def beginning(self, at: int) -> int:
        """Return where the block begins that has the byte *at*."""
        return at >> self.shift << self.shift

    def _is_lower(self, at: int) -> bool:
        return at < self.limit and not self._is_own(at >> self.shift)

    def marked(self, start: int, end: int) -> "BlockMap":
        """Return the map when the copy has all blocks that hold bytes from *start* to *end*."""
        end = min(end, self.limit)
        if start >= end:
            return self
        limit, marks, shift = self
        first, last = start >> shift, (end - 1) >> shift
        head, tail = first >> 3, (last >> 3) + 1
        added = ((1 << last - first + 1) - 1) << (first & 7)
        changed = int.from_bytes(marks[head:tail], "little") | added
        if tail > len(marks):
            marks = marks.ljust(tail, b"\0")
        changing = bytearray(marks)
        changing[head:tail] = changed.to_bytes(tail - head, "little")
        return BlockMap(limit, bytes(changing), shift)

    def without(self, run: Run) -> "BlockMap":
        """Return the map when the copy has none of the blocks that hold bytes of *run*."""
        first, last = run.start >> self.shift, (run.end - 1) >> self.shift
        taken = ((1 << last - first + 1) - 1) << first
        left = int.from_bytes(self.marks, "little") & ~taken
        return self._replace(marks=left.to_bytes(len(self.marks), "little").rstrip(b"\0"))

    def cut(self, size: int) -> "BlockMap":
        """Return the map when the file has had no more than *size* bytes."""
        if size >= self.limit:
            return self
        marks = _first_bits(self.marks, -(-size >> self.shift))
        return self._replace(limit=size, marks=marks.rstrip(b"\0"))

    def encoded(self, most: int = 0) -> bytes:
        """Return its form on disk, with zeros as for *most* blocks, so that it does not grow."""
        blocks = min(-(-self.limit >> self.shift), most)
        head = _HEAD.pack(_VERSION, self.shift, self.limit)
        return head + self.marks.ljust(-(-blocks >> 3), b"\0")

    def encoded_cut(self, cut: int) -> bytes:
        """Return its form on disk while the file is cut to *cut*, which is before its limit."""
        return _HEAD.pack(_VERSION_CUT, self.shift, self.limit) + _CUT.pack(cut) + self.marks

    @classmethod
    def decoded(cls, data: bytes, size: int) -> "BlockMap":
        """Return the map that *data* is the form of, of a copy of *size* bytes.

        ValueError where it is none.
        """
        if len(data) < _HEAD.size:
            raise ValueError("it is too short")
        version, shift, limit = _HEAD.unpack_from(data)
        if version == _VERSION_CUT and len(data) >= _HEAD.size + _CUT.size:
            (cut,) = _CUT.unpack_from(data, _HEAD.size)
            marks = data[_HEAD.size + _CUT.size :]
            whole = cls.decoded(_HEAD.pack(_VERSION, shift, limit) + marks, size)
            return whole.cut(cut) if size == cut else whole
        if version != _VERSION or not SHIFT <= shift <= _MOST_SHIFT or limit >= 1 << 63:
            raise ValueError("it is of another version, or damaged")
        found = cls(limit, data[_HEAD.size :].rstrip(b"\0"), shift)
        if _first_bits(found.marks, -(-limit >> shift)) != found.marks:
            raise ValueError("its marks go beyond its limit")
        return found


def least_shift(block_size: int) -> int:
    """Return the shift of the smallest blocks on a file system with blocks of *block_size*."""
    return max(SHIFT, (block_size - 1).bit_length())


def _zeros(number: int) -> int:
    """Return how many bits of *number*, which is not 0, are 0 before the lowest that is 1."""
    return (number & -number).bit_length() - 1


def _first_bits(marks: bytes, count: int) -> bytes:
    """Return the first *count* bits, and zeros behind them up to a whole byte."""
    kept, more = marks[: -(-count >> 3)], count & 7
    if more and len(kept) > count >> 3:
        return kept[:-1] + bytes((kept[-1] & (1 << more) - 1,))
    return kept
