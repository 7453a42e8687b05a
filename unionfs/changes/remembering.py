"""Remembering what the lowers had under a persisted name before it is changed: `layers/firsts`.

Only `unionfs diff --state` needs this, after an upgrade.  So where it cannot be remembered, for
example because state is full, the change goes on.
"""

import logging

from unionfs.layers import firsts
from unionfs.view.node import Node, child_path
from unionfs.view.sides import Side

log = logging.getLogger(__name__)


class Memory:
    """What one state side remembers."""

    def __init__(self, side: Side) -> None:
        self._side = side

    def before_change_of(self, node: Node) -> None:
        """Remember the file that is going to be copied up."""
        if node.upper or node.orphan:
            return
        for parent, name in ((node.parent, node.name), *(node.aliases or ())):
            if parent is not None:
                self.before_change(parent, name)

    def before_change(self, parent: Node, name: bytes) -> None:
        """Remember what a name in a directory of this side shows, if it is a lower's."""
        if not parent.below or (parent, name) in self._side.known.not_below:
            return
        result = self._side.lookup.find(parent, name)
        if result is None or result.upper or result.is_directory:
            return
        layer, path, _ = result.lowers[-1]
        self._side.acting.as_root()
        try:
            firsts.note(self._side.upper.work, child_path(parent, name), layer, path)
        except OSError:  # only `diff --state` will know less
            log.info("%r: what the lower has is not remembered", name, exc_info=True)
