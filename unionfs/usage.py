"""How full an upper is, and with what: for `unionfs status`, and for the guard of a RAM upper.

A file system is as full as the scarcer of its bytes and its inodes.  Levels are
percentages; below the lowest of them all is well.
"""

import heapq
import os
import stat
from collections.abc import Iterator
from typing import NamedTuple

from unionfs.layer import Layer, join

LEVELS = (80, 95)  # percent

_BLOCK = 512  # bytes per unit of st_blocks: stat(2)


class Room(NamedTuple):
    """The figures of one file system."""

    size: int  # bytes
    used: int  # bytes
    inodes: int  # 0: not limited
    inodes_used: int

    @property
    def percent(self) -> int:
        """Return how full it is, rounded down."""
        return max(_percent(self.used, self.size), _percent(self.inodes_used, self.inodes))

    @property
    def level(self) -> int:
        """Return the highest of `LEVELS` that is reached, 0 for none."""
        return max((level for level in LEVELS if self.percent >= level), default=0)


def _percent(part: int, whole: int) -> int:
    return part * 100 // whole if whole else 0


def room(fd: int) -> Room:
    """Return the figures of the file system that an open file lies on: fstatvfs(3)."""
    figures = os.fstatvfs(fd)
    size = figures.f_blocks * figures.f_frsize
    # What only root may use is not used: ext4 keeps a twentieth back.
    used = size - figures.f_bfree * figures.f_frsize
    return Room(size, used, figures.f_files, figures.f_files - figures.f_ffree)


class Large(NamedTuple):
    """A file of upper, by what it takes there."""

    size: int  # bytes on disk
    path: bytes  # in the union


def largest(upper: Layer, most: int = 10) -> list[Large]:
    """Return the files that take most of upper, the largest first; what vanishes is left out."""
    return heapq.nlargest(most, _files(upper))


def _files(upper: Layer) -> Iterator[Large]:
    directories = [b"."]
    seen: set[int] = set()  # inode numbers of files with several names
    while directories:
        directory = directories.pop()
        try:
            for entry in upper.scan(directory):
                path = join(directory, entry.name)
                st = upper.find(path)
                if st is None:
                    continue
                if stat.S_ISDIR(st.st_mode):
                    directories.append(path)
                elif st.st_blocks and st.st_ino not in seen:
                    if st.st_nlink > 1:
                        seen.add(st.st_ino)
                    yield Large(st.st_blocks * _BLOCK, path)
        except (FileNotFoundError, NotADirectoryError):
            continue


_UNITS = ("B", "K", "M", "G", "T", "P", "E")


def shown(count: int) -> str:
    """Return a number of bytes as df(1) -h does: 1.5G."""
    value, unit = float(count), 0
    while value >= 1024 and unit < len(_UNITS) - 1:  # noqa: PLR2004 - as units go
        value, unit = value / 1024, unit + 1
    whole = unit == 0 or value >= 10  # noqa: PLR2004
    return f"{value:.0f}{_UNITS[unit]}" if whole else f"{value:.1f}{_UNITS[unit]}"
