"""The union itself: its objects, where they are, and what is known of them.

Names are looked up in `looks` and `quicklooks`.  Nothing here changes what the
layers show; that is `changes` and `copyup`.
"""

import dataclasses
import errno
import logging
import os
import stat
from typing import Literal

from unionfs.host.acting import Acting
from unionfs.host.atimes import AccessTimes
from unionfs.layers import cribs, markers, rules
from unionfs.layers.descent import stale
from unionfs.layers.dotmarkers import DotMarkers
from unionfs.layers.far import FarLayer
from unionfs.layers.layer import Layer, WritableLayer, join
from unionfs.layers.links import LinkIndex
from unionfs.layers.stack import Stack
from unionfs.layers.temporaries import Temporaries
from unionfs.layers.whiteouts import Markers, Part
from unionfs.view.handle import LowerReaders
from unionfs.view.node import Node, Sighting
from unionfs.view.pins import Pins, path_of_pin
from unionfs.view.quicklooks import QuickLooks

log = logging.getLogger(__name__)

_KIND = 0o170000  # of st_mode: inode(7), S_IFMT


@dataclasses.dataclass(frozen=True, slots=True)
class Features:
    """What the user may choose; the words are overlayfs's where it has one."""

    metacopy: bool = True
    redirect_dir: bool = True
    whiteout: Literal["overlay", "aufs"] = "overlay"
    fsync: Literal["auto", "strict", "off"] = "auto"


class Union(QuickLooks):
    """A stack of layers seen as one tree."""

    def __init__(self, stack: Stack, features: Features) -> None:
        kinds = Markers if features.whiteout == "overlay" else DotMarkers
        self.acting = Acting()
        super().__init__(stack, kinds(stack.work, self.acting))
        self.features = features
        self.readers = LowerReaders()
        self.access = AccessTimes(stack.copy)
        if stack.upper is not None and stack.work is not None:
            os.umask(0)
            self.pins = Pins()
            cribs.prepare(stack.work, stack.upper)
            self.temporaries = Temporaries(stack.work)
            self.links = LinkIndex(stack.work)
            self.cribs = cribs.Cribs(self.temporaries, stack.upper, self.acting)
            self._record_layers(stack.upper, stack.work)

    def _record_layers(self, upper: WritableLayer, work: WritableLayer) -> None:
        """Let `diff` and `check` of the unmounted upper know its layers, where it has the room."""
        try:
            markers.set_layers(upper, [layer.name for layer in self.lowers], work.name)
        except OSError as exc:
            if exc.errno not in (errno.ENOSPC, errno.EDQUOT, errno.E2BIG, errno.ERANGE):
                raise
            log.warning("%s: there is no room to record the names of its lowers", upper.name)

    @property
    def root(self) -> Node:
        """Return the node of the mount's root."""
        return self.nodes.root

    # What is known of a node

    def place(self, node: Node) -> tuple[Layer, bytes]:
        """Return where the attributes of *node* are."""
        if node.upper:
            return self.upper_place(node)
        below = node.below
        if isinstance(below, Part):
            return below.layer, join(below.path, node.name)
        return below[0][:2]

    def upper_place(self, node: Node) -> tuple[WritableLayer, bytes]:
        """Return where a node on upper is; EROFS for one that is not."""
        upper, work = self.upper, self.work
        if upper is None or work is None or not node.upper:
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
            node.pin = layer.hold(path)
        node.left = True
        self.names_change()

    def attributes(self, node: Node) -> os.stat_result:
        """Return the host's attributes of *node*; `shown` corrects them.

        ESTALE where something of another kind is there by now: told of that, the kernel would
        give the node up for good (fs/fuse/fuse_i.h, fuse_make_bad).
        """
        layer, path = self.place(node)
        st = layer.stat(path)
        if st.st_mode & _KIND != node.format:
            raise stale()
        return self.fills.shown(node, st) if self.fills else st

    def shown(self, node: Node, st: os.stat_result) -> tuple[int, int]:
        """Return st_nlink and st_blocks as the union shows them."""
        below = node.below
        if node.format == stat.S_IFDIR:
            if node.orphan:
                return 0, st.st_blocks
            # As with overlayfs, 1 for a merged directory: not known.
            return 1 if below and (node.upper or len(below) > 1) else st.st_nlink, st.st_blocks
        links = 0 if node.orphan and not node.upper else max(st.st_nlink + node.links, 0)
        if not below or isinstance(below, Part) or node.format != stat.S_IFREG:
            return links, st.st_blocks
        if node.upper or len(below) > 1:  # only the metadata was copied up
            return links, _blocks(below[-1], st)
        return links, st.st_blocks

    def has_lower_content(self, node: Node) -> bool:
        """Tell whether the content of a file still lies in a lower layer."""
        return bool(node.below) and node.format == stat.S_IFREG

    def far_content(self, node: Node) -> tuple[FarLayer, bytes] | None:
        """Return where the content of a file is, if in a layer that is asked for it (`far`)."""
        if not self.far or not self.has_lower_content(node):
            return None
        layer, path, _ = node.lowers[-1]
        return (layer, path) if isinstance(layer, FarLayer) and layer.asks else None

    def readlink(self, node: Node) -> bytes:
        """Return the target of a symlink."""
        layer, path = self.place(node)
        return layer.readlink(path)

    def open_to_read(self, node: Node) -> int:
        """Open a file's content and return the descriptor, remembered if in a lower layer."""
        if not self.has_lower_content(node):
            layer, path = self.place(node)
            return layer.open(path, os.O_RDONLY)
        below = node.below
        part = below.child(node.name) if isinstance(below, Part) else below[-1]
        fd = part.layer.open(part.path, os.O_RDONLY)
        self.readers.add(node, fd)
        return fd

    def listing(self, node: Node) -> dict[bytes, int]:
        """Return the visible names of a directory, in no order that matters, each with its hint.

        `whiteouts.INO_SHIFT` says what the layers' own listings tell of a name.
        """
        if node.orphan:
            return {}
        shown = self._listing(node)
        self.emptied.listed(node, shown)
        return shown

    def _listing(self, node: Node) -> dict[bytes, int]:
        parts = list(node.lowers)
        if node.upper and self.upper is not None:
            parts.insert(0, Part(self.upper, node.path))
        if len(parts) == 1:
            return {name: hint for name, hint in self.markers.listing(parts[0]).items() if hint}
        listings = [self.markers.listing(part) for part in parts]
        if self.markers.bear_names:
            self.rosters.keep(node, listings[node.upper :])
        return rules.merged(listings)

    def is_empty(self, sighting: Sighting, parent: Node, name: bytes) -> bool:
        """Tell whether a directory shows no name; who removes a tree has listed it before."""
        node = self.nodes.known(sighting)
        if node is not None and self.emptied.is_empty(node):
            return True
        parts = list(sighting.lowers)
        if sighting.upper and self.upper is not None:
            parts.insert(0, Part(self.upper, join(parent.path, name)))
        return not rules.merged([self.markers.listing(part) for part in parts])

    def statvfs(self) -> os.statvfs_result:
        """Return the figures of upper's file system (of the top lower's without an upper)."""
        top: Layer = self.upper or self.lowers[0]
        figures = top.statvfs()
        if figures.f_namemax == self.name_max:
            return figures
        return os.statvfs_result((*figures[:9], self.name_max))


def _blocks(content: Part, st: os.stat_result) -> int:
    """Return st_blocks of a file whose content lies apart from its attributes *st*."""
    try:
        return content.layer.stat(content.path).st_blocks
    except OSError:  # a figure that nobody relies on: who reads the content is told
        return st.st_blocks
