"""How full a layer is, and with what: for `unionfs status`, and for the guard of an upper.

A file system is as full as the scarcer of its bytes and its inodes.  Levels are
percentages; below the lowest of them all is well.
"""

import heapq
import os
import stat
from collections.abc import Iterator
from typing import NamedTuple

from unionfs.host.content import ST_BLOCK
from unionfs.layers.layer import Layer, join

LEVELS = (80, 95)  # percent


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

    def words(self) -> str:
        """Say how full it is: 12M of 512M used (2 %), 340 of 128000 inodes (0 %)."""
        said = f"{shown(self.used)} of {shown(self.size)} used ({_percent(self.used, self.size)} %)"
        if self.inodes:
            share = _percent(self.inodes_used, self.inodes)
            said += f", {self.inodes_used} of {self.inodes} inodes ({share} %)"
        return said

    def trouble(self, layer: str = "upper") -> str:
        """Say what there is too little of: upper is 82 % full, 420M of 512M."""
        if _percent(self.used, self.size) == self.percent:
            return f"{layer} is {self.percent} % full, {shown(self.used)} of {shown(self.size)}"
        return f"{layer} is {self.percent} % full, {self.inodes_used} of {self.inodes} inodes"


def _percent(part: int, whole: int) -> int:
    return part * 100 // whole if whole else 0


def room(at: int | str) -> Room:
    """Return the figures of the file system that *at* lies on: statvfs(3)."""
    figures = os.statvfs(at)
    size = figures.f_blocks * figures.f_frsize
    # Room that only root may use does not count as used: ext4 keeps a twentieth back.
    used = size - figures.f_bfree * figures.f_frsize
    return Room(size, used, figures.f_files, figures.f_files - figures.f_ffree)


class Large(NamedTuple):
    """A file of upper, by what it takes there."""

    size: int  # bytes on disk
    path: bytes  # in the union


class Contents(NamedTuple):
    """What an upper holds, below its root."""

    size: int  # bytes on disk
    inodes: int
    largest: list[Large]  # files, the largest first


def contents(upper: Layer, most: int = 10) -> Contents:
    """Return what upper holds, and the *most* largest files; what vanishes is left out."""
    size = inodes = 0
    largest: list[Large] = []  # a heap
    for path, st in _objects(upper):
        taken = st.st_blocks * ST_BLOCK
        size += taken
        inodes += 1
        if taken and not stat.S_ISDIR(st.st_mode):
            put = heapq.heappush if len(largest) < most else heapq.heappushpop
            put(largest, Large(taken, path))
    return Contents(size, inodes, sorted(largest, reverse=True))


def _objects(upper: Layer) -> Iterator[tuple[bytes, os.stat_result]]:
    """Yield each object that has a name in upper, once, though it may have several."""
    directories = [b"."]
    seen: set[int] = set()  # inode numbers of files with several names
    while directories:
        directory = directories.pop()
        try:
            for entry in upper.scan(directory):
                path = join(directory, entry.name)
                st = upper.find(path)
                if st is None or st.st_ino in seen:
                    continue
                if stat.S_ISDIR(st.st_mode):
                    directories.append(path)
                elif st.st_nlink > 1:
                    seen.add(st.st_ino)
                yield path, st
        except (FileNotFoundError, NotADirectoryError):
            continue


_UNITS = ("B", "K", "M", "G", "T", "P", "E")


def shown(count: float) -> str:
    """Return a number of bytes as df(1) -h does: 1.5G."""
    value, unit = float(count), 0
    while value >= 1024 and unit < len(_UNITS) - 1:  # noqa: PLR2004 - as units go
        value, unit = value / 1024, unit + 1
    whole = unit == 0 or value >= 10  # noqa: PLR2004
    return f"{value:.0f}{_UNITS[unit]}" if whole else f"{value:.1f}{_UNITS[unit]}"
