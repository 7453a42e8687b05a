"""The union itself: which object a name shows, and what is known of it.

Looking up a name reads a lazy column of findings, one per layer, until
`rules.visible` has decided; the layers below are not asked.  Redirects (of
moved directories and of metadata-only copies) change the column's path on the
way down, as overlayfs.rst describes under "redirect_dir".

Nothing here changes what the layers show; that is `changes` and `copyup`.
"""

import dataclasses
import errno
import logging
import os
import stat
from collections.abc import Iterator, Sequence
from typing import Literal

from unionfs import markers, rules, whiteouts
from unionfs.dotmarkers import DotMarkers
from unionfs.handle import LowerReaders
from unionfs.layer import Layer, Pins, WritableLayer, join, path_of_pin
from unionfs.links import LinkIndex, key
from unionfs.node import ROOT_INO, Node, NodeTable, Sighting, number
from unionfs.rules import Found
from unionfs.stack import Stack
from unionfs.temporaries import Temporaries
from unionfs.whiteouts import Finding, Markers, Part

log = logging.getLogger(__name__)

_NAME_MAX = 255
_HIDDEN = frozenset({Found.NOTHING, Found.WHITEOUT})
_GONE = OSError(errno.ENOENT, os.strerror(errno.ENOENT))


@dataclasses.dataclass(frozen=True, slots=True)
class Features:
    """What the user may choose; the words are overlayfs's where it has one."""

    metacopy: bool = True
    redirect_dir: bool = True
    whiteout: Literal["overlay", "aufs"] = "overlay"
    fsync: Literal["auto", "strict", "off"] = "auto"


class Union:
    """A stack of layers seen as one tree."""

    def __init__(self, stack: Stack, features: Features) -> None:
        self.stack = stack
        self.features = features
        self.lowers = stack.lowers
        self.upper = stack.upper
        self.work = stack.work
        self.markers = Markers() if features.whiteout == "overlay" else DotMarkers()
        self.readers = LowerReaders()
        self.nodes = NodeTable(self._root())
        if stack.upper is not None and stack.work is not None:
            os.umask(0)
            self.pins = Pins()
            self.temporaries = Temporaries(stack.work)
            self.links = LinkIndex(stack.work)
            self._record_layers(stack.upper, stack.work)

    def _record_layers(self, upper: WritableLayer, work: WritableLayer) -> None:
        """Let `diff` and `check` of the unmounted upper know its layers, where it has the room."""
        try:
            markers.set_layers(upper, [layer.name for layer in self.lowers], work.name)
        except OSError as exc:
            if exc.errno not in (errno.ENOSPC, errno.E2BIG, errno.ERANGE):
                raise
            log.warning("%s: the names of its lowers are too long to be recorded", upper.name)

    def _root(self) -> Node:
        top: Layer = self.upper or self.lowers[0]
        return Node(
            ROOT_INO,
            stat.S_IFDIR,
            top.stat(b".").st_ino,
            None,
            b"",
            upper=self.upper is not None,
            lowers=tuple(_root_part(layer) for layer in self.lowers),
        )

    @property
    def root(self) -> Node:
        """Return the node of the mount's root."""
        return self.nodes.root

    def writable(self) -> tuple[WritableLayer, WritableLayer]:
        """Return upper and work; EROFS where there are none."""
        if self.upper is None or self.work is None:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return self.upper, self.work

    # Looking up names

    def look(self, parent: Node, name: bytes) -> Sighting | None:
        """Return what shows under *name*, or None; no node is made."""
        if len(name) > _NAME_MAX:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        if parent.orphan or self.markers.reserved(name):
            return None
        only = self._only_part(parent)
        if only is not None:
            finding = self.markers.classify(only, name)
            if finding.found in _HIDDEN:
                return None
            if not finding.marks.redirect:
                return self._sighting([finding])
        shown = rules.visible(self._column(parent, name))
        return self._sighting(shown) if shown else None

    def _only_part(self, parent: Node) -> Part | None:
        """Return the one layer's directory that makes up *parent*, the short way to its names."""
        if parent.upper:
            return None if parent.lowers or self.upper is None else Part(self.upper, parent.path)
        return parent.lowers[0] if len(parent.lowers) == 1 else None

    def find(self, parent: Node, name: bytes) -> Sighting:
        """Return what shows under *name*; ENOENT where nothing does."""
        sighting = self.look(parent, name)
        if sighting is None:
            raise _GONE
        return sighting

    def lookup(self, parent: Node, name: bytes) -> tuple[Node, os.stat_result] | None:
        """Return the node under *name* and its attributes, or None."""
        sighting = self.look(parent, name)
        if sighting is None:
            return None
        return self.nodes.adopt(parent, name, sighting), sighting.st

    def shows_below(self, parent: Node, name: bytes) -> bool:
        """Tell whether *name* would show from a lower layer, were it not in upper."""
        return bool(parent.lowers) and bool(rules.visible(self._below(parent.lowers, name)))

    def _column(self, parent: Node, name: bytes) -> Iterator[Finding]:
        if parent.upper and self.upper is not None:
            finding = self.markers.classify(Part(self.upper, parent.path), name)
            yield finding
            redirect = finding.marks.redirect
            if redirect.startswith(b"/"):
                yield from self._from_root(redirect, self.lowers)
                return
            name = redirect or name
        yield from self._below(parent.lowers, name)

    def _below(self, parts: Sequence[Part], name: bytes) -> Iterator[Finding]:
        for part in parts:
            finding = self.markers.classify(part, name)
            yield finding
            redirect = finding.marks.redirect
            if redirect.startswith(b"/"):
                yield from self._from_root(redirect, self._layers_below(part.layer))
                return
            name = redirect or name

    def _layers_below(self, layer: Layer) -> tuple[Layer, ...]:
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
            if covered:
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
            raise _GONE
        upper = top.layer is self.upper
        if top.found in (Found.DIRECTORY, Found.OPAQUE):
            lowers = tuple(finding.part for finding in shown[upper:])
            ino = top.marks.ino if upper and top.marks.ino else number(top.layer, top.st)
            return Sighting(ino, top.st, upper, upper, lowers, redirect=top.marks.redirect * upper)
        if shown[-1].found is Found.METACOPY:
            raise markers.damaged(top.layer, top.path, "its content is not in the lower layers")
        if upper:
            return self._upper_file(top, shown[1:])
        if top.st.st_nlink > 1 and self.upper is not None and self.links:
            entry = key(top.layer, top.st)
            if entry in self.links:
                return self.linked(entry, shown[-1].part)
        lowers = (top.part,) if len(shown) == 1 else (top.part, shown[-1].part)
        return Sighting(number(top.layer, top.st), top.st, upper=False, named=False, lowers=lowers)

    def _upper_file(self, top: Finding, below: list[Finding]) -> Sighting:
        st, marks = top.st, top.marks
        if st is None:
            raise _GONE
        return Sighting(
            marks.ino or number(top.layer, st),
            st,
            upper=True,
            named=True,
            lowers=(below[-1].part,) if below else (),
            redirect=marks.redirect,
            link=marks.link if marks.link in self.links else b"",
            links=marks.links,
        )

    def linked(self, entry: bytes, content: Part) -> Sighting:
        """Return the sighting of a lower file whose copy is in the hard link index."""
        _, work = self.writable()
        path = self.links.path(entry)
        st, marks = work.stat(path), markers.read(work, path)
        return Sighting(
            marks.ino or number(work, st),
            st,
            upper=True,
            named=False,
            lowers=(content,) if marks.metacopy else (),
            redirect=marks.redirect,
            link=entry,
            links=marks.links,
        )

    # What is known of a node

    def place(self, node: Node) -> tuple[Layer, bytes]:
        """Return where the attributes of *node* are."""
        return self.upper_place(node) if node.upper else node.lowers[0][:2]

    def upper_place(self, node: Node) -> tuple[WritableLayer, bytes]:
        """Return where a node on upper is; EROFS for one that is not."""
        upper, work = self.writable()
        if not node.upper:
            raise OSError(errno.EROFS, f"{node.path!r} was not copied up")
        if node.pin >= 0:
            return self.pins, path_of_pin(node.pin)
        if node.link:
            return work, self.links.path(node.link)
        return upper, node.path

    def leave_behind(self, node: Node) -> None:
        """Let the kernel's readers keep *node*; its name gets a new one at its next look-up."""
        if node.pin < 0:
            layer, path = self.upper_place(node)
            flags = os.O_PATH | (0 if layer.follow else os.O_NOFOLLOW) | os.O_CLOEXEC
            node.pin = os.open(path, flags, dir_fd=layer.fd)
        node.left = True

    def attributes(self, node: Node) -> os.stat_result:
        """Return the host's attributes of *node*; `shown_links` and `shown_blocks` correct them."""
        layer, path = self.place(node)
        return layer.stat(path)

    def shown_links(self, node: Node, st: os.stat_result) -> int:
        """Return st_nlink: 1 for a merged directory (as overlayfs), 0 for what lost its name."""
        if node.format == stat.S_IFDIR:
            if node.orphan:
                return 0
            return 1 if node.lowers and (node.upper or len(node.lowers) > 1) else st.st_nlink
        if node.orphan and not node.upper:
            return 0
        return max(st.st_nlink + node.links, 0)

    def shown_blocks(self, node: Node, st: os.stat_result) -> int:
        """Return st_blocks; that of the content where only the metadata was copied up."""
        if node.lowers and node.format == stat.S_IFREG and (node.upper or len(node.lowers) > 1):
            layer, path, _ = node.lowers[-1]
            return layer.stat(path).st_blocks
        return st.st_blocks

    def has_lower_content(self, node: Node) -> bool:
        """Tell whether the content of a file still lies in a lower layer."""
        return bool(node.lowers) and node.format == stat.S_IFREG

    def readlink(self, node: Node) -> bytes:
        """Return the target of a symlink."""
        layer, path = self.place(node)
        return layer.readlink(path)

    def open_to_read(self, node: Node) -> int:
        """Open a file's content and return the descriptor, remembered if in a lower layer."""
        if not self.has_lower_content(node):
            layer, path = self.place(node)
            return layer.open(path, os.O_RDONLY)
        layer, path, _ = node.lowers[-1]
        fd = layer.open(path, os.O_RDONLY)
        self.readers.add(node, fd)
        return fd

    def listing(self, node: Node) -> list[bytes]:
        """Return the visible names of a directory, in no order that matters."""
        if node.orphan:
            return []
        parts = list(node.lowers)
        if node.upper and self.upper is not None:
            parts.insert(0, Part(self.upper, node.path))
        if len(parts) == 1:
            return [name for name, shows in self.markers.listing(parts[0]).items() if shows]
        return list(rules.merged([self.markers.listing(part) for part in parts]))

    def is_empty(self, sighting: Sighting, parent: Node, name: bytes) -> bool:
        """Tell whether a directory shows no name."""
        parts = list(sighting.lowers)
        if sighting.upper and self.upper is not None:
            parts.insert(0, Part(self.upper, join(parent.path, name)))
        return not rules.merged([self.markers.listing(part) for part in parts])

    def statvfs(self) -> os.statvfs_result:
        """Return the figures of upper's file system (of the top lower's without an upper)."""
        top: Layer = self.upper or self.lowers[0]
        return os.fstatvfs(top.fd)


def _root_part(layer: Layer) -> Part:
    if layer.number == whiteouts.BOTTOM:
        return Part(layer, b".")
    return Part(layer, b".", whiteouts.has_whiteout_files(layer, b"."))
