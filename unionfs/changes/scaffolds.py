"""Directories that lead to what persists, made again where a mount does not find them.

Scratch is empty at each mount, and the lower may be another one by now.  So of a directory that
was made in scratch, or that the new lower lacks, only the scaffold in state is left.  If the
scaffold holds something that persists, the directory is made once more, in its likeness; else
nobody misses it.
"""

import logging

from unionfs.changes.changes import ROOT, Changes
from unionfs.layers.attribute_copies import Model, copy_look
from unionfs.layers.layer import join
from unionfs.layers.persistence import RuleNode
from unionfs.layers.whiteouts import is_whiteout
from unionfs.view.node import Node
from unionfs.view.sides import TwoSided

log = logging.getLogger(__name__)


def make_again(union: TwoSided, changes: Changes) -> None:
    """Make all directories that state's content wants and the union does not show."""
    _Walk(union, changes).visit(union.root, b".", union.splits[union.root].rule)


class _Walk:
    def __init__(self, union: TwoSided, changes: Changes) -> None:
        self.union = union
        self.changes = changes
        self.state = union.state.upper.layer

    def visit(self, directory: Node, path: bytes, rule: RuleNode) -> None:
        """Look at the scaffolds in one directory of state, and below."""
        for entry in self.state.scan(path):
            here, inner = rule.child(entry.name), join(path, entry.name)
            if here.leads and entry.is_dir(follow_symlinks=False):
                node = self._found(directory, entry.name, inner, here)
                if node is not None:
                    self.visit(node, inner, here)

    def _found(self, parent: Node, name: bytes, path: bytes, rule: RuleNode) -> Node | None:
        """Return the directory of that name, made if it was missing; None if nobody wants it."""
        found = self.union.lookup.node(parent, name)
        if found is not None and found[0].is_directory:
            return found[0]
        if rule.persisted or not self._is_wanted(path, rule):
            return None
        if found is not None:  # a file of the new lower
            self.changes.unlink(parent, name)
        log.info("%r leads to what persists, and is made again", path)
        return self._make(parent, name, path)

    def _make(self, parent: Node, name: bytes, path: bytes) -> Node:
        before = self.union.attributes(parent)
        node, _ = self.changes.mkdir(parent, name, 0o700, ROOT)
        layer, place = self.union.upper.place(node)
        model = Model(self.state, path, self.state.stat(path))
        copy_look(model, layer, place, model.st.st_mtime_ns, private=False)
        layer, place = self.union.upper.place(parent)
        layer.utime(place, before.st_atime_ns, before.st_mtime_ns)
        return node

    def _is_wanted(self, path: bytes, rule: RuleNode) -> bool:
        """Tell whether a scaffold holds something that persists."""
        for entry in self.state.scan(path):
            here, inner = rule.child(entry.name), join(path, entry.name)
            if here.persisted and not is_whiteout(self.state.stat(inner)):
                return True
            if here.leads and entry.is_dir(follow_symlinks=False) and self._is_wanted(inner, here):
                return True
        return False
