"""Looks that are shorter than those of `looks`, where something about the name is known already.

A listing names the layer that it has a name from, so no layer above holds that
name.  And of the lowest layer no mark says anything, so what a file there shows
is told by one stat.
"""

import os
import stat
from collections.abc import Callable

from unionfs.layers.inodes import number
from unionfs.layers.layer import join
from unionfs.layers.whiteouts import BOTTOM, INO_SHIFT, LAYER_MASK, LAYER_SHIFT, Part
from unionfs.view.looks import Looks
from unionfs.view.node import Node, Sighting, plain_lower

_FILES = frozenset({stat.S_IFREG, stat.S_IFLNK})

# Looks up a name with the hint that a listing has for it.
Finder = Callable[[bytes, int], tuple[Node, os.stat_result] | None]


def _find_nothing(_name: bytes, _hint: int) -> None:
    """Leave all to others."""


class QuickLooks(Looks):
    """The shorter looks at one stack of layers."""

    def lookup_listed(
        self, parent: Node, name: bytes, hint: int
    ) -> tuple[Node, os.stat_result] | None:
        """Look up a name that a listing of this moment has with *hint*, or with 0 for not known.

        The hint tells the layer that the listing has it from; none above that holds the name.
        """
        layer, below = hint >> LAYER_SHIFT & LAYER_MASK, parent.lowers
        if layer and self.markers.bear_names:
            for index, part in enumerate(below):
                if part.layer.number != layer:
                    continue
                path = join(part.path, name)
                st = part.layer.find(path)
                if st is None:
                    break
                sighting = self._on_lower(part, path, st, below[index + 1 :], name)
                return sighting and (self.nodes.adopt(parent, name, sighting), sighting.st)
        return self.lookup(parent, name)

    def finder(self, parent: Node) -> Finder:
        """Return what looks up most names of a directory's listing, in half the time.

        It does as `lookup_listed`, but only for plain files of the lowest layer that have no node
        yet, and returns None for all else.
        """
        part, nodes = self._bottom(parent), self.nodes
        if part is None:
            return _find_nothing
        layer, prefix = part.layer, join(part.path, b"")

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
            node = Node(ino, format_, st.st_ino, parent, name, upper=False, below=part)
            return nodes.add(node, parent), st

        return find

    def plain_below(self, parent: Node, name: bytes) -> Sighting | None:
        """Return the plain file of one name that the only lower of a directory on upper holds."""
        part = self._bottom(parent) if parent.upper and len(parent.below) == 1 else None
        if part is None or (parent, name) in self._above:
            return None
        st = part.layer.find(join(part.path, name))
        if st is None:
            self._note_above(parent, name)
        elif self._is_plain(st) and st.st_nlink == 1:
            return plain_lower(number(part.layer, st), st, part, name)
        return None

    def _bottom(self, parent: Node) -> Part | None:
        """Return the lowest layer's part of a directory, if whiteouts there are devices alone."""
        below = parent.lowers
        if not below or not self.markers.bear_names:
            return None
        part = below[-1]
        return None if part.layer.number != BOTTOM or part.whiteouts_are_files else part

    def _is_plain(self, st: os.stat_result) -> bool:
        """Tell whether this, in the lowest layer, is a file of which no mark says anything."""
        return stat.S_IFMT(st.st_mode) in _FILES and (
            st.st_nlink == 1 or not self._index_has_entries()
        )
