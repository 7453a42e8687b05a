"""Content that goes to the other side of a union, copied before its file goes there: `crossings`.

A large file takes seconds, during which nobody could be served.  So a change that takes content
across comes in three steps: ask which content that is (`Wanted`); have a thread copy it, which
sees descriptors alone; make the change, which uses the copies that are ready and copies the rest
itself.  A copy of a file that was changed meanwhile, or has gone elsewhere, is not used.

A copy goes to a file of its own in work.  If the file is to take the place of its placeholder
(`view/twins`), the copy goes into the placeholder, whose own content nobody sees.
"""

import dataclasses
import os
import time
from typing import TYPE_CHECKING, NamedTuple

from unionfs.host import content
from unionfs.layers.blockmap import BlockMap

if TYPE_CHECKING:
    from unionfs.view.node import Node
    from unionfs.view.sides import Side, TwoSided

# Nanoseconds within which two changes may leave the same time: two ticks of 100 Hz.
_TICKS_NS = 20_000_000


class Wanted(NamedTuple):
    """Content that a change takes to a side."""

    node: "Node"
    side: "Side"
    placeholder: "Node | None"  # the placeholder to be filled, None: a new file


class Seen(NamedTuple):
    """The attributes that tell whether a file's content is still the one that was copied."""

    device: int
    ino: int
    size: int
    mtime_ns: int
    ctime_ns: int


def seen(st: os.stat_result) -> Seen | None:
    """Return the attributes that tell of later changes; None if a change was a moment ago."""
    if time.time_ns() - st.st_ctime_ns < _TICKS_NS:
        return None
    return Seen(st.st_dev, st.st_ino, st.st_size, st.st_mtime_ns, st.st_ctime_ns)


@dataclasses.dataclass(slots=True, eq=False)
class Source:
    """The content of a file, open to be copied; for a partial copy, that of both files."""

    fd: int  # its attributes tell of changes
    lower: int = -1
    blocks: BlockMap | None = None

    @classmethod
    def of_both(cls, fd: int, lower: int, blocks: BlockMap) -> "Source":
        """Return the content of a partial copy, with descriptors of its own."""
        own = os.dup(fd)
        try:
            return cls(own, os.dup(lower), blocks)
        except BaseException:
            os.close(own)
            raise

    def room(self, st: os.stat_result) -> int:
        """Return how much room a copy with holes takes at most; *st* is that of `fd`."""
        blocks = st.st_blocks if self.lower < 0 else st.st_blocks + os.fstat(self.lower).st_blocks
        return blocks * content.ST_BLOCK

    def copy(self, target: int, size: int) -> None:
        """Copy the first *size* bytes into a file that is empty; a thread may do it."""
        if self.blocks is None:
            if not content.share(self.fd, target):
                content.copy(self.fd, target, size)
            return
        os.ftruncate(target, size)
        for start, end, lower in self.blocks.runs(0, size):
            content.copy_part(self.lower if lower else self.fd, target, start, end)

    def close(self) -> None:
        """Close the descriptors, once."""
        for fd in (self.fd, self.lower):
            if fd >= 0:
                os.close(fd)
        self.fd = self.lower = -1


@dataclasses.dataclass(slots=True, eq=False)
class Transfer:
    """One copy, under way or ready; its descriptors are closed when it is over."""

    wanted: Wanted
    source: Source
    target: int
    staged: bytes  # b"": the content goes into the placeholder
    seen: Seen
    syncs: bool
    is_ready: bool = False

    def fill(self) -> None:
        """Copy the content; a thread may do it."""
        self.source.copy(self.target, self.seen.size)
        if self.syncs:
            content.sync(self.target)
        self.is_ready = True

    def close(self) -> None:
        """Close the descriptors, once."""
        self.source.close()
        if self.target >= 0:
            os.close(self.target)
        self.target = -1


class Transfers:
    """The transfers of one union."""

    def __init__(self, union: "TwoSided") -> None:
        self._union = union
        self._known: dict[tuple[Node, Side], Transfer] = {}  # a file and the side to which it goes

    def add(self, transfer: Transfer) -> None:
        """Take note of a transfer that is begun."""
        self._known[transfer.wanted[:2]] = transfer

    def is_ready(self, wanted: Wanted) -> bool:
        """Tell whether that content was copied, and is still the file's."""
        transfer = self._known.get(wanted[:2])
        if transfer is None or not transfer.is_ready or transfer.wanted != wanted:
            return False
        source = self._union.open_content(wanted.node)
        try:
            return seen(os.fstat(source.fd)) == transfer.seen
        finally:
            source.close()

    def take(self, wanted: Wanted) -> bytes | None:
        """Return the staged file that has the content, b"" for the placeholder; None: not ready.

        The copy then belongs to the caller.
        """
        if not self.is_ready(wanted):
            return None
        transfer = self._known[wanted[:2]]
        staged, transfer.staged = transfer.staged, b""
        self.end(transfer)
        return staged

    def end(self, transfer: Transfer) -> None:
        """Let go of a transfer, whether it was taken or not."""
        wanted = transfer.wanted
        if self._known.get(wanted[:2]) is transfer:
            del self._known[wanted[:2]]
        transfer.close()
        if transfer.staged:
            wanted.side.upper.staging.drop(transfer.staged)
            transfer.staged = b""
