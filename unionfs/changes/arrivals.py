"""How a file gets a name on the other side of a union: what is staged for it, and its node then.

`crossings` chooses among these arrivals, and knows the order of the steps: `stage`, which nobody
sees; `put`, one rename; `arrive`, which tells the nodes; and, when the old name has gone, `finish`.
`put` and `arrive` leave their undoing on a stack.
"""

import contextlib
import fcntl
import logging
import os
import stat
from typing import NamedTuple

from unionfs.changes import staged_copies
from unionfs.changes.changes import Changes
from unionfs.changes.staged_copies import StagedCopies, model_of
from unionfs.layers import inodes, markers
from unionfs.layers.attribute_copies import Model, copy_look
from unionfs.layers.layer import WritableLayer
from unionfs.view.lookup_result import LookupResult
from unionfs.view.node import Node, child_path
from unionfs.view.sides import Side, TwoSided
from unionfs.view.transfers import Wanted

log = logging.getLogger(__name__)

# Flags of an open file that a new descriptor of it is to have: open(2).
_KEPT_FLAGS = os.O_ACCMODE | os.O_SYNC | os.O_DSYNC


class Place(NamedTuple):
    """A name, as the side that has it knows it."""

    side: Side
    parent: Node
    name: bytes

    @property
    def path(self) -> bytes:
        """Return its path."""
        return child_path(self.parent, self.name)

    def find(self) -> LookupResult | None:
        """Return what the name shows on its side."""
        return self.side.lookup.find(self.parent, self.name)

    def require(self) -> LookupResult:
        """Return what the name shows on its side; ENOENT where that is nothing."""
        return self.side.lookup.require(self.parent, self.name)


def put(place: Place, staged: bytes, undo: contextlib.ExitStack) -> None:
    """Give a staged object its name; an object that had the name is at *staged* then."""
    upper, work, path = place.side.upper.layer, place.side.upper.work, place.path
    if upper.find(path) is None:
        work.move(staged, upper, path)
        undo.callback(upper.move, path, work, staged)
    else:
        work.exchange(staged, upper, path)
        undo.callback(work.exchange, staged, upper, path)


class Arrival:
    """How a file gets a name on the other side; what is staged for it is removed at the end."""

    def __init__(self, union: TwoSided, node: Node, new: Place, changes: Changes) -> None:
        self.union = union
        self.node = node
        self.new = new
        self.names = changes.names
        self.upper = new.side.upper
        self.staged = self.upper.staging.name()

    def __enter__(self) -> None:
        try:
            self.stage()
        except BaseException:
            self.upper.staging.drop(self.staged)
            raise

    def __exit__(self, *_error: object) -> None:
        self.upper.staging.drop(self.staged)

    def stage(self) -> None:
        """Stage it; nothing that is seen changes."""
        raise NotImplementedError

    def arrive(self, undo: contextlib.ExitStack) -> None:
        """Take note that the name is there."""
        raise NotImplementedError

    def finish(self) -> None:
        """Do what follows when all has gone well."""

    def stage_link(self, node: Node) -> None:
        """Stage one more name of a file of that side."""
        self.names.copyup.metadata(node)
        self.names.anchor(node, absolute=True)
        if node.link:
            self.upper.links.require_settled(node.link)
        layer, path = self.upper.place(node)
        layer.link(path, self.upper.work, self.staged)

    def adopt(self, undo: contextlib.ExitStack) -> Node:
        """Return the node that the new name has on its side."""
        _, parent, name = self.new
        nodes = self.new.side.nodes
        node = nodes.adopt(parent, name, self.new.require())
        undo.callback(nodes.drop_if_unknown, node)
        undo.callback(nodes.detach, node, parent, name)
        return node


class Link(Arrival):
    """The name becomes one more link: of the file itself, or of its placeholder."""

    def __init__(
        self, union: TwoSided, node: Node, new: Place, changes: Changes, linked: Node
    ) -> None:
        super().__init__(union, node, new, changes)
        self._linked = linked

    def stage(self) -> None:
        """Stage it; nothing that is seen changes."""
        self.stage_link(self._linked)

    def arrive(self, undo: contextlib.ExitStack) -> None:
        """Take note that the name is there."""
        self.adopt(undo)

    def finish(self) -> None:
        """Do what follows when all has gone well."""
        self.names.unpin(self._linked)
        _date(self.union, self.node)


class NewPlaceholder(Arrival):
    """The name becomes the first one in scratch of a file that stays in state."""

    def stage(self) -> None:
        """Stage it; nothing that is seen changes."""
        layer, path = self.union.place(self.node)
        self.union.acting.as_root()
        model = Model(layer, path, layer.stat(path))
        StagedCopies(self.new.side).make(self.node, model, self.staged)

    def arrive(self, undo: contextlib.ExitStack) -> None:
        """Take note that the name is there."""
        placeholder = self.adopt(undo)
        self.union.twins.add(self.node, placeholder)
        undo.callback(self.union.twins.part, self.node, placeholder)

    def finish(self) -> None:
        """Do what follows when all has gone well."""
        _date(self.union, self.node)


class Move(Arrival):
    """The file itself comes; names that it *keeps* on the old side become a placeholder's."""

    def __init__(
        self, union: TwoSided, node: Node, new: Place, changes: Changes, *, keeps: bool
    ) -> None:
        super().__init__(union, node, new, changes)
        self._keeps = keeps
        self._left: Node | None = None
        self._open = _Descriptors(union, node)

    def stage(self) -> None:
        """Stage it; nothing that is seen changes."""
        model = model_of(self.union, self.node)
        self.union.acting.as_root()
        ready = self.union.transfers.take(Wanted(self.node, self.new.side, None))
        if ready is None:
            StagedCopies(self.new.side).make(self.node, model, self.staged)
            if self.node.format == stat.S_IFREG:
                _copy_content(self.union, self.node, self.upper.work, self.staged)
        else:
            self.staged = ready
        _fill(self.union, self.node, model, self.upper.work, self.staged)
        if self.names.copyup.syncs:
            staged_copies.sync(self.upper.work, self.staged, self.node.format)
        self._open.reopen(self.upper.work, self.staged)

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self._open.close()

    def arrive(self, undo: contextlib.ExitStack) -> None:
        """Take note that the name is there."""
        node, (side, parent, name) = self.node, self.new
        st = self.upper.layer.stat(self.new.path)
        left = Node(node.ino, node.format, st.st_ino, parent, name, upper=True, below=())
        left.persisted, left.unsynced = side.persisted, self.names.copyup.count()
        parent.children += 1
        undo.callback(self.union.nodes.drop_if_unknown, left)
        self.union.swap(node, left, node.ino)
        undo.callback(self.union.swap, node, left, node.ino)
        if self._keeps:
            self.union.twins.add(node, left)
            undo.callback(self.union.twins.part, node, left)
        self._left = left

    def leave(self) -> None:
        """Let go of the file that was left on the other side."""
        self.union.nodes.drop_if_unknown(self._left)

    def finish(self) -> None:
        """Do what follows when all has gone well."""
        self._open.move()
        if self._left is not None and self._left.partial and not self._keeps:
            self.union.upper.partials.drop(self._left.ino)  # its room is wanted back now
        self.leave()


class Merge(Arrival):
    """The file itself comes, and takes the place of the placeholder that it has there."""

    def __init__(
        self, union: TwoSided, node: Node, new: Place, changes: Changes, placeholder: Node
    ) -> None:
        super().__init__(union, node, new, changes)
        self._merger = Merger(union, node, placeholder, changes)

    def stage(self) -> None:
        """Stage it; nothing that is seen changes."""
        self._merger.fill()
        self.stage_link(self._merger.placeholder)

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self._merger.close()

    def arrive(self, undo: contextlib.ExitStack) -> None:
        """Take note that the name is there."""
        self._merger.merge(undo)
        self.adopt(undo)

    def finish(self) -> None:
        """Do what follows when all has gone well."""
        self._merger.finish()


class Merger:
    """A file of state on its way to take the place of its placeholder in scratch."""

    def __init__(self, union: TwoSided, file: Node, placeholder: Node, changes: Changes) -> None:
        self.union = union
        self.file = file
        self.placeholder = placeholder
        self._copyup = changes.names.copyup
        self._open = _Descriptors(union, file)

    def fill(self) -> None:
        """Give the placeholder all that the file has."""
        self._copyup.whole(self.placeholder, 0)  # nobody sees the placeholder's own content
        layer, path = self.union.scratch.upper.place(self.placeholder)
        self.union.acting.as_root()
        wanted = Wanted(self.file, self.union.scratch, self.placeholder)
        if self.file.format == stat.S_IFREG and self.union.transfers.take(wanted) is None:
            _copy_content(self.union, self.file, layer, path)
        _fill(self.union, self.file, model_of(self.union, self.file), layer, path)
        self._open.reopen(layer, path)

    def merge(self, undo: contextlib.ExitStack) -> None:
        """Let the file be what was the placeholder."""
        file, placeholder, number = self.file, self.placeholder, self.placeholder.ino
        self.union.twins.part(file, placeholder)
        undo.callback(self.union.twins.add, file, placeholder)
        self.union.swap(file, placeholder, file.ino)
        undo.callback(self.union.swap, file, placeholder, number)

    def finish(self) -> None:
        """Do what follows when all has gone well."""
        self._open.move()
        self.union.nodes.drop_if_unknown(self.placeholder)

    def close(self) -> None:
        """Close what is not needed any more."""
        self._open.close()


class _Descriptors:
    """The open descriptors of a file that is about to become another file of the host."""

    def __init__(self, union: TwoSided, node: Node) -> None:
        self._union = union
        self._node = node
        self._new: list[tuple[int, int]] = []  # a descriptor, and its replacement

    def reopen(self, layer: WritableLayer, path: bytes) -> None:
        """Open the new file once for each."""
        for fd in (fd for holder in self._union.holders for fd in holder(self._node)):
            flags = fcntl.fcntl(fd, fcntl.F_GETFL) & _KEPT_FLAGS
            self._new.append((fd, layer.open(path, flags)))

    def move(self) -> None:
        """Let all of them be of the new file."""
        for fd, new in self._new:
            self._union.readers.discard(fd)
            os.dup2(new, fd, inheritable=False)

    def close(self) -> None:
        """Close the new descriptors, which have been copied, or are not wanted."""
        while self._new:
            os.close(self._new.pop()[1])


# What an object has


def _fill(union: TwoSided, node: Node, model: Model, layer: WritableLayer, path: bytes) -> None:
    """Give the object at *path*, of the same kind and content, all else that *node* has."""
    for name in layer.attributes(path):
        if not markers.is_private(name):
            layer.remove_attribute(path, name)
    copy_look(model, layer, path, model.st.st_mtime_ns, private=False)
    markers.set_origin(layer, path, _origin(union, node, model))


def _origin(union: TwoSided, node: Node, model: Model) -> int:
    """Return what the object has to remember so that its inode number stays."""
    if not node.upper:
        return inodes.origin(model.layer, model.st, node.ino)
    remembered = markers.read(model.layer, model.path).ino
    lowers = {lower.number: lower for lower in union.lowers}
    return remembered if inodes.kept(remembered, lowers) == node.ino else node.ino


def _copy_content(union: TwoSided, node: Node, layer: WritableLayer, path: bytes) -> None:
    source = union.open_content(node)
    try:
        target = layer.open_to_write(path, os.O_RDWR)
        try:
            layer.truncate(target, 0)
            source.copy(target, os.fstat(source.fd).st_size)
        finally:
            os.close(target)
    finally:
        source.close()


def _date(union: TwoSided, file: Node) -> None:
    """Set a file's change time to now, as link(2) does; setting any time does that."""
    try:
        if file.upper:
            layer, path = union.upper.place(file)
            st = layer.stat(path)
            layer.utime(path, st.st_atime_ns, st.st_mtime_ns)
    except OSError:  # the name is there: no error may say otherwise
        log.exception("%r has its old time of change", file.path)
