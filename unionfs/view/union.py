"""The union itself: its objects, where they are, and what they show.

It is put together of `columns`, which walk the layers, of `lookup`, of the table of nodes, of what
is `known`, and of `upper`.  Nothing here changes what the layers show; that is the room `changes`.
"""

import dataclasses
import errno
import logging
import os
import stat
from typing import TYPE_CHECKING, Literal

from unionfs.host.acting import Acting
from unionfs.host.atimes import AccessTimes
from unionfs.host.content import ST_BLOCK
from unionfs.layers import mount_record, rules
from unionfs.layers.aufs_whiteouts import AufsWhiteouts
from unionfs.layers.columns import Columns
from unionfs.layers.descent import stale
from unionfs.layers.far import FarLayer
from unionfs.layers.inodes import ROOT_INO, divide
from unionfs.layers.layer import Layer, LayerPath, WritableLayer, join
from unionfs.layers.stack import Stack
from unionfs.layers.whiteouts import Whiteouts
from unionfs.view.fills import Fills
from unionfs.view.known import Known
from unionfs.view.lookup import Lookup
from unionfs.view.lookup_result import LookupResult
from unionfs.view.lower_readers import LowerReaders
from unionfs.view.node import Node, NodeTable
from unionfs.view.upper import NoUpper, Upper

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

log = logging.getLogger(__name__)

_KIND = 0o170000  # of st_mode: inode(7), S_IFMT
_PAGE = 4096  # bytes


@dataclasses.dataclass(frozen=True, slots=True)
class Features:
    """What the user may choose; the words are overlayfs's where it has one."""

    metacopy: bool = True
    redirect_dir: bool = True
    whiteout: Literal["overlay", "aufs"] = "overlay"
    fsync: Literal["auto", "strict", "off"] = "auto"
    copyup: Literal["whole", "blocks"] = "whole"
    volatile: bool = False  # upper ends with this process


class Common:
    """What a union has once, also where it has two sides (`sides`)."""

    def __init__(self, stack: Stack) -> None:
        divide(stack)
        self.acting = Acting()
        self.access = AccessTimes(stack.copy, stack.state.copy if stack.state else -1)
        self.readers = LowerReaders()
        self.known = Known(stack.lowers)
        self.fills = Fills()


class Union:
    """A stack of layers seen as one tree."""

    persisted = False  # is it the side of what persists: `sides`?
    two_sided = (
        False  # is it one of two writable sides, whose files may move to the other: `sides`?
    )
    table: type[NodeTable] = NodeTable

    def __init__(self, stack: Stack, features: Features, common: Common | None = None) -> None:
        common = common or Common(stack)
        kind = Whiteouts if features.whiteout == "overlay" else AufsWhiteouts
        self.features = features
        self.acting = common.acting
        self.access = common.access
        self.readers = common.readers
        self.known = common.known
        # Each tells which descriptors are open on a file.
        self.holders: list[Callable[[Node], list[int]]] = []
        self.lowers = stack.lowers
        self.far = tuple(layer for layer in stack.lowers if isinstance(layer, FarLayer))
        self._top: Layer = stack.upper or stack.lowers[0]
        self.whiteouts = kind(stack.work, self.acting)
        self.columns = Columns(stack, self.whiteouts)
        self.nodes = self.table(self._root(stack))
        self.upper: Upper = NoUpper()
        if stack.upper is not None and stack.work is not None:
            os.umask(0)
            self.upper = Upper(stack.upper, stack.work, self.acting, common.fills)
            self._record_layers(stack.upper, stack.work)
        self.lookup = Lookup(stack, self.upper, self.columns, self.nodes, self.known)

    def _root(self, stack: Stack) -> Node:
        upper = stack.upper is not None
        hidden = upper and self.whiteouts.is_opaque_root(self._top)
        return Node(
            ROOT_INO,
            stat.S_IFDIR,
            self._top.stat(b".").st_ino,
            None,
            b"",
            upper=upper,
            below=self.columns.roots(() if hidden else stack.lowers),
            persisted=self.persisted,
        )

    def _record_layers(self, upper: WritableLayer, work: WritableLayer) -> None:
        """Let `diff` and `check` of the unmounted upper know its layers, where it has the room."""
        try:
            mount_record.set_layers(upper, [layer.name for layer in self.lowers], work.name)
        except OSError as exc:
            if exc.errno not in (errno.ENOSPC, errno.EDQUOT, errno.E2BIG, errno.ERANGE):
                raise
            log.warning("%s: there is no room to record the names of its lowers", upper.name)

    @property
    def root(self) -> Node:
        """Return the node of the mount's root."""
        return self.nodes.root

    def require_upper(self) -> None:
        """Raise EROFS where nothing can be changed."""
        if not self.upper:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    # What is known of a node

    def place(self, node: Node) -> tuple[Layer, bytes]:
        """Return where the attributes of *node* are."""
        if node.upper:
            return self.upper.place(node)
        below = node.below
        if isinstance(below, LayerPath):
            return below.layer, join(below.path, node.name)
        return below[0][:2]

    def faces(self, node: Node) -> tuple[Node, ...]:
        """Return all nodes that stand for a directory: of two sides there may be two (`sides`)."""
        return (node,)

    def supersede(self, node: Node) -> None:
        """Let the kernel's readers keep *node*; its name gets a new one at its next look-up."""
        if node.pin < 0:
            layer, path = self.upper.place(node)
            node.pin = layer.hold(path)
        node.superseded = True
        self.known.names_change()

    def attributes(self, node: Node) -> os.stat_result:
        """Return the host's attributes of *node*; `shown` corrects them.

        ESTALE where something of another kind is there by now: told of that, the kernel would
        give the node up for good (fs/fuse/fuse_i.h, fuse_make_bad).
        """
        layer, path = self.place(node)
        try:
            st = layer.stat(path)
        except OSError:
            if node.upper or node not in self.readers:
                raise
            return self.readers.attributes(node)
        if st.st_ino != node.host_ino and not node.upper and node in self.readers:
            return self.readers.attributes(node)  # another is in its place: `maintain`
        if st.st_mode & _KIND != node.format:
            raise stale()
        return self.upper.fills.shown(node, st) if node.upper and self.upper.fills else st

    def shown(self, node: Node, st: os.stat_result) -> tuple[int, int]:
        """Return st_nlink and st_blocks as the union shows them."""
        below = node.below
        if node.format == stat.S_IFDIR:
            if node.orphan:
                return 0, st.st_blocks
            # As with overlayfs, 1 for a merged directory: not known.
            return 1 if below and (node.upper or len(below) > 1) else st.st_nlink, st.st_blocks
        links = 0 if node.orphan and not node.upper else max(st.st_nlink + node.links, 0)
        if not below or isinstance(below, LayerPath) or node.format != stat.S_IFREG:
            return links, st.st_blocks
        if node.upper or len(below) > 1:  # only the metadata was copied up
            blocks = _blocks(below[-1], st)
            return links, _with_own(blocks, st) if node.partial else blocks
        return links, st.st_blocks

    def has_lower_content(self, node: Node) -> bool:
        """Tell whether the content of a file still lies in a lower layer."""
        return bool(node.below) and node.format == stat.S_IFREG

    def leaves_content(self, node: Node) -> bool:  # noqa: ARG002 (`sides`)
        """Tell whether *node* may come to upper by its metadata alone."""
        return self.features.metacopy

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
        place = below.child(node.name) if isinstance(below, LayerPath) else below[-1]
        fd = place.layer.open(place.path, os.O_RDONLY)
        self.readers.add(node, fd)
        return fd

    def readers_go_on(self, node: Node, target: int) -> None:
        """Let who reads the lower file go on in the copy, open as *target*."""
        if node not in self.readers:
            return
        layer, path = self.upper.place(node)
        try:  # one that can write would keep upper's disk from being remounted read-only
            fd = layer.open(path, os.O_RDONLY)
        except OSError:  # EMFILE
            self.readers.move(node, target)
            return
        try:
            self.readers.move(node, fd)
        finally:
            os.close(fd)

    def listing(self, node: Node) -> dict[bytes, int]:
        """Return the visible names of a directory, in no order that matters, each with its hint.

        `whiteouts.INO_SHIFT` says what the layers' own listings tell of a name.
        """
        if node.orphan:
            return {}
        shown = self.names_in(node)
        self.known.note_listing(node, shown)
        return shown

    def names_in(self, node: Node) -> dict[bytes, int]:
        """Do so, and take no note of it."""
        places = list(node.lowers)
        if node.upper:
            places.insert(0, LayerPath(self._top, node.path))
        if len(places) == 1:
            return {name: hint for name, hint in self.whiteouts.listing(places[0]).items() if hint}
        listings = [self.whiteouts.listing(place) for place in places]
        if self.whiteouts.are_in_place:
            self.known.first_holders.keep(node, listings[node.upper :])
        return rules.merged(listings)

    def is_empty(
        self,
        directory: LookupResult,
        node: Node | None,
        path: bytes,
        held: "Sequence[os.DirEntry[bytes]] | None" = None,
    ) -> bool:
        """Tell whether a directory at *path* shows no name; who removes a tree has listed it.

        Its *node* is known to the kernel, or None.  What upper's directory has *held* need not be
        read again.
        """
        if node is not None and self.known.is_empty(node):
            return True
        if not directory.upper:
            return self.whiteouts.show_none(directory.lowers)
        return self.whiteouts.show_none((LayerPath(self._top, path), *directory.lowers), held)

    def statvfs(self, node: Node) -> os.statvfs_result:  # noqa: ARG002 (`sides`)
        """Return the figures of upper's file system (of the top lower's without an upper).

        Of two uppers, it is that to which changes of *node* go.
        """
        figures, name_max = self._top.statvfs(), self.lookup.name_max
        if figures.f_namemax == name_max:
            return figures
        return os.statvfs_result((*figures[:9], name_max))


def _blocks(content: LayerPath, st: os.stat_result) -> int:
    """Return st_blocks of a file whose content lies apart from its attributes *st*."""
    try:
        return content.layer.stat(content.path).st_blocks
    except OSError:  # a figure that nobody relies on: who reads the content is told
        return st.st_blocks


def _with_own(blocks: int, st: os.stat_result) -> int:
    """Return st_blocks of a partial copy: of both files, but of no more than its size takes."""
    most = -(-st.st_size // _PAGE) * (_PAGE // ST_BLOCK)
    return min(blocks + st.st_blocks, most)
