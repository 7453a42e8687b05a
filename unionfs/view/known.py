"""What is known to be absent without asking a layer for it, and the events that end that.

| known | learned from | ends with |
|---|---|---|
| the union shows nothing under a name | the last look-up | a change of any name |
| no lower holds a name | a look-up that asked all of them | a change of the lowers |
| no lower above its first holder holds a name | listings of the lowers | a change of the lowers |
| a directory shows no name | a listing, and what was removed since | other changes of its names |

All of it is bounded; the oldest goes first.  The events are `Known.names_change`,
`Known.name_removed` and `Known.lowers_change`.  Only `unionfs commit` changes lowers; so knowledge
of lowers is kept, and upper is always asked.

The first holder of a name matters where a hundred lowers make up a directory: each would be
asked in turn, and a listing has all their names in hand.  This works only with directories that
answer to the names which they list, and to no other.  FAT ignores case, and so may directories of
ext4 and tmpfs; ZFS and NFS servers have names that they do not list.
"""

from collections.abc import Collection, Mapping, Sequence

from unionfs.layers.layer import Layer, LayerPath, join
from unionfs.view.node import Node

_MOST_NOT_BELOW = 32  # names
_MOST_LISTED = 16  # directories: those of the last few levels of a tree
_MOST_NAMES = 256  # in each

# File systems that list all names: ext2 to ext4, xfs, btrfs, tmpfs, squashfs, erofs, overlayfs
# (include/uapi/linux/magic.h).
_LISTING_ALL = frozenset(
    {0xEF53, 0x58465342, 0x9123683E, 0x01021994, 0x73717368, 0xE0F5E1E2, 0x794C7630}
)

# Lower directories from which first holders are worth their memory: each that is not asked saves
# 3 us.
_LEAST_LOWERS = 2

# Names whose first holder is kept, at some 150 bytes each; a directory counts as one.
_MOST_HELD = 100_000


class Known:
    """What is known of one union, and of its lowers (they have memos where they are far)."""

    def __init__(self, lowers: Sequence[Layer] = ()) -> None:
        self._lowers = lowers
        # Grows with each change of names, of the layers of objects, and of directories' attributes.
        self.revision = 0
        self.changed: Node | None = None  # the directory in which a name changed last
        # The name that the last look-up did not find: the kernel looks a name up before it
        # creates it, or renames to it.
        self.not_found: tuple[Node, bytes] | None = None
        # Names that no lower holds, oldest first: under such a name a file is made, and soon
        # renamed or removed.
        self.not_below: dict[tuple[Node, bytes], None] = {}
        self.first_holders = FirstHolders()
        # Directories that were listed, oldest first, each with the names that it showed and those
        # of them that were removed: a program that removes a tree has seen all its names.
        self._listed: dict[Node, tuple[Mapping[bytes, int], set[bytes]]] = {}
        # What was known of the directory in which names are changing now.
        self._before: tuple[Mapping[bytes, int], set[bytes]] | None = None

    # What is learned

    def note_not_below(self, directory: Node, name: bytes) -> None:
        """Take note that no lower holds *name*."""
        self.not_below[directory, name] = None
        if len(self.not_below) > _MOST_NOT_BELOW:
            del self.not_below[next(iter(self.not_below))]

    def note_listing(self, directory: Node, names: Mapping[bytes, int]) -> None:
        """Take note of the names that a directory shows."""
        self._listed.pop(directory, None)
        if len(names) > _MOST_NAMES:
            return
        self._listed[directory] = names, set()
        if len(self._listed) > _MOST_LISTED:
            del self._listed[next(iter(self._listed))]

    # The events

    def names_change(self, directory: Node | None = None) -> None:
        """Take note that names in *directory* are about to change in any way.

        Without a directory: attributes or layers of objects are about to change.
        """
        self.not_found = None
        self.revision += 1
        if directory is not None:
            self.changed = directory
            self._before = self._listed.pop(directory, None)

    def name_removed(self, directory: Node, name: bytes) -> None:
        """Take note that the change just announced was the removal of *name*."""
        if self._before is None:
            return
        names, gone = self._before
        if name in names:
            gone.add(name)
        self._listed[directory] = self._before

    def lowers_change(self) -> None:
        """Forget what was known of the lowers: `unionfs commit` is writing to one of them."""
        for layer in self._lowers:
            layer.forget()
        self.not_below.clear()
        self.first_holders = FirstHolders()
        self._listed.clear()
        self._before = None
        self.names_change()

    # What is known

    def is_absent(self, directory: Node, name: bytes) -> bool:
        """Tell whether the last look-up has just said that nothing shows under *name*."""
        absent = self.not_found
        return absent is not None and absent[1] == name and absent[0] is directory

    def is_empty(self, directory: Node) -> bool:
        """Tell whether a directory is known to show no name."""
        listed = self._listed.get(directory)
        return listed is not None and len(listed[0]) == len(listed[1])


class FirstHolders:
    """Which lower is the first to hold a name, for the directories listed last."""

    def __init__(self, names: int = _MOST_HELD) -> None:
        self._free = names
        # directory -> its lower directories, and name -> index of the first that holds it
        self._kept: dict[Node, tuple[Sequence[LayerPath], dict[bytes, int]]] = {}

    def keep(self, node: Node, listings: Sequence[Collection[bytes]]) -> None:
        """Keep what the lower directories of *node* hold, top first; let go of older ones."""
        if len(listings) < _LEAST_LOWERS:
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

    def narrow(
        self, node: Node, name: bytes, places: tuple[LayerPath, ...]
    ) -> tuple[LayerPath, ...]:
        """Return a node's lower *places* from the first that holds *name* on."""
        kept = self._kept.get(node)
        if kept is None or kept[0] is not places:
            return places
        index = kept[1].get(name)
        return () if index is None else places[index:]


def lists_all(directory: LayerPath, names: Collection[bytes]) -> bool:
    """Tell whether a directory that lists *names* answers to no other name."""
    if directory.layer.kind not in _LISTING_ALL:
        return False
    for name in names:
        other = name.swapcase()
        if other != name and other not in names:
            return directory.layer.find(join(directory.path, other)) is None
    return True
