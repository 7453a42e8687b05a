"""What scratch is planted with at the start of a mount: directories that begin bare.

Planting happens when the layers are open, scratch is empty, and nothing serves yet.  A planted
directory is ordinary content of an upper: a copy of the directory, opaque, so that nothing of the
lowers shows in it.
"""

import os
from collections.abc import Iterator

from unionfs.layers.layer import WritableLayer
from unionfs.layers.persistence import Rules
from unionfs.layers.stack import Stack
from unionfs.mounting.options import Options, Refused
from unionfs.mounting.uppers import resemble
from unionfs.view.node import Node, passing
from unionfs.view.union import Features, Union


def plant(stack: Stack, options: Options) -> None:
    """Plant what the options ask for; Refused where it cannot be done."""
    if stack.upper is None:
        return
    try:
        _Planting(stack, stack.upper, options).plant()
    except OSError as exc:
        raise Refused(f"scratch '{stack.upper.name}' cannot be planted: {exc.strerror}") from exc
    finally:
        os.chdir("/")  # changing a layer has entered it


class _Planting:
    """An upper that is being planted, and the lowers below it."""

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
        """Let nothing of the lowers show in a directory, and keep its times."""
        self._shown.whiteouts.make_opaque(self._upper, node.path)
        self._resemble(node)


def _upwards(node: Node) -> Iterator[Node]:
    at: Node | None = node
    while at is not None and at.parent is not None:
        yield at
        at = at.parent
