"""What the layers hold under a name, read from the top as far down as the rules ask.

A column is a lazy sequence of entries, one a layer.  `rules.visible` takes from it what shows, and
once a layer decides, those below it are not asked.  Redirects (of moved directories and of
metadata-only copies) change the column's path on the way down, as overlayfs.rst describes under
"redirect_dir".  Nothing here knows of nodes, nor of earlier look-ups.
"""

from collections.abc import Iterator, Sequence

from unionfs.layers import rules
from unionfs.layers.layer import Layer, LayerPath
from unionfs.layers.rules import Found
from unionfs.layers.stack import Stack
from unionfs.layers.whiteouts import BOTTOM, LayerEntry, Whiteouts, has_whiteout_files


class Columns:
    """The columns of one stack of layers."""

    def __init__(self, stack: Stack, whiteouts: Whiteouts) -> None:
        self._stack = stack
        self.whiteouts = whiteouts

    def roots(self, layers: Sequence[Layer]) -> tuple[LayerPath, ...]:
        """Return the roots of *layers*, top first, down to one that hides those below it."""
        places = []
        for layer in layers:
            places.append(_root_of(layer))
            if self.whiteouts.is_opaque_root(layer):
                break
        return tuple(places)

    def shown(self, places: Sequence[LayerPath | LayerEntry], name: bytes) -> list[LayerEntry]:
        """Return what shows of what *places* of a directory, top first, hold under *name*.

        In the place of one there may be the entry that was made of it already.
        """
        return rules.visible(self._read(places, name))

    def _read(self, places: Sequence[LayerPath | LayerEntry], name: bytes) -> Iterator[LayerEntry]:
        """Yield what *places* hold, each under the name that a redirect above it says."""
        for place in places:
            entry = place if isinstance(place, LayerEntry) else self.whiteouts.classify(place, name)
            yield entry
            redirect = entry.marks.redirect
            if redirect.startswith(b"/"):
                yield from self._read_from_roots(redirect, self._layers_below(entry.layer))
                return
            name = redirect or name

    def _layers_below(self, layer: Layer) -> tuple[Layer, ...]:
        lowers = self._stack.lowers
        if layer is self._stack.upper:
            return lowers
        return tuple(lower for lower in lowers if lower.number < layer.number)

    def _read_from_roots(self, path: bytes, layers: Sequence[Layer]) -> Iterator[LayerEntry]:
        """Yield what *layers* hold under a path from their roots."""
        names = path[1:].split(b"/")
        for layer in layers:
            entry, names, covered = self._descend(layer, names)
            yield entry
            redirect = entry.marks.redirect
            if redirect.startswith(b"/"):
                names = redirect[1:].split(b"/")
            elif redirect:
                names = [*names[:-1], redirect]
            if covered or self.whiteouts.is_opaque_root(layer):
                return

    def _descend(self, layer: Layer, names: list[bytes]) -> tuple[LayerEntry, list[bytes], bool]:
        """Walk down *names* in one layer.

        Return the entry there, the names to ask the next layer for,
        and whether the layers below are covered.
        """
        directory = _root_of(layer)
        covered = False
        following = names
        for depth, name in enumerate(names):
            entry = self.whiteouts.classify(directory, name)
            if depth == len(names) - 1:
                break
            if entry.found is Found.NOTHING:
                return entry, following, covered
            if entry.found not in (Found.DIRECTORY, Found.OPAQUE):
                return entry._replace(found=Found.WHITEOUT), following, True
            covered = covered or entry.found is Found.OPAQUE
            redirect = entry.marks.redirect
            if redirect.startswith(b"/"):
                following = [*redirect[1:].split(b"/"), *names[depth + 1 :]]
            elif redirect:
                following = [*names[:depth], redirect, *names[depth + 1 :]]
            directory = entry.place
        return entry, following, covered


def _root_of(layer: Layer) -> LayerPath:
    if layer.number == BOTTOM:
        return LayerPath(layer, b".")
    return LayerPath(layer, b".", has_whiteout_files(layer, b"."))
