"""Which object a name of the union shows.

Most names need no column (`columns`): the first layer that holds something under them holds
a file without marks, or a directory with no other to be merged with.  That is the short way,
which makes no entries.  It is taken where whiteouts bear the name that they hide, and tells the
same (tests/core/view/test_short_way.py).

It is shorter still where something about the name is known.  A listing names the layer that it
has a name from, so no layer above holds that name; and of the lowest layer no mark says anything,
so what a file there shows is told by one stat.  That takes 5 us from each of the 15 that a name
of a listing costs, and 10 from 38 of the removal of a lower file.
"""

import errno
import os
import stat
from collections.abc import Callable

from unionfs.layers import markers, metacopies, whiteouts
from unionfs.layers.columns import Columns
from unionfs.layers.inodes import kept, number
from unionfs.layers.layer import Layer, LayerPath, WritableLayer, join
from unionfs.layers.markers import UNMARKED, Marks
from unionfs.layers.rules import Found
from unionfs.layers.stack import Stack
from unionfs.layers.whiteouts import (
    BOTTOM,
    INO_SHIFT,
    LAYER_MASK,
    LAYER_SHIFT,
    LayerEntry,
)
from unionfs.view.known import Known
from unionfs.view.lookup_result import LookupResult, plain, plain_lower
from unionfs.view.node import Node, NodeTable, child_path
from unionfs.view.upper import Upper

_DIRECTORIES = frozenset({Found.DIRECTORY, Found.OPAQUE})
_FILES = frozenset({stat.S_IFREG, stat.S_IFLNK})
_ABSENT = os.strerror(errno.ENOENT)

# Looks up a name with the hint that a listing has for it.
Finder = Callable[[bytes, int], tuple[Node, os.stat_result] | None]


def find_nothing(_name: bytes, _hint: int) -> None:
    """Leave all to others."""


class Lookup:
    """The look-ups in one union."""

    def __init__(
        self, stack: Stack, upper: Upper, columns: Columns, nodes: NodeTable, known: Known
    ) -> None:
        layers: list[Layer] = [*stack.lowers, *filter(None, (stack.upper,))]
        # Bytes of a name that some layer can hold: fs/overlayfs/super.c, ovl_check_namelen.
        self.name_max = max(os.fstatvfs(layer.fd).f_namemax for layer in layers)
        self._numbered = {layer.number: layer for layer in stack.lowers}
        self._top: Layer = stack.upper or stack.lowers[0]  # upper for a node that is on upper
        self._stack = stack
        self._upper = upper
        self._links = upper.links if upper else None
        self._columns = columns
        self._whiteouts = columns.whiteouts
        self._nodes = nodes
        self._known = known

    def find(self, parent: Node, name: bytes) -> LookupResult | None:
        """Return what shows under *name*, or None; no node is made."""
        if len(name) > self.name_max:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        below = parent.below
        if parent.orphan or isinstance(below, LayerPath):  # no names are in a file
            return None
        if not self._whiteouts.are_in_place:
            return self._find_in_column(parent, name)
        if parent.upper:
            path = child_path(parent, name)
            st = self._top.find(path)
            if st is not None:
                return self._on_upper(path, st, below, name)
        if len(below) > 1:
            below = self._known.first_holders.narrow(parent, name, below)
        for index, directory in enumerate(below):
            path = join(directory.path, name)
            st = directory.layer.find(path)
            if st is not None:
                return self._on_lower(directory, path, st, below[index + 1 :], name)
        if below:
            self._known.note_not_below(parent, name)
        return None

    def require(self, parent: Node, name: bytes) -> LookupResult:
        """Return what shows under *name*; ENOENT where nothing does."""
        result = self.find(parent, name)
        if result is None:
            raise FileNotFoundError(errno.ENOENT, _ABSENT)
        return result

    def node(self, parent: Node, name: bytes) -> tuple[Node, os.stat_result] | None:
        """Return the node under *name*, a new one if need be, and its attributes; or None."""
        result = self.find(parent, name)
        if result is None:
            self._known.not_found = (parent, name)
            return None
        return self._nodes.adopt(parent, name, result), result.st

    def shows_below(self, parent: Node, name: bytes) -> bool:
        """Tell whether *name* would show from a lower layer, were it not in upper."""
        below = parent.lowers
        if not below or (parent, name) in self._known.not_below:
            return False
        if not self._whiteouts.are_in_place:
            return bool(self._columns.shown(below, name))
        if len(below) > 1:
            below = self._known.first_holders.narrow(parent, name, below)
        for directory in below:  # the first that holds anything decides, and no mark matters
            path = join(directory.path, name)
            st = directory.layer.find(path)
            if st is not None:
                return not whiteouts.is_whiteout_in(directory, path, st)
        return False

    # The short way

    def _on_upper(
        self,
        path: bytes,
        st: os.stat_result,
        below: tuple[LayerPath, ...],
        name: bytes,
    ) -> LookupResult | None:
        """Return what shows where upper holds something under *name*."""
        kind = stat.S_IFMT(st.st_mode)
        if kind == stat.S_IFCHR and whiteouts.is_whiteout(st):
            return None
        ino = number(self._top, st)
        alone = not below or kind != stat.S_IFDIR
        if alone:
            node = self._nodes.unmarked(ino, st)
            if node is not None:
                return plain(ino, st, node)
        marks = markers.read(self._top, path)
        if alone and marks is UNMARKED:
            return plain(ino, st)
        entry = whiteouts.shown(self._top, path, st, marks)
        return self._result(self._columns.shown((entry, *below), name))

    def _on_lower(
        self,
        directory: LayerPath,
        path: bytes,
        st: os.stat_result,
        below: tuple[LayerPath, ...],
        name: bytes,
    ) -> LookupResult | None:
        """Return what shows where *directory* is the first to hold something under *name*."""
        kind = stat.S_IFMT(st.st_mode)
        layer, _, files = directory
        if (files or kind == stat.S_IFCHR) and whiteouts.is_whiteout_in(directory, path, st):
            return None
        ino = number(layer, st)
        # Of a directory there may be others below: no node is kept as one without marks.
        node = None if kind == stat.S_IFDIR else self._nodes.unmarked(ino, st, layer)
        if layer.number == BOTTOM or node is not None:
            marks = UNMARKED
        else:
            marks = markers.read(layer, path)
        if marks is UNMARKED:
            if kind == stat.S_IFDIR:
                if not below:
                    return LookupResult(
                        ino, st, upper=False, named=False, below=(LayerPath(layer, path),)
                    )
            elif st.st_nlink == 1 or not self._links:
                return plain_lower(ino, st, directory, name, node)
        entry = whiteouts.shown(layer, path, st, marks)
        return self._result(self._columns.shown((entry, *below), name))

    # The long way

    def _find_in_column(self, parent: Node, name: bytes) -> LookupResult | None:
        if self._whiteouts.reserved(name):
            return None
        places = parent.lowers
        if parent.upper:
            places = (LayerPath(self._top, parent.path), *places)
        return self._result(self._columns.shown(places, name))

    def _result(self, shown: list[LayerEntry]) -> LookupResult | None:
        """Return what the entries that show make up."""
        if not shown:
            return None
        top = shown[0]
        if top.st is None:  # an entry that shows was looked at
            raise FileNotFoundError(errno.ENOENT, _ABSENT)
        upper = top.layer is self._stack.upper
        if top.found in _DIRECTORIES:
            below = tuple(entry.place for entry in shown[upper:])
            ino = self._ino(top.layer, top.st, top.marks if upper else UNMARKED)
            # Of an opaque one a redirect says nothing: it led to what is hidden now.
            redirect = top.marks.redirect * (upper and top.found is Found.DIRECTORY)
            protection = top.marks.protection * upper
            return LookupResult(
                ino, top.st, upper, upper, below, redirect=redirect, protection=protection
            )
        if shown[-1].found is Found.METACOPY:
            raise markers.damaged(top.layer, top.path, "its content is not in the lower layers")
        if upper:
            return self._upper_file(top, shown[1:])
        if top.st.st_nlink > 1 and self._links:
            key = self._links.find(top.layer, top.st)
            if key:
                return self._linked(key, shown[-1].place)
        below = (top.place,) if len(shown) == 1 else (top.place, shown[-1].place)
        return LookupResult(
            number(top.layer, top.st), top.st, upper=False, named=False, below=below
        )

    def _ino(self, layer: Layer, st: os.stat_result, marks: Marks) -> int:
        """Return the number of an object, which may have been copied up."""
        return kept(marks.ino, self._numbered) if marks.ino else number(layer, st)

    def _upper_file(self, top: LayerEntry, below: list[LayerEntry]) -> LookupResult:
        st, marks = top.st, top.marks
        if st is None:
            raise FileNotFoundError(errno.ENOENT, _ABSENT)
        ino = self._ino(top.layer, st, marks)
        if below:
            st = self._settled(ino, self._upper.layer, top, below[-1].place)
        return LookupResult(
            ino,
            st,
            upper=True,
            named=True,
            below=(below[-1].place,) if below else (),
            redirect=marks.redirect if below else b"",  # else left over: `markers.end_metacopy`
            link=marks.link if marks.link in self._upper.links else b"",
            links=marks.links,
            protection=marks.protection,
            partial=marks.partial and bool(below),
        )

    def _linked(self, key: bytes, content: LayerPath) -> LookupResult:
        """Return the result of a lower file whose copy is in the hard link index."""
        work = self._upper.work
        path = self._upper.links.path(key)
        st, marks = work.stat(path), markers.read(work, path)
        ino = self._ino(work, st, marks)
        if marks.metacopy:
            st = self._settled(
                ino, work, LayerEntry(Found.METACOPY, work, path, st, marks), content
            )
        return LookupResult(
            ino,
            st,
            upper=True,
            named=False,
            below=(content,) if marks.metacopy else (),
            redirect=marks.redirect if marks.metacopy else b"",
            link=key,
            links=marks.links,
            protection=marks.protection,
            partial=marks.partial and marks.metacopy,
        )

    def _settled(
        self, ino: int, layer: WritableLayer, copy: LayerEntry, content: LayerPath
    ) -> os.stat_result:
        """Return the attributes of a metadata-only copy; settle one that a crash left half way.

        One that has a node was looked up since, and may be being filled.
        """
        if copy.st is None:
            raise FileNotFoundError(errno.ENOENT, _ABSENT)
        node = self._nodes.get(ino)
        if node is not None:
            return self._upper.fills.shown(node, copy.st)
        return metacopies.made_right(layer, copy.path, copy.st, copy.marks, content)

    # What was listed, or lies in the lowest layer

    def listed_node(
        self, parent: Node, name: bytes, hint: int
    ) -> tuple[Node, os.stat_result] | None:
        """Look up a name that a listing of this moment has with *hint*, or with 0 for not known.

        The hint tells the layer that the listing has it from; none above that holds the name.
        """
        layer, below = hint >> LAYER_SHIFT & LAYER_MASK, parent.lowers
        if layer and self._whiteouts.are_in_place:
            for index, directory in enumerate(below):
                if directory.layer.number != layer:
                    continue
                path = join(directory.path, name)
                st = directory.layer.find(path)
                if st is None:
                    break
                result = self._on_lower(directory, path, st, below[index + 1 :], name)
                return result and (self._nodes.adopt(parent, name, result), result.st)
        return self.node(parent, name)

    def finder(self, parent: Node) -> Finder:
        """Return what looks up most names of a directory's listing, in half the time.

        It does as `listed_node`, but only for plain files of the lowest layer that have no node
        yet, and returns None for all else.
        """
        directory, nodes = self._bottom(parent), self._nodes
        if directory is None:
            return find_nothing
        layer, prefix = directory.layer, join(directory.path, b"")

        def find(name: bytes, hint: int) -> tuple[Node, os.stat_result] | None:
            ino = hint >> INO_SHIFT
            if hint >> LAYER_SHIFT & LAYER_MASK != BOTTOM or ino in nodes:
                return None
            try:
                st = layer.find(prefix + name)
            except OSError:  # the longer look says what is wrong, or leaves the name out
                return None
            if st is None or not self._is_plain(st) or number(layer, st) != ino:
                return None
            format_ = stat.S_IFMT(st.st_mode)
            node = Node(ino, format_, st.st_ino, parent, name, upper=False, below=directory)
            node.persisted = parent.persisted
            return nodes.add(node, parent), st

        return find

    def plain_below(self, parent: Node, name: bytes) -> LookupResult | None:
        """Return the plain file of one name that the only lower of a directory on upper holds."""
        directory = self._bottom(parent) if parent.upper and len(parent.below) == 1 else None
        if directory is None or (parent, name) in self._known.not_below:
            return None
        st = directory.layer.find(join(directory.path, name))
        if st is None:
            self._known.note_not_below(parent, name)
        elif self._is_plain(st) and st.st_nlink == 1:
            return plain_lower(number(directory.layer, st), st, directory, name)
        return None

    def _bottom(self, parent: Node) -> LayerPath | None:
        """Return the lowest layer's directory of *parent*, if whiteouts there are devices alone."""
        below = parent.lowers
        if not below or not self._whiteouts.are_in_place:
            return None
        lowest = below[-1]
        return None if lowest.layer.number != BOTTOM or lowest.whiteouts_are_files else lowest

    def _is_plain(self, st: os.stat_result) -> bool:
        """Tell whether this, in the lowest layer, is a file of which no mark says anything."""
        return stat.S_IFMT(st.st_mode) in _FILES and (st.st_nlink == 1 or not self._links)
