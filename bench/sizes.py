"""How much work a run does: the full size, and a quick one for a first look."""

from __future__ import annotations

import dataclasses

KiB = 1 << 10
MiB = 1 << 20


@dataclasses.dataclass(frozen=True, slots=True)
class Sizes:
    """Counts of objects and operations, and bytes of files.

    Chosen so that the fastest contender needs some milliseconds (a clock and a
    process start must not matter) and the slowest some seconds.
    """

    tree_files: int = 4000  # in the source tree that is unpacked, copied, walked, read
    compiled: int = 256  # modules of it that are compiled
    small_files: int = 5000
    replacements: int = 1000  # of the passwd file
    opens: int = 20_000
    big: int = 1024 * MiB  # the file that is read, written, copied up
    small_writes: int = 20_000  # of 4 KiB
    random_file: int = 256 * MiB
    random_bytes: int = 64 * MiB  # read or written at random in it
    directory: int = 10_000  # files in the directory that is renamed
    listing: int = 100_000
    stacked: int = 2000  # files, spread over all lowers
    known: int = 100_000  # nodes known to the kernel
    operations: int = 1_000_000  # over which the daemon's memory shall stay flat


FULL = Sizes()
QUICK = Sizes(
    tree_files=800,
    compiled=64,
    small_files=1000,
    replacements=200,
    opens=4000,
    big=128 * MiB,
    small_writes=4000,
    random_file=64 * MiB,
    random_bytes=16 * MiB,
    directory=1000,
    listing=20_000,
    stacked=1000,
    known=20_000,
    operations=50_000,
)
