"""Which object a name shows: what the layers of a directory hold under it.

Looking up a name reads a lazy column of findings, one per layer, until
`rules.visible` has decided; the layers below are not asked.  Redirects (of
moved directories and of metadata-only copies) change the column's path on the
way down, as overlayfs.rst describes under "redirect_dir".

Most names need no column: the first layer that holds something under them holds
a file without marks, or a directory with no other to be merged with.  That is
the short way, which makes no findings.  It is taken where whiteouts bear the
name that they hide, and tells the same (tests/core/test_looks.py).
"""

import errno
import os
import stat
from collections.abc import Iterator, Sequence

from unionfs.layers import markers, metacopies, rules, whiteouts
from unionfs.layers.far import FarLayer
from unionfs.layers.inodes import ROOT_INO, divide, kept, number
from unionfs.layers.layer import Layer, WritableLayer, join
from unionfs.layers.links import LinkIndex
from unionfs.layers.markers import UNMARKED, Marks
from unionfs.layers.rules import Found
from unionfs.layers.stack import Stack
from unionfs.layers.whiteouts import BOTTOM, Finding, Markers, Part
from unionfs.view.emptied import Emptied
from unionfs.view.fills import Fills
from unionfs.view.node import Node, NodeTable, Sighting, plain, plain_lower
from unionfs.view.rosters import Rosters

_DIRECTORIES = frozenset({Found.DIRECTORY, Found.OPAQUE})
_MOST_ABOVE = 32
_ABSENT = os.strerror(errno.ENOENT)


class Looks:
    """The names of one stack of layers, and the nodes found under them."""

    links: LinkIndex  # where there is an upper

    def __init__(self, stack: Stack, kinds: Markers) -> None:
        divide(stack)
        self.stack = stack
        self.lowers = stack.lowers
        self.upper = stack.upper
        self.work = stack.work
        self.far = tuple(layer for layer in stack.lowers if isinstance(layer, FarLayer))
        layers: list[Layer] = [*stack.lowers, *filter(None, (stack.upper,))]
        # Bytes of a name that some layer can hold: fs/overlayfs/super.c, ovl_check_namelen.
        self.name_max = max(os.fstatvfs(layer.fd).f_namemax for layer in layers)
        self._numbered = {layer.number: layer for layer in stack.lowers}
        self.markers = kinds
        self.nodes = NodeTable(self._root())
        self.rosters = Rosters()
        self.emptied = Emptied()
        self.fills = Fills()
        # Grows with each change of names, of the layers of objects, and of directories' attributes.
        self.revision = 0
        self.changed: Node | None = None  # the directory in which a name changed last
        # What the last look-up did not find, until names change: the kernel looks a name up before
        # it creates it, or renames to it.
        self._absent: tuple[Node, bytes] | None = None
        # Names that no lower was seen to hold of late, oldest first; lowers do not change.  Under
        # such a name a file is made, and soon renamed or removed.
        self._above: dict[tuple[Node, bytes], None] = {}

    def _root(self) -> Node:
        top: Layer = self.upper or self.lowers[0]
        return Node(
            ROOT_INO,
            stat.S_IFDIR,
            top.stat(b".").st_ino,
            None,
            b"",
            upper=self.upper is not None,
            below=self.roots(() if self._is_alone(self.upper) else self.lowers),
        )

    def roots(self, layers: Sequence[Layer]) -> tuple[Part, ...]:
        """Return the roots of *layers*, top first, down to one that hides those below it."""
        parts = []
        for layer in layers:
            parts.append(_root_part(layer))
            if self._is_alone(layer):
                break
        return tuple(parts)

    def _is_alone(self, layer: Layer | None) -> bool:
        return layer is not None and self.markers.is_opaque_root(layer)

    def writable(self) -> tuple[WritableLayer, WritableLayer]:
        """Return upper and work; EROFS where there are none."""
        if self.upper is None or self.work is None:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return self.upper, self.work

    def look(self, parent: Node, name: bytes) -> Sighting | None:
        """Return what shows under *name*, or None; no node is made."""
        if len(name) > self.name_max:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        if parent.orphan:
            return None
        if not self.markers.bear_names:
            return self._look_by_column(parent, name)
        below = parent.lowers
        if parent.upper and self.upper is not None:
            path = join(parent.path, name)
            st = self.upper.find(path)
            if st is not None:
                return self._on_upper(self.upper, path, st, below, name)
        if len(below) > 1:
            below = self.rosters.holders(parent, name, below)
        for index, part in enumerate(below):
            path = join(part.path, name)
            st = part.layer.find(path)
            if st is not None:
                return self._on_lower(part, path, st, below[index + 1 :], name)
        if below:
            self._note_above(parent, name)
        return None

    def _note_above(self, parent: Node, name: bytes) -> None:
        self._above[parent, name] = None
        if len(self._above) > _MOST_ABOVE:
            del self._above[next(iter(self._above))]

    def find(self, parent: Node, name: bytes) -> Sighting:
        """Return what shows under *name*; ENOENT where nothing does."""
        sighting = self.look(parent, name)
        if sighting is None:
            raise FileNotFoundError(errno.ENOENT, _ABSENT)
        return sighting

    def lookup(self, parent: Node, name: bytes) -> tuple[Node, os.stat_result] | None:
        """Return the node under *name* and its attributes, or None."""
        sighting = self.look(parent, name)
        if sighting is None:
            self._absent = (parent, name)
            return None
        return self.nodes.adopt(parent, name, sighting), sighting.st

    def is_absent(self, parent: Node, name: bytes) -> bool:
        """Tell whether the last look-up has just said that nothing shows under *name*."""
        absent = self._absent
        return absent is not None and absent[1] == name and absent[0] is parent

    def names_change(self, directory: Node | None = None) -> None:
        """Take note that names in *directory* are about to change in any way.

        Without one: that what is known of objects is.
        """
        self._absent = None
        self.revision += 1
        if directory is not None:
            self.changed = directory
            self.emptied.changes(directory)

    def lowers_change(self) -> None:
        """Forget what was known of the lowers: `unionfs commit` is writing to one of them."""
        self._above.clear()
        for layer in self.lowers:
            layer.forget()
        self.rosters = Rosters()
        self.emptied = Emptied()
        self.names_change()

    # The short way

    def _on_upper(
        self,
        upper: Layer,
        path: bytes,
        st: os.stat_result,
        below: tuple[Part, ...],
        name: bytes,
    ) -> Sighting | None:
        """Return what shows where upper holds something under *name*."""
        kind = stat.S_IFMT(st.st_mode)
        if kind == stat.S_IFCHR and whiteouts.is_whiteout(st):
            return None
        ino = number(upper, st)
        alone = not below or kind != stat.S_IFDIR
        if alone:
            node = self.nodes.unmarked(ino, st)
            if node is not None:
                return plain(ino, st, node)
        marks = markers.read(upper, path)
        if alone and marks is UNMARKED:
            return plain(ino, st)
        finding = whiteouts.shown(upper, path, st, marks)
        return self._decided(self._from(finding, below, name))

    def _on_lower(
        self,
        part: Part,
        path: bytes,
        st: os.stat_result,
        below: tuple[Part, ...],
        name: bytes,
    ) -> Sighting | None:
        """Return what shows where *part* is the first to hold something under *name*."""
        kind = stat.S_IFMT(st.st_mode)
        layer, _, files = part
        if (files or kind == stat.S_IFCHR) and whiteouts.is_whiteout_in(part, path, st):
            return None
        ino = number(layer, st)
        node = self.nodes.unmarked(ino, st, layer)
        if layer.number == BOTTOM or node is not None:
            marks = UNMARKED
        else:
            marks = markers.read(layer, path)
        if marks is UNMARKED:
            if kind == stat.S_IFDIR:
                if not below:
                    return Sighting(ino, st, upper=False, named=False, below=(Part(layer, path),))
            elif st.st_nlink == 1 or not self._index_has_entries():
                return plain_lower(ino, st, part, name, node)
        finding = whiteouts.shown(layer, path, st, marks)
        return self._decided(self._from(finding, below, name))

    def shows_below(self, parent: Node, name: bytes) -> bool:
        """Tell whether *name* would show from a lower layer, were it not in upper."""
        below = parent.lowers
        if not below or (parent, name) in self._above:
            return False
        if not self.markers.bear_names:
            return bool(rules.visible(self._below(below, name)))
        if len(below) > 1:
            below = self.rosters.holders(parent, name, below)
        for part in below:  # the first that holds anything decides, and no mark matters
            path = join(part.path, name)
            st = part.layer.find(path)
            if st is not None:
                return not whiteouts.is_whiteout_in(part, path, st)
        return False

    # The long way

    def _look_by_column(self, parent: Node, name: bytes) -> Sighting | None:
        if self.markers.reserved(name):
            return None
        return self._decided(self._column(parent, name))

    def _decided(self, column: Iterator[Finding]) -> Sighting | None:
        shown = rules.visible(column)
        return self._sighting(shown) if shown else None

    def _column(self, parent: Node, name: bytes) -> Iterator[Finding]:
        if parent.upper and self.upper is not None:
            finding = self.markers.classify(Part(self.upper, parent.path), name)
            yield from self._from(finding, parent.lowers, name)
        else:
            yield from self._below(parent.lowers, name)

    def _below(self, parts: Sequence[Part], name: bytes) -> Iterator[Finding]:
        """Yield what *parts* hold, each under the name that a redirect above it says."""
        for part in parts:
            finding = self.markers.classify(part, name)
            yield finding
            redirect = finding.marks.redirect
            if redirect.startswith(b"/"):
                yield from self._from_root(redirect, self._layers_below(finding.layer))
                return
            name = redirect or name

    def _from(self, finding: Finding, below: Sequence[Part], name: bytes) -> Iterator[Finding]:
        """Yield a finding, and what *below* or, after a redirect, others hold."""
        yield finding
        redirect = finding.marks.redirect
        if redirect.startswith(b"/"):
            yield from self._from_root(redirect, self._layers_below(finding.layer))
        else:
            yield from self._below(below, redirect or name)

    def _layers_below(self, layer: Layer) -> tuple[Layer, ...]:
        if layer is self.upper:
            return self.lowers
        return tuple(lower for lower in self.lowers if lower.number < layer.number)

    def _from_root(self, path: bytes, layers: Sequence[Layer]) -> Iterator[Finding]:
        """Yield what *layers* hold under a path from their roots."""
        names = path[1:].split(b"/")
        for layer in layers:
            finding, names, covered = self._descend(layer, names)
            yield finding
            redirect = finding.marks.redirect
            if redirect.startswith(b"/"):
                names = redirect[1:].split(b"/")
            elif redirect:
                names = [*names[:-1], redirect]
            if covered or self._is_alone(layer):
                return

    def _descend(self, layer: Layer, names: list[bytes]) -> tuple[Finding, list[bytes], bool]:
        """Walk down *names* in one layer.

        Return what is there, the names by which the next layer is to be asked,
        and whether the layers below are covered.
        """
        directory = _root_part(layer)
        covered = False
        following = names
        for depth, name in enumerate(names):
            finding = self.markers.classify(directory, name)
            if depth == len(names) - 1:
                break
            if finding.found is Found.NOTHING:
                return finding, following, covered
            if finding.found not in (Found.DIRECTORY, Found.OPAQUE):
                return finding._replace(found=Found.WHITEOUT), following, True
            covered = covered or finding.found is Found.OPAQUE
            redirect = finding.marks.redirect
            if redirect.startswith(b"/"):
                following = [*redirect[1:].split(b"/"), *names[depth + 1 :]]
            elif redirect:
                following = [*names[:depth], redirect, *names[depth + 1 :]]
            directory = finding.part
        return finding, following, covered

    def _sighting(self, shown: list[Finding]) -> Sighting:
        top = shown[0]
        if top.st is None:  # a finding that shows was looked at
            raise FileNotFoundError(errno.ENOENT, _ABSENT)
        upper = top.layer is self.upper
        if top.found in _DIRECTORIES:
            below = tuple(finding.part for finding in shown[upper:])
            ino = self._ino(top.layer, top.st, top.marks if upper else UNMARKED)
            # Of an opaque one a redirect says nothing: it led to what is hidden now.
            redirect = top.marks.redirect * (upper and top.found is Found.DIRECTORY)
            protection = top.marks.protection * upper
            return Sighting(
                ino, top.st, upper, upper, below, redirect=redirect, protection=protection
            )
        if shown[-1].found is Found.METACOPY:
            raise markers.damaged(top.layer, top.path, "its content is not in the lower layers")
        if upper:
            return self._upper_file(top, shown[1:])
        if top.st.st_nlink > 1 and self._index_has_entries():
            entry = self.links.find(top.layer, top.st)
            if entry:
                return self.linked(entry, shown[-1].part)
        below = (top.part,) if len(shown) == 1 else (top.part, shown[-1].part)
        return Sighting(number(top.layer, top.st), top.st, upper=False, named=False, below=below)

    def _ino(self, layer: Layer, st: os.stat_result, marks: Marks) -> int:
        """Return the number of an object, which may have been copied up."""
        return kept(marks.ino, self._numbered) if marks.ino else number(layer, st)

    def _index_has_entries(self) -> bool:
        return self.upper is not None and bool(self.links)

    def _upper_file(self, top: Finding, below: list[Finding]) -> Sighting:
        st, marks = top.st, top.marks
        if st is None:
            raise FileNotFoundError(errno.ENOENT, _ABSENT)
        ino = self._ino(top.layer, st, marks)
        if below:
            st = self._settled(ino, self.writable()[0], top, below[-1].part)
        return Sighting(
            ino,
            st,
            upper=True,
            named=True,
            below=(below[-1].part,) if below else (),
            redirect=marks.redirect if below else b"",  # else left over: `markers.end_metacopy`
            link=marks.link if marks.link in self.links else b"",
            links=marks.links,
            protection=marks.protection,
        )

    def linked(self, entry: bytes, content: Part) -> Sighting:
        """Return the sighting of a lower file whose copy is in the hard link index."""
        _, work = self.writable()
        path = self.links.path(entry)
        st, marks = work.stat(path), markers.read(work, path)
        ino = self._ino(work, st, marks)
        if marks.metacopy:
            st = self._settled(ino, work, Finding(Found.METACOPY, work, path, st, marks), content)
        return Sighting(
            ino,
            st,
            upper=True,
            named=False,
            below=(content,) if marks.metacopy else (),
            redirect=marks.redirect if marks.metacopy else b"",
            link=entry,
            links=marks.links,
            protection=marks.protection,
        )

    def _settled(
        self, ino: int, layer: WritableLayer, copy: Finding, content: Part
    ) -> os.stat_result:
        """Return the attributes of a metadata-only copy; settle one that a crash left half way.

        One that has a node was looked up since, and may be being filled.
        """
        if copy.st is None:
            raise FileNotFoundError(errno.ENOENT, _ABSENT)
        node = self.nodes.get(ino)
        if node is not None:
            return self.fills.shown(node, copy.st)
        size = content.layer.stat(content.path).st_size
        if not metacopies.is_half_way(copy.st, copy.marks, size):
            return copy.st
        return metacopies.settle(layer, copy.path, copy.st, copy.marks, size)


def _root_part(layer: Layer) -> Part:
    if layer.number == whiteouts.BOTTOM:
        return Part(layer, b".")
    return Part(layer, b".", whiteouts.has_whiteout_files(layer, b"."))
