"""A daemon that fills files in part at once, and small ones, too: for tests with little time."""

from unionfs.changes import copyup, partial_copies
from unionfs.fuse import filling


def copy_by_blocks():
    """Copy all but the smallest files by blocks."""
    copyup.LEAST = partial_copies.LEAST = 1000


def fill_at_once(piece=16 << 10):
    """Fill what nobody has open for writing, in pieces of so many bytes."""
    vars(filling).update(_PIECE=piece, _UNSYNCED=4 * piece, _QUIET=0.0, _LOOK=1e-3, _CALM=1e-2)
    filling._SHARE = 0.1  # noqa: SLF001 - as above: the time is the test's
