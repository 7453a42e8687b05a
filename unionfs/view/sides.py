"""A union with two writable sides: *state* for what persists, *scratch* for all else.

Each side is an upper with its work over the same lowers, and a union of its own (`Side`).  By the
rules (`layers/persistence`) a name belongs to one side, and is read from that side alone: objects
of the other upper do not show under it.  `TwoSided` shows both as one tree.  For each name it asks
the side that has it.

Only a directory with names of both sides in it is on both: it is *split*.  The kernel knows it by
the node of the side that it belongs to, whose attributes count.  On the other side it has a
*companion*, a node that is in no table: the parent of the names that belong there, with that side's
places.  So a side meets parents of its own alone, and works as a union of one side.  In the other
side's upper such a directory is a *scaffold*, which only leads to what is below it.

Both sides share the inode numbers, so no two of their nodes have the same number.
"""

import contextlib
import dataclasses
import os
import stat
from typing import TYPE_CHECKING

from unionfs.layers.inodes import ROOT_INO
from unionfs.layers.stack import Stack, State
from unionfs.view.lookup import Finder, Lookup, find_nothing
from unionfs.view.node import Node, NodeTable
from unionfs.view.sidetables import SideTable, Tables
from unionfs.view.transfers import Source, Transfers
from unionfs.view.twins import Twins
from unionfs.view.union import Common, Features, Union
from unionfs.view.upper import Upper

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unionfs.layers.layer import WritableLayer
    from unionfs.layers.persistence import RuleNode
    from unionfs.view.lookup_result import LookupResult


# What a node says of where a file is.
_WHERE = (
    "host_ino", "parent", "name", "upper", "below", "redirect", "link", "links", "aliases", "pin",
    "unsynced", "orphan", "persisted", "partial",
)  # fmt: skip


@dataclasses.dataclass(slots=True, eq=False)
class Split:
    """A directory with names of both sides in it."""

    shown: Node
    companion: Node
    rule: "RuleNode"

    def on(self, side: Union) -> Node:
        """Return the directory's node on one side."""
        return self.shown if self.shown.persisted == side.persisted else self.companion


class Side(Union):
    """One side of a union; `whole` is the union."""

    table = SideTable

    def __init__(
        self,
        stack: Stack,
        features: Features,
        common: Common,
        whole: "TwoSided",
        *,
        persisted: bool,
    ) -> None:
        self.persisted = persisted
        self.whole = whole
        super().__init__(stack, features, common)

    def is_empty(
        self,
        directory: "LookupResult",
        node: Node | None,
        path: bytes,
        held: "Sequence[os.DirEntry[bytes]] | None" = None,
    ) -> bool:
        """Tell whether a directory shows no name of either side."""
        if node is not None and node in self.whole.splits:
            return not self.whole.listing(node)
        return super().is_empty(directory, node, path, held)


class _Uppers(Upper):
    """The uppers of both sides."""

    def __init__(self, scratch: Upper, state: Upper) -> None:
        self._scratch, self._state = scratch, state
        # Work by descriptor may be done by either layer.
        self.layer, self.work = scratch.layer, scratch.work
        self.fills = scratch.fills
        self.partials = scratch.partials  # of state there are none

    def place(self, node: Node) -> "tuple[WritableLayer, bytes]":
        """Return where a node on upper is; EROFS for one that is not."""
        return (self._state if node.persisted else self._scratch).place(node)

    def defer_removals(self) -> None:
        """Let deleted objects wait to be removed."""
        self._scratch.defer_removals()
        self._state.defer_removals()

    def tidy(self) -> bool:
        """Remove one name of the objects that wait for it; say False where there is none."""
        return self._scratch.tidy() or self._state.tidy()


class _Lookups(Lookup):
    """The look-ups of both sides; parents are the nodes that the kernel knows."""

    def __init__(self, union: "TwoSided") -> None:
        self._union = union
        self.name_max = max(union.scratch.lookup.name_max, union.state.lookup.name_max)

    def find(self, parent: Node, name: bytes) -> "LookupResult | None":
        """Return what shows under *name*, or None; no node is made."""
        side, at = self._union.at(parent, name)
        return side.lookup.find(at, name)

    def node(self, parent: Node, name: bytes) -> tuple[Node, os.stat_result] | None:
        """Return the node under *name*, a new one if need be, and its attributes; or None."""
        side, at = self._union.at(parent, name)
        found = side.lookup.node(at, name)
        return found and self._union.entered(parent, name, *found)

    def listed_node(
        self, parent: Node, name: bytes, hint: int
    ) -> tuple[Node, os.stat_result] | None:
        """Look up a name that a listing of this moment has with *hint*."""
        side, at = self._union.at(parent, name)
        found = side.lookup.listed_node(at, name, hint)
        return found and self._union.entered(parent, name, *found)

    def finder(self, parent: Node) -> Finder:
        """Return a function that looks up most names of a directory's listing in half the time."""
        if parent in self._union.splits:
            return find_nothing
        return self._union.side_of(parent).lookup.finder(parent)

    def shows_below(self, parent: Node, name: bytes) -> bool:
        """Tell whether *name* would show from a lower layer, were it not in upper."""
        side, at = self._union.at(parent, name)
        return side.lookup.shows_below(at, name)

    def plain_below(self, parent: Node, name: bytes) -> "LookupResult | None":
        """Return the plain file of one name that the only lower of a directory holds."""
        side, at = self._union.at(parent, name)
        return side.lookup.plain_below(at, name)


class TwoSided(Union):
    """A stack with two writable sides seen as one tree."""

    two_sided = True

    def __init__(self, stack: Stack, state: State, features: Features) -> None:
        """Take the stack, and its state."""
        common = Common(stack)
        self.scratch = Side(stack, features, common, self, persisted=False)
        other = Stack(state.upper, state.work, stack.lowers, stack.within, state.copy)
        # State may not depend on a path of the lowers: an upgrade may put other content there, or
        # take it away.
        kept = dataclasses.replace(
            features, metacopy=False, redirect_dir=False, copyup="whole", volatile=False
        )
        self.state = Side(other, kept, common, self, persisted=True)
        self.features = features
        self.acting, self.access, self.readers = common.acting, common.access, common.readers
        self.known = common.known
        self.lowers, self.far = self.scratch.lowers, self.scratch.far
        self.nodes = self._paired(self.scratch.nodes, self.state.nodes)
        self.upper = _Uppers(self.scratch.upper, self.state.upper)
        self.lookup = _Lookups(self)
        root = Split(self.scratch.root, self.state.root, state.rules.root)
        self.holders = []
        self.twins = Twins()
        self.transfers = Transfers(self)
        # The split directories, by the node that the kernel knows, and by the companion.
        self.splits = {root.shown: root}
        self.companions = {root.companion: root}

    @staticmethod
    def _paired(scratch: NodeTable, state: NodeTable) -> Tables:
        for table, other in ((scratch, state), (state, scratch)):
            if isinstance(table, SideTable):
                table.other = other
        del state[ROOT_INO]  # the companion of the root
        return Tables(scratch, state)

    # Which side

    def side_of(self, node: Node) -> Side:
        """Return the side that a node belongs to."""
        return self.state if node.persisted else self.scratch

    def other_side(self, node: Node) -> Side:
        """Return the side that a node does not belong to."""
        return self.scratch if node.persisted else self.state

    def at(self, parent: Node, name: bytes) -> tuple[Side, Node]:
        """Return the side that has a name, and that side's node of the name's directory."""
        split = self.splits.get(parent)
        if split is None:
            return self.side_of(parent), parent
        side = self.state if split.rule.child(name).persisted else self.scratch
        return side, split.on(side)

    def leads(self, parent: Node, name: bytes) -> bool:
        """Tell whether something below a name may belong to the other side than the name."""
        split = self.splits.get(parent)
        return split is not None and split.rule.child(name).leads

    # What is split

    def entered(
        self, parent: Node, name: bytes, node: Node, st: os.stat_result
    ) -> tuple[Node, os.stat_result]:
        """Return the object that a side has found under a name, as the kernel is to know it."""
        if node.format == stat.S_IFDIR and node not in self.splits and self.leads(parent, name):
            self._split(self.splits[parent], name, node)
        if self.twins:
            file = self.twins.file(node)
            return (node, st) if file is node else (file, self.attributes(file))
        return node, st

    def _split(self, above: Split, name: bytes, node: Node) -> None:
        """Give a directory its companion, and keep it for as long as it has a name."""
        side = self.other_side(node)
        over = above.on(side)
        companion = Node(node.ino, stat.S_IFDIR, 0, over, name, upper=False, below=())
        companion.persisted = side.persisted
        self._place(companion)
        split = Split(node, companion, above.rule.child(name))
        self.splits[node] = self.companions[companion] = split
        node.children += 1

    def _place(self, companion: Node) -> None:
        """Let a companion have the places that its side finds."""
        if companion.parent is None:
            return
        result = self.side_of(companion).lookup.find(companion.parent, companion.name)
        if result is None or not result.is_directory:
            companion.below = ()
            return
        companion.upper, companion.below = result.upper, result.below
        companion.redirect = result.redirect

    def look_at_lowers(self) -> None:
        """Give companions their places anew after a change of the lowers: `unionfs commit`.

        The nodes that the kernel knows keep their places.
        """
        for companion in self.companions:  # each after its parent
            self._place(companion)

    def join(self, node: Node) -> None:
        """Take note that a split directory has lost its name."""
        split = self.splits.pop(node)
        del self.companions[split.companion]
        node.children -= 1
        self.nodes.drop_if_unknown(node)

    def swap(self, node: Node, other: Node, number: int) -> None:
        """Let two nodes of one file, one on each side, change sides; *other* gets that number.

        Everything else that is known of *node* goes with it: the kernel knows this node.
        """
        for one in (node, other):
            table = self.side_of(one).nodes
            if table.get(one.ino) is one:
                del table[one.ino]
            table.orphans.pop(one.ino, None)
        for field in _WHERE:
            here, there = getattr(node, field), getattr(other, field)
            setattr(node, field, there)
            setattr(other, field, here)
        other.ino = number
        for one in (node, other):
            table = self.side_of(one).nodes
            table[one.ino] = one
            if one.orphan:
                table.orphans[one.ino] = one
            else:
                self._note_number(one, table)
        self.known.names_change()

    def _note_number(self, node: Node, table: NodeTable) -> None:
        with contextlib.suppress(OSError):  # then the file may get a second node: open files stay
            found = node.parent and self.side_of(node).lookup.find(node.parent, node.name)
            if found and isinstance(table, SideTable):
                table.note_number(node, found)

    # What is known of a node

    def faces(self, node: Node) -> tuple[Node, ...]:
        """Return all nodes that stand for a directory: a split one has its companion, too."""
        split = self.splits.get(node)
        return (node,) if split is None else (node, split.companion)

    def shown(self, node: Node, st: os.stat_result) -> tuple[int, int]:
        """Return st_nlink and st_blocks as the union shows them."""
        links, blocks = super().shown(node, st)
        if node in self.splits:
            return 1, blocks
        twin = self.twins.placeholder(node) if self.twins else None
        return links + (self._further_links(twin) if twin else 0), blocks

    def _further_links(self, placeholder: Node) -> int:
        try:
            return self.links(placeholder)
        except OSError:  # the change is made, and no error may say that it was not
            return 1

    def links(self, node: Node) -> int:
        """Return how many names a file has on its own side."""
        side = self.side_of(node)
        return side.shown(node, side.attributes(node))[0]

    def listing(self, node: Node) -> dict[bytes, int]:
        """Return the visible names of a directory, each with its hint."""
        split = self.splits.get(node)
        if split is None:
            return self.side_of(node).listing(node)
        return {
            name: hint
            for side in (self.scratch, self.state)
            for name, hint in side.names_in(split.on(side)).items()
            if split.rule.child(name).persisted == side.persisted
        }

    def leaves_content(self, node: Node) -> bool:
        """Tell whether *node* may come to upper without its content: never to state."""
        return self.features.metacopy and not node.persisted

    def open_content(self, node: Node) -> Source:
        """Open a file's content to copy it."""
        if node.partial:
            partial = self.upper.partials.of(node)
            return Source.of_both(partial.target, partial.source, partial.blocks)
        if self.has_lower_content(node):
            lower = node.lowers[-1]
            return Source(lower.layer.open_content(lower.path))
        return Source(self.open_to_read(node))

    def statvfs(self, node: Node) -> os.statvfs_result:
        """Return the figures of the file system to which changes of *node* go."""
        return self.side_of(node).statvfs(node)
