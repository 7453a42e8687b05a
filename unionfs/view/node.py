"""The objects that the kernel knows, and the names by which they are reached.

Inode numbers (`inodes`) are unique among live nodes; where two would collide, the
later one gets a spare number.

A node computes its upper path from its parents, so renaming a directory
touches one node.  Lower layers do not change, so the places in them are kept
as they were found.  The kernel may know a million files of the lowers, so the node
of such a file keeps only the lower directory that holds it, which its parent has, too.
"""

import contextlib
import dataclasses
import errno
import itertools
import os
import stat
from collections.abc import Callable, Iterator

from unionfs.host import closing
from unionfs.layers.inodes import ROOT_INO, hashed
from unionfs.layers.layer import Layer, LayerPath
from unionfs.view.lookup_result import Below, LookupResult, plain

# `Node.unsynced` of an object that was copied up before the node was made.
UNKNOWN_COPY = 1

# Levels up to which a path is put together name by name: that is faster than making a list of
# them, but copies the path at each step.
_USUAL_DEPTH = (None,) * 64


def _far_path(node: "Node", path: bytes) -> bytes:
    """Return the path from the root of *path* in the directory *node*, which is far down."""
    names = [path]
    while node.parent is not None:
        names.append(node.name)
        node = node.parent
    names.reverse()
    return b"/".join(names)


@dataclasses.dataclass(slots=True, eq=False)
class Node:
    """One object of the union.

    Invariants: the first lower place of a file that is not on upper has its
    attributes, the last one its content; a file on upper has a lower place only
    while its content is still there (metacopy); if a node is on upper, so are
    its ancestors; a node on upper that lost its last name has a pin.
    """

    ino: int
    format: int  # stat.S_IFMT of the mode
    host_ino: int  # the host's inode number of the object that shows
    parent: "Node | None"
    name: bytes
    upper: bool
    below: Below  # a directory that holds the file does so under `name`
    redirect: bytes = b""  # the marker of that name: where the lower places of a moved node are
    link: bytes = b""  # the entry of the hard link index that holds the file
    links: int = 0  # links that the union shows beyond the host's st_nlink
    aliases: "dict[tuple[Node, bytes], None] | None" = None  # further names of the same file
    pin: int = -1  # descriptor of an upper object without a name
    lookups: int = 0  # entries handed to the kernel, minus those it forgot
    children: int = 0  # nodes and aliases that have this one as their parent
    impure: bool = False  # upper's directory is marked as holding copied-up objects
    unsynced: int = 0  # the last copy-up, if its name is not known to be on disk: `CopyUp.count`
    orphan: bool = False  # it lost its last name, or has none yet
    protection: int = 0  # on upper: `iflags.IMMUTABLE` and `APPEND`
    superseded: bool = False  # its name has another node now; only open files still know it
    partial: bool = False  # upper has some blocks of the content, or is about to: `partials`
    persisted: bool = False  # it is of the side *state*: `sides`

    @property
    def path(self) -> bytes:
        """Return the path in the union, which is that in upper."""
        return b"." if self.parent is None else child_path(self.parent, self.name)

    @property
    def lowers(self) -> tuple[LayerPath, ...]:
        """Return the lower places, top first."""
        below = self.below
        return (below.child(self.name),) if isinstance(below, LayerPath) else below

    @property
    def is_directory(self) -> bool:
        """Tell whether this is a directory."""
        return self.format == stat.S_IFDIR

    @property
    def is_unmarked(self) -> bool:
        """Tell whether a file, or a directory that is in upper alone, has no marks on disk.

        Only this mount makes marks, and the node knows of them.
        """
        if self.redirect or self.link or self.links or self.superseded or self.pin >= 0:
            return False
        if self.protection:
            return False
        below = self.below
        return not below if self.upper else isinstance(below, LayerPath)

    @property
    def is_merged(self) -> bool:
        """Tell whether this is a directory that shows content of a lower layer."""
        return self.format == stat.S_IFDIR and bool(self.below)

    @property
    def lower_path(self) -> bytes:
        """Return the path in the union of the lowers, with a leading slash (overlayfs.rst)."""
        names: list[bytes] = []
        node = self
        while node.parent is not None:
            if node.redirect.startswith(b"/"):
                return b"/".join([node.redirect, *reversed(names)])
            names.append(node.redirect or node.name)
            node = node.parent
        return b"/" + b"/".join(reversed(names))

    def move(self, parent: "Node | None", name: bytes) -> None:
        """Take another name; the lower places stay where they were found."""
        if isinstance(self.below, LayerPath):
            self.below = self.lowers
        self.parent, self.name = parent, name


class NodeTable(dict[int, Node]):
    """All nodes that the kernel knows, or that are parents of such nodes, by inode number."""

    def __init__(self, root: Node) -> None:
        super().__init__({ROOT_INO: root})
        self.root = root
        self.has_partials = False  # has any node been `partial`?
        self.orphans: dict[int, Node] = {}  # those that have no name
        # Nodes that stay even if the kernel forgets them, as long as they have names.
        self.kept: set[Node] = set()
        # Called with a node that is found to be partial, or becomes so, and with a kept node that
        # has lost the last of its known names.
        self.partial_came: Callable[[Node], None] = lambda _: None
        self.names_went: Callable[[Node], None] = lambda _: None

    def __missing__(self, ino: int) -> Node:
        """Raise ESTALE: the kernel asks for a node that it has forgotten."""
        raise OSError(errno.ESTALE, f"inode {ino} is not known")

    def all(self) -> list[Node]:
        """Return all nodes."""
        return [*self.values()]

    def unmarked(self, ino: int, st: os.stat_result, lower: Layer | None = None) -> Node | None:
        """Return the node of an object of upper or of *lower*, if it is known to have no marks."""
        node = self.get(ino)
        if (
            node is not None
            and node.host_ino == st.st_ino
            and node.upper == (lower is None)
            and node.format == stat.S_IFMT(st.st_mode)
            and node.is_unmarked
            and (lower is None or _may_be_in(node, lower, st))
        ):
            return node
        return None

    def of(self, result: LookupResult) -> Node | None:
        """Return the node of the object that was seen, if there is one."""
        node = self.get(result.ino)
        if node is None or node is result.node or is_of(node, result):
            return node
        for spare in self._spares(result):
            node = self.get(spare)
            if node is None or is_of(node, result):
                return node
        return None

    def adopt(self, parent: Node, name: bytes, result: LookupResult) -> Node:
        """Return the node of the object seen under *name*, a new one if need be."""
        node = self.of(result)
        if node is None:
            return self._add(parent, name, result)
        if node.orphan:
            node.orphan = False
            self.orphans.pop(node.ino, None)
            self._reattach(node, parent, name)
            if node.partial:
                self.note_partial(node)
        elif node.parent is not parent or node.name != name:
            self._add_name(node, parent, name)
        return node

    @contextlib.contextmanager
    def held(self, parent: Node, name: bytes, result: LookupResult) -> Iterator[Node]:
        """Yield the node of the object that was seen, and keep it at least until the end."""
        node = self.adopt(parent, name, result)
        node.lookups += 1
        try:
            yield node
        finally:
            node.lookups -= 1
            self.drop_if_unknown(node)

    def add(self, node: Node, parent: Node) -> Node:
        """Enter a new node below *parent*; its number is not taken."""
        parent.children += 1
        self[node.ino] = node
        return node

    def add_unnamed(self, parent: Node, ino: int, st: os.stat_result, pin: int) -> Node:
        """Enter an object of upper that was made without a name; it may get one later."""
        node = self._add(parent, b"", plain(ino, st))
        node.orphan, node.pin = True, pin
        self.orphans[node.ino] = node
        return node

    def _add(self, parent: Node, name: bytes, result: LookupResult) -> Node:
        ino = result.ino
        if ino in self:
            ino = next(spare for spare in self._spares(result) if spare not in self)
        node = Node(
            ino,
            stat.S_IFMT(result.st.st_mode),
            result.st.st_ino,
            parent,
            name,
            result.upper,
            result.below,
            result.redirect,
            result.link,
            result.links,
            protection=result.protection,
            partial=result.partial,
            persisted=parent.persisted,
        )
        if result.upper and ino != result.st.st_ino:  # copied up; whether it was synced is unknown
            node.unsynced = UNKNOWN_COPY
        self.add(node, parent)
        if result.partial:
            self.note_partial(node)
        return node

    def _add_name(self, node: Node, parent: Node, name: bytes) -> None:
        if node.is_directory:  # the layers were changed beside the mount
            self._reattach(node, parent, name)
        elif node.aliases is None:
            node.aliases = {(parent, name): None}
            parent.children += 1
        elif (parent, name) not in node.aliases:
            node.aliases[parent, name] = None
            parent.children += 1

    @staticmethod
    def _spares(result: LookupResult) -> "itertools.starmap[int]":
        facts = (result.ino, result.st.st_dev, result.st.st_ino)
        return itertools.starmap(hashed, ((*facts, turn) for turn in itertools.count()))

    def _reattach(self, node: Node, parent: Node, name: bytes) -> None:
        self._detach_primary(node)
        node.move(parent, name)
        parent.children += 1

    def _detach_primary(self, node: Node) -> None:
        if node.parent is not None:
            node.parent.children -= 1
            self.drop_if_unknown(node.parent)

    def rename(self, node: Node, old: tuple[Node, bytes], new: tuple[Node, bytes]) -> None:
        """Replace one name of *node* by another."""
        came = True
        if node.parent is old[0] and node.name == old[1]:
            node.move(*new)
        elif node.aliases and old in node.aliases:
            del node.aliases[old]
            came = new not in node.aliases
            node.aliases[new] = None
        else:
            return
        new[0].children += came
        old[0].children -= 1
        if old[0] is not new[0]:
            self.drop_if_unknown(old[0])

    def detach(self, node: Node, parent: Node, name: bytes) -> None:
        """Take one name from *node*; without a name it is an orphan under its last parent.

        Let go of it where the kernel does not know it.
        """
        if node.aliases and (parent, name) in node.aliases:
            del node.aliases[parent, name]
            parent.children -= 1
            self.drop_if_unknown(parent)
        elif node.parent is parent and node.name == name:
            if node.aliases:
                self._detach_primary(node)
                node.move(*node.aliases.popitem()[0])
            else:
                node.orphan = True
                self.orphans[node.ino] = node
                if node in self.kept:
                    self._keep_no_more(node)
                    self.names_went(node)
        self.drop_if_unknown(node)

    def note_partial(self, node: Node) -> None:
        """Take note that a node, which has a name, is partial."""
        self.has_partials = True
        self.partial_came(node)

    def keep(self, node: Node) -> None:
        """Keep a file until its name is gone."""
        if node not in self.kept:
            self.kept.add(node)
            node.children += 1

    def keep_no_more(self, node: Node) -> None:
        """Keep a file only as long as the kernel knows it."""
        if node in self.kept:
            self._keep_no_more(node)
            self.drop_if_unknown(node)

    def _keep_no_more(self, node: Node) -> None:
        self.kept.remove(node)
        node.children -= 1

    def forget(self, ino: int, count: int) -> None:
        """Take back *count* lookups; the kernel no longer knows a node that has none."""
        node = self.get(ino)
        if node is not None:
            node.lookups -= count
            self.drop_if_unknown(node)

    def drop_if_unknown(self, node: Node | None) -> None:
        """Let go of a node that the kernel does not know, and of parents kept for it alone."""
        while node is not None and node.lookups <= 0 and node.children == 0:
            if node.parent is None or self.get(node.ino) is not node:
                return
            del self[node.ino]
            if node.orphan:
                self.orphans.pop(node.ino, None)
            if node.pin >= 0:
                closing.close(node.pin)
                node.pin = -1
            for parent, _ in node.aliases or ():
                parent.children -= 1
                if parent is not node.parent:
                    self.drop_if_unknown(parent)
            node.parent.children -= 1
            node = node.parent


def _may_be_in(node: Node, lower: Layer, st: os.stat_result) -> bool:
    """Tell whether a node of the lowers may be an object that was found in *lower*.

    Two layers on one file system may have names of one file.  Or one layer lies within the other,
    and both show the same object: these are two objects of the union.
    """
    links = st.st_nlink > 1 and node.format != stat.S_IFDIR
    return links or _top(node.below).layer is lower


def _top(below: Below) -> LayerPath:
    return below if isinstance(below, LayerPath) else below[0]


def is_of(node: Node, result: LookupResult) -> bool:
    """Tell whether the object seen is that of *node*."""
    st = result.st
    return (
        node.host_ino == st.st_ino
        and node.upper == result.upper
        and node.format == stat.S_IFMT(st.st_mode)
        and not node.superseded
        and (node.pin < 0 or st.st_nlink > 0)
        and (node.upper or _may_be_in(node, _top(result.below).layer, st))
    )


def child_path(parent: Node, name: bytes) -> bytes:
    """Return the upper path of *name* in *parent*."""
    node, path = parent, name
    for _ in _USUAL_DEPTH:
        above = node.parent
        if above is None:
            return path
        path = node.name + b"/" + path
        node = above
    return _far_path(node, path)


def directory_of(places: tuple[LayerPath, ...]) -> Node:
    """Return a node for questions to a union: a directory with just these lower places."""
    return Node(0, stat.S_IFDIR, 0, None, b"", upper=False, below=places)


def passing(result: LookupResult, parent: Node, name: bytes) -> Node:
    """Return a node, in no table, for questions to a union about a directory that was seen."""
    return Node(0, stat.S_IFDIR, 0, parent, name, result.upper, result.lowers)
