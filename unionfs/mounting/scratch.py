"""The scratch side at the start of a mount: emptied, and planted with directories that begin bare.

Both happen when the layers are opened and claimed, and nothing serves yet; a crash leaves what
the next mount empties again.  What is planted is an ordinary upper's content: a copy of the
directory, opaque, so that nothing of the lowers shows in it.
"""

import os
import stat
from collections.abc import Iterator

from unionfs.layers import markers
from unionfs.layers.layer import WritableLayer
from unionfs.layers.persistence import Rules
from unionfs.layers.stack import Stack
from unionfs.layers.temporaries import DIRECTORY, Temporaries
from unionfs.mounting.options import Options, Refused
from unionfs.mounting.uppers import resemble
from unionfs.view.node import Node, passing
from unionfs.view.union import Features, Union


def prepare(stack: Stack, options: Options) -> None:
    """Do what the options ask for; Refused where it cannot be done."""
    if stack.upper is None or stack.work is None:
        return
    try:
        if options.wipe == "on":
            _wipe(stack.upper, stack.work, stack.lowers[0].fd)
        if options.planted:
            _Planting(stack, stack.upper, options).plant()
    except OSError as exc:
        raise Refused(f"scratch '{stack.upper.name}' cannot be prepared: {exc.strerror}") from exc
    finally:
        os.chdir("/")  # who changes a layer enters it


# Emptying


def _wipe(upper: WritableLayer, work: WritableLayer, like: int) -> None:
    """Remove all that another mount has left, and make upper's root anew, like the lower's."""
    entries = list(upper.scan(b"."))
    if entries and not markers.lowers(upper):
        raise Refused(
            f"upper '{upper.name}' was never mounted by unionfs, and is not emptied: do that"
            " by hand, or choose another directory"
        )
    _require_staging(work)
    staging = Temporaries(work)  # making it empties it
    for layer, names in ((upper, entries), (work, list(work.scan(b".")))):
        for entry in names:
            if (layer, entry.name) != (work, DIRECTORY):
                _remove(layer, entry, work, staging)
    for name in upper.attributes(b"."):
        if markers.is_private(name):
            upper.remove_attribute(b".", name)
    resemble(upper.fd, like)


def _require_staging(work: WritableLayer) -> None:
    st = work.find(DIRECTORY)
    if st is None:
        work.mkdir(DIRECTORY, 0o700)
    elif not stat.S_ISDIR(st.st_mode):
        work.unlink(DIRECTORY)
        work.mkdir(DIRECTORY, 0o700)


def _remove(
    layer: WritableLayer, entry: "os.DirEntry[bytes]", work: WritableLayer, staging: Temporaries
) -> None:
    """Remove an entry of a layer's root; a tree is taken apart in the staging area."""
    if not entry.is_dir(follow_symlinks=False):
        layer.unlink(entry.name)
        return
    aside = staging.name()
    layer.move(entry.name, work, aside)
    staging.discard(aside)


# Planting


class _Planting:
    """Upper while it is planted, beside what the lowers show."""

    def __init__(self, stack: Stack, upper: WritableLayer, options: Options) -> None:
        self._upper = upper
        self._planted = options.planted
        self._rules = stack.state.rules if stack.state is not None else Rules.parse([])
        features = Features(whiteout=options.whiteout)
        self._shown = Union(Stack(None, None, stack.lowers, stack.within), features)

    def plant(self) -> None:
        """Plant all; what persists, or is no directory in the lowers, is left out."""
        for kind, path in self._planted:
            node = self._copied_down(os.fsencode(path).strip(b"/"))
            if node is None:
                continue
            if kind == "dirs":
                self._copy_directories(node)
            self._hide(node)

    def _copied_down(self, path: bytes) -> Node | None:
        """Copy a directory and those above it; None where there is none."""
        node = self._shown.root
        for name in path.split(b"/"):
            child = self._child(node, name)
            if child is None:
                return None
            node = child
        for directory in reversed(list(_upwards(node))):
            self._copy(directory)
        return node

    def _child(self, node: Node, name: bytes) -> Node | None:
        result = self._shown.lookup.find(node, name)
        if result is None or not result.is_directory:
            return None
        child = passing(result, node, name)
        return None if self._rules.at(child.path).persisted else child

    def _copy(self, node: Node) -> None:
        """Make a directory in upper with the attributes that the lowers show."""
        if self._upper.find(node.path) is not None:
            return
        self._upper.mkdir(node.path, 0o700)
        self._resemble(node)

    def _resemble(self, node: Node) -> None:
        layer, path = self._shown.place(node)
        like = layer.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fd = self._upper.open(node.path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                resemble(fd, like)
            finally:
                os.close(fd)
        finally:
            os.close(like)

    def _copy_directories(self, node: Node) -> None:
        """Copy all directories below, each opaque."""
        pending = [node]
        while pending:
            above = pending.pop()
            for child in self._directories(above):
                self._copy(child)
                pending.append(child)
            if above is not node:
                self._hide(above)

    def _directories(self, node: Node) -> Iterator[Node]:
        for name in self._shown.listing(node):
            child = self._child(node, name)
            if child is not None:
                yield child

    def _hide(self, node: Node) -> None:
        """Have nothing of the lowers show in a directory, whose times stay."""
        self._shown.whiteouts.make_opaque(self._upper, node.path)
        self._resemble(node)


def _upwards(node: Node) -> Iterator[Node]:
    at: Node | None = node
    while at is not None and at.parent is not None:
        yield at
        at = at.parent
