"""Copying up in a union with two writable sides (`view/sides`): each side does its own.

A split directory comes to the other side as a scaffold.  An object that comes to state is
remembered (`remembering`), and depends on no index of the lower's files.
"""

import logging
import os

from unionfs.changes.copyup import CopyUp
from unionfs.changes.names import Names
from unionfs.changes.remembering import Memory
from unionfs.host import content
from unionfs.layers.attribute_copies import Model, copy_look
from unionfs.layers.layer import WritableLayer
from unionfs.view.content_copy import ContentCopy
from unionfs.view.node import Node
from unionfs.view.sides import Side, Split, TwoSided

log = logging.getLogger(__name__)


class _SideCopyUp(CopyUp):
    """The copy-up of one side."""

    def __init__(self, side: Side) -> None:
        super().__init__(side)
        self._whole = side.whole
        self._memory = Memory(side) if side.persisted else None

    def _bring(self, node: Node) -> None:
        split = self._whole.companions.get(node)
        if split is None:
            if self._memory is not None:
                self._memory.before_change_of(node)
            super()._bring(node)
        else:
            self._bring_scaffold(split)

    def _publish_staged(self, copy: ContentCopy) -> None:
        if self._memory is not None:
            self._memory.before_change_of(copy.node)
        super()._publish_staged(copy)
        self._name(copy.node)

    def metadata(self, node: Node) -> None:
        """Bring *node* to upper; the content of a file may stay where it is."""
        super().metadata(node)
        self._name(node)

    def _name(self, node: Node) -> None:
        """Give a lower file that state now has all its other known names that persist.

        With the link index alone, state would lose these names at the lower's next upgrade.
        """
        if self._memory is None or not node.link or not node.aliases:
            return
        names = Names(self.union, self)
        try:
            for parent, name in node.aliases:
                names.directory(parent)
                names.give_name(node, parent, name)
        except OSError:  # the change itself does not depend on it
            log.exception("%r: not all its names are in state", node.path)

    def _bring_scaffold(self, split: Split) -> None:
        """Make a split directory in the other upper, in its likeness.

        The scaffold only has to keep the name, and what it takes to make the directory again:
        `scaffolds`.
        """
        node, work = split.companion, self.upper.work
        staged = self.upper.staging.name()
        self.union.acting.as_root()
        try:
            self._make_alike(split.shown, work, staged)
            self._publish_scaffold(node, work, staged)
        except BaseException:
            self.upper.staging.drop(staged)
            raise
        node.upper = True
        self.union.known.names_change()

    def _make_alike(self, shown: Node, work: WritableLayer, staged: bytes) -> None:
        layer, path = self._whole.place(shown)
        model = Model(layer, path, layer.stat(path))
        work.mkdir(staged, 0o700)
        copy_look(model, work, staged, model.st.st_mtime_ns, private=False)

    def _publish_scaffold(self, node: Node, work: WritableLayer, staged: bytes) -> None:
        upper, path = self.upper.layer, node.path
        if upper.find(path) is None:
            self._copies.publish(node, staged, b"", work.stat(staged))
        else:  # a whiteout of the time when other rules held
            self.union.whiteouts.make_opaque(work, staged)
            self.union.whiteouts.publish(work, staged, upper, path)
        if self.syncs and node.parent is not None:  # once for ever
            fd = upper.open(node.parent.path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                content.sync(fd)
            finally:
                os.close(fd)


class SidedCopyUps(CopyUp):
    """The copy-up of both sides: each node's own does it."""

    def __init__(self, union: TwoSided) -> None:
        self.union = union
        self.scratch, self.state = _SideCopyUp(union.scratch), _SideCopyUp(union.state)
        self.syncs = self.scratch.syncs or self.state.syncs
        self.partials = self.scratch.partials  # state has none

    def of(self, thing: Node | ContentCopy | Side) -> CopyUp:
        """Return the copy-up of the side to which something belongs."""
        return self.state if thing.persisted else self.scratch

    def foresee(self, node: Node) -> None:
        """Ask far layers for all that *node* and its copy-up need."""
        self.of(node).foresee(node)

    def foresee_content(self, node: Node, size: int | None = None) -> None:
        """Do as `foresee`, and fetch the first *size* bytes of the content."""
        self.of(node).foresee_content(node, size)

    def metadata(self, node: Node) -> None:
        """Bring *node* to upper; the content of a file may stay where it is."""
        self.of(node).metadata(node)

    def whole(self, node: Node, size: int | None = None) -> bool:
        """Bring *node* to upper with its content, or with its first *size* bytes."""
        return self.of(node).whole(node, size)

    def directories(self, node: Node) -> None:
        """Bring a directory and its parents to upper."""
        self.of(node).directories(node)

    def begin(self, node: Node, size: int | None = None, flags: int | None = None) -> ContentCopy:
        """Stage the copy of a file's content."""
        return self.of(node).begin(node, size, flags)

    def publish(self, copy: ContentCopy) -> None:
        """Put a filled copy in its place, if it still can be."""
        self.of(copy).publish(copy)

    def abandon(self, copy: ContentCopy) -> None:
        """Drop a copy that is not wanted any more."""
        self.of(copy).abandon(copy)
