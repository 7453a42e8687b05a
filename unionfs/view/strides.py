"""How many entries a reply to a reader of a directory holds: few after a seek, more as it goes on.

The kernel asks for as many as the program's buffer takes, some hundreds.  A
program that seeks for each entry (seekdir(3), rewinddir(3)) uses one of them.
So a reader that seeks gets few.  One that goes on where a reply ended gets eight
times as many as in that reply; one that begins anew without having gone on, an eighth.
"""

from unionfs.view.node import Node

FEW = 8  # only a reader that seeks gets so few
_GROWTH = 8
_MOST = 1 << 15  # more than there is room for: fs/fuse/readdir.c asks for 1 MiB at most

# Readers that are known to go on somewhere, of all directories.
_READERS = 64


class Strides:
    """The readers of the directories of one mount."""

    def __init__(self) -> None:
        # a directory and the offset at which a reader goes on -> how many entries the reader gets
        # there; the oldest first
        self._next: dict[tuple[Node, int], int] = {}
        # a directory -> where the last reply from its start ended, and how many entries it could
        # hold, as long as nobody has gone on there
        self._begun: dict[Node, tuple[int, int]] = {}

    def most(self, directory: Node, start: int) -> int:
        """Return how many entries a reader at the offset *start* may get."""
        after, most = self._begun.get(directory, (-1, 0))
        if not start:
            return _MOST if after < 0 else max(most // _GROWTH, FEW)
        if after == start:
            del self._begun[directory]
        return self._next.get((directory, start), FEW)

    def sent(self, directory: Node, start: int, after: int, most: int) -> None:
        """Take note that a reply of at most *most* entries, from *start*, ended before *after*."""
        if not after:  # the reply was empty: this reader is at the end
            return
        self._next[directory, after] = min(most * _GROWTH, _MOST)
        if len(self._next) > _READERS:
            del self._next[next(iter(self._next))]
        if start:
            return
        self._begun[directory] = after, most
        if len(self._begun) > _READERS:
            del self._begun[next(iter(self._begun))]
