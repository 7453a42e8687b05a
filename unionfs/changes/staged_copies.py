"""Copies in work, from their making to their place: what copy-up does besides the content.

A copy is made like a `Model`, which is what its node shows: owner, mode, times,
attributes and flags.  It says in marks what it is a copy of, and one rename
gives it its name.  The directory that it comes to keeps its times.
"""

import errno
import logging
import os
import stat
from typing import TYPE_CHECKING

from unionfs.host import content
from unionfs.layers import iflags, inodes, markers
from unionfs.layers.attribute_copies import Model, copy_look
from unionfs.layers.layer import WritableLayer
from unionfs.layers.links import key
from unionfs.view.node import Node

if TYPE_CHECKING:
    from unionfs.view.union import Union

log = logging.getLogger(__name__)


def model_of(union: "Union", node: Node) -> Model:
    """Return what a copy of *node* is to be like, as it shows now."""
    layer, path = union.place(node)
    return Model(layer, path, union.attributes(node))


class StagedCopies:
    """The staged copies of one union."""

    def __init__(self, union: "Union") -> None:
        self.union = union
        self.upper = union.upper

    def make(self, node: Node, model: Model, staged: bytes) -> None:
        """Make an object of the kind of *node* in work; a file gets the size, and no content."""
        work = self.upper.work
        layer, path, st, _ = model
        if node.format == stat.S_IFDIR:
            work.mkdir(staged, 0o700)
        elif node.format == stat.S_IFLNK:
            work.symlink(layer.readlink(path), staged)
        elif node.format == stat.S_IFREG:
            fd = work.create(staged, os.O_RDWR, 0o600)
            try:
                work.truncate(fd, st.st_size)
            finally:
                os.close(fd)
        else:
            work.mknod(staged, st.st_mode, st.st_rdev)

    def dress(self, node: Node, model: Model, staged: bytes, mtime_ns: int) -> bytes:
        """Give the staged object the attributes of *model*, which *node* shows, and a time.

        Return its entry for the link index.
        """
        work, layer, st = self.upper.work, model.layer, model.st
        protection = copy_look(model, work, staged, mtime_ns, private=node.upper)
        if node.upper:
            return b""
        if protection:
            markers.set_protection(work, staged, protection)
            node.protection = protection
        markers.set_origin(work, staged, inodes.origin(layer, st, node.ino))
        if st.st_nlink < 2 or node.format == stat.S_IFDIR or node.orphan:  # noqa: PLR2004
            return b""
        entry = key(layer, st)
        markers.set_link(work, staged, entry)
        return entry

    def publish(self, node: Node, staged: bytes, entry: bytes, lower: os.stat_result) -> None:
        """Publish a staged object under the name of *node*."""
        work = self.upper.work
        self.union.known.names_change()
        if node.orphan:
            self._pin(node, work, staged)
            return
        directory = self._marked_parent(node)
        if entry:
            # Two links, the entry and the name in upper; one, if a crash takes the staged name.
            markers.prepare_links(work, staged, lower.st_nlink - 1, lower.st_nlink - 2)
            self.upper.links.add(staged, entry)
        extra = lower.st_nlink - 2
        try:
            self.upper.staging.publish(staged, self.upper.layer, directory, node.name)
        except OSError:
            if not entry or self._withdraw(entry):
                raise
            # The copy shows by its entry, as under its other names.
            extra += self.upper.staging.drop(staged)
        if entry:
            node.link, node.links = entry, extra
            self.upper.links.settle(entry)

    def _withdraw(self, entry: bytes) -> bool:
        """Remove the entry of a copy that got no name; say False where it stays."""
        try:
            self.upper.links.remove(entry)
        except OSError:
            log.exception("the copy of %r has no name of its own in upper", entry)
            return False
        return True

    def _pin(self, node: Node, work: WritableLayer, staged: bytes) -> None:
        pin = work.hold(staged)
        try:
            self.upper.staging.discard(staged)
        except BaseException:
            os.close(pin)
            raise
        if node.pin >= 0:
            os.close(node.pin)
        node.pin = pin

    def _marked_parent(self, node: Node) -> bytes:
        """Return the directory that is to hold a copy, once it is marked as one with copies."""
        parent = node.parent
        if parent is None:  # the root is on upper from the start
            raise OSError(errno.EINVAL, "the root cannot be copied up")
        path = parent.path
        if not parent.impure:
            markers.set_impure(self.upper.layer, path)
            parent.impure = True
        return path


def foresee(node: Node) -> None:
    """Have a far layer asked for what `make` and `dress` copy of an object."""
    if not node.below:  # a directory that shows nothing of a lower: `sides`
        return
    layer, path, _ = node.lowers[0]
    if not layer.asks:
        return
    layer.stat(path)
    for name in layer.attributes(path):
        if not markers.is_private(name):
            layer.attribute(path, name)
    if node.format in iflags.KINDS:
        iflags.find(layer, path, iflags.FLAGS)
    elif node.format == stat.S_IFLNK:
        layer.readlink(path)


def sync(layer: WritableLayer, path: bytes, kind: int) -> None:
    """Write a staged file or directory to disk; other kinds cannot be opened for that."""
    if kind not in (stat.S_IFREG, stat.S_IFDIR):
        return
    fd = layer.open(path, os.O_RDONLY)
    try:
        content.sync(fd)
    finally:
        os.close(fd)
