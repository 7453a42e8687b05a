"""Which of many lower directories is the first to hold a name: known once they were listed.

A name in a directory that a hundred lowers make up is asked of each of them in
turn, and a listing has all their names in hand.  As lowers never change, the
first holder of every name is kept from then on; a name without one is in no
lower.  Upper changes, and is always asked.

That takes directories that answer to the names which they list, and to no other:
FAT does not care for case, nor do directories of ext4 and tmpfs that are told to;
ZFS and NFS servers have names that they do not list.
"""

from collections.abc import Collection, Sequence

from unionfs.layers.layer import join
from unionfs.layers.whiteouts import Part
from unionfs.view.node import Node

# File systems that list all names: ext2 to ext4, xfs, btrfs, tmpfs, squashfs, erofs, overlayfs
# (include/uapi/linux/magic.h).
_LISTING_ALL = frozenset(
    {0xEF53, 0x58465342, 0x9123683E, 0x01021994, 0x73717368, 0xE0F5E1E2, 0x794C7630}
)

# Lower directories from which a roster is worth its memory: each that is not asked saves 3 us.
_LEAST = 2

# Names in all rosters together, at some 150 bytes each; a directory counts as one.
_NAMES = 100_000


class Rosters:
    """The first holders of names, for the directories listed last."""

    def __init__(self, names: int = _NAMES) -> None:
        self._free = names
        # directory -> its lower directories, and name -> index of the first that holds it
        self._kept: dict[Node, tuple[Sequence[Part], dict[bytes, int]]] = {}

    def keep(self, node: Node, listings: Sequence[Collection[bytes]]) -> None:
        """Keep what the lower directories of *node* hold, top first; let go of older rosters."""
        if len(listings) < _LEAST:
            return
        self._drop(node)
        if not all(map(lists_all, node.lowers, listings)):
            return
        first: dict[bytes, int] = {}
        for index, names in enumerate(listings):
            for name in names:
                first.setdefault(name, index)
        self._kept[node] = (node.lowers, first)
        self._free -= len(first) + 1  # so that empty directories, too, are let go of one day
        while self._free < 0:
            self._drop(next(iter(self._kept)))

    def _drop(self, node: Node) -> None:
        kept = self._kept.pop(node, None)
        if kept is not None:
            self._free += len(kept[1]) + 1

    def holders(self, node: Node, name: bytes, parts: tuple[Part, ...]) -> tuple[Part, ...]:
        """Return those of *parts*, a node's lower directories, from the first that holds *name*."""
        kept = self._kept.get(node)
        if kept is None or kept[0] is not parts:
            return parts
        index = kept[1].get(name)
        return () if index is None else parts[index:]


def lists_all(part: Part, names: Collection[bytes]) -> bool:
    """Tell whether a directory, which lists *names*, answers to no other."""
    if part.layer.kind not in _LISTING_ALL:
        return False
    for name in names:
        other = name.swapcase()
        if other != name and other not in names:
            return part.layer.find(join(part.path, other)) is None
    return True
