"""The nodes of a union with two sides: a table for each, and both as the kernel knows them."""

from typing import TYPE_CHECKING

from unionfs.view.node import Node, NodeTable, is_of

if TYPE_CHECKING:
    from unionfs.view.lookup_result import LookupResult

# Numbers in `_spared` from which on those of nodes that are gone are dropped.
_MOST_SPARED = 1000


class SideTable(NodeTable):
    """The nodes of one side; a number that the other side has is taken here, too.

    A file that crosses takes its number along, and its old host soon gives the number to the next
    file, which then has a spare number here for as long as its node is known.
    """

    other: NodeTable
    both: NodeTable

    def __init__(self, root: Node) -> None:
        super().__init__(root)
        # The number that an object would have -> nodes of such objects that have another.
        self._spared: dict[int, list[Node]] = {}

    def __contains__(self, ino: object) -> bool:
        return super().__contains__(ino) or dict.__contains__(self.other, ino)

    def note_partial(self, node: Node) -> None:
        """Take note that a node, which has a name, is partial."""
        super().note_partial(node)
        self.both.has_partials = True

    def of(self, result: "LookupResult") -> Node | None:
        """Return the node of the object that was seen, if there is one."""
        node = super().of(result)
        if node is None and result.ino in self._spared:
            spared = filter(self.has, self._spared[result.ino])
            return next((one for one in spared if is_of(one, result)), None)
        return node

    def has(self, node: Node) -> bool:
        """Tell whether a node is in this table."""
        return self.get(node.ino) is node

    def _add(self, parent: Node, name: bytes, result: "LookupResult") -> Node:
        node = super()._add(parent, name, result)
        self.note_number(node, result)
        return node

    def note_number(self, node: Node, result: "LookupResult") -> None:
        """Take note of a node's number, if the object that was seen has another."""
        if node.ino == result.ino:
            return
        if len(self._spared) > _MOST_SPARED:
            for number, nodes in list(self._spared.items()):
                if not any(map(self.has, nodes)):
                    del self._spared[number]
        spared = filter(self.has, self._spared.get(result.ino, ()))
        self._spared[result.ino] = [*spared, node]


class Tables(NodeTable):
    """The nodes of both sides, as the kernel knows them."""

    def __init__(self, scratch: NodeTable, state: NodeTable) -> None:
        super().__init__(scratch.root)
        self._scratch, self._state = scratch, state
        for table in (scratch, state):
            if isinstance(table, SideTable):
                table.both = self

    def __missing__(self, ino: int) -> Node:
        node = self._state.get(ino)
        return self._scratch[ino] if node is None else node

    def get(self, ino: int, default: Node | None = None) -> Node | None:  # type: ignore[override]
        """Return the node of that number, or *default*."""
        return self._state.get(ino) or self._scratch.get(ino, default)

    def all(self) -> list[Node]:
        """Return all nodes."""
        return [*self._scratch.values(), *self._state.values()]

    def drop_if_unknown(self, node: Node | None) -> None:
        """Let go of a node that the kernel does not know, and of parents kept for it alone."""
        if node is not None:
            (self._state if node.persisted else self._scratch).drop_if_unknown(node)
