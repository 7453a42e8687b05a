"""What a look-up found: the object that a name shows, and where it is."""

import stat
from typing import TYPE_CHECKING, NamedTuple

from unionfs.layers.layer import LayerPath

if TYPE_CHECKING:
    import os

    from unionfs.view.node import Node

# Lower places, top first; or, for a file that one lower directory holds, just that directory.
Below = tuple[LayerPath, ...] | LayerPath


class LookupResult(NamedTuple):
    """What the layers hold under one name of the union, as far as it shows."""

    ino: int
    st: "os.stat_result"  # of the object that shows
    upper: bool  # the object is in upper (or in the hard link index)
    named: bool  # upper holds it under this very name
    below: Below  # a directory's lower places; the places of a file's content in lowers
    name: bytes = b""  # the file's name in `below`, where that is a directory
    redirect: bytes = b""
    link: bytes = b""
    links: int = 0
    node: "Node | None" = None  # the object's node, where the look-up came across it
    protection: int = 0  # of an object in upper
    partial: bool = False  # upper has some blocks of a file, `below` the others

    @property
    def lowers(self) -> tuple[LayerPath, ...]:
        """Return the lower places, top first."""
        below = self.below
        return (below.child(self.name),) if isinstance(below, LayerPath) else below

    @property
    def is_directory(self) -> bool:
        """Tell whether the name is a directory's."""
        return stat.S_ISDIR(self.st.st_mode)

    def is_same(self, other: "LookupResult") -> bool:
        """Tell whether both names show one object.

        The number alone does not tell: the host may have given it to another, since the object
        that keeps it came to where it is now (`NodeTable` shows one of them by a spare number).
        """
        return self.ino == other.ino and self.st[1:3] == other.st[1:3]  # st_ino, st_dev


# Making the tuple itself takes half the time of calling the class.
_tuple = tuple.__new__


def plain(ino: int, st: "os.stat_result", node: "Node | None" = None) -> LookupResult:
    """Return the result of an object that is in upper alone, without marks."""
    return _tuple(LookupResult, (ino, st, True, True, (), b"", b"", b"", 0, node, 0, False))


def plain_lower(
    ino: int, st: "os.stat_result", directory: LayerPath, name: bytes, node: "Node | None" = None
) -> LookupResult:
    """Return the result of a file that is in one lower directory alone, without marks."""
    return _tuple(
        LookupResult, (ino, st, False, False, directory, name, b"", b"", 0, node, 0, False)
    )
