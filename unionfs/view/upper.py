"""What a union that can be changed has: upper and work, and what is kept in them.

A union without an upper has `NoUpper` in its place, which answers every question with EROFS.
"""

import errno
import os
from typing import NoReturn

from unionfs.host.acting import Acting
from unionfs.layers import inheritance
from unionfs.layers.layer import WritableLayer
from unionfs.layers.links import LinkIndex
from unionfs.layers.staging import Staging
from unionfs.view.fills import Fills
from unionfs.view.node import Node
from unionfs.view.partials import Partials
from unionfs.view.pins import Pins, path_of_pin


class Upper:
    """The upper side of one union."""

    def __init__(
        self, layer: WritableLayer, work: WritableLayer, acting: Acting, fills: Fills
    ) -> None:
        self.layer = layer
        self.work = work
        self.pins = Pins()
        inheritance.prepare(work, layer)
        self.staging = Staging(work)
        self.links = LinkIndex(work)
        self.stand_ins = inheritance.StandIns(self.staging, layer, acting)
        self.fills = fills
        self.partials = Partials(self.place)

    def place(self, node: Node) -> tuple[WritableLayer, bytes]:
        """Return the place in upper of a node; EROFS for a node that is not on upper."""
        if not node.upper:
            raise OSError(errno.EROFS, f"{node.path!r} was not copied up")
        if node.pin >= 0:
            return self.pins, path_of_pin(node.pin)
        if node.link:
            return self.work, self.links.path(node.link)
        return self.layer, node.path

    def defer_removals(self) -> None:
        """Let deleted objects wait to be removed: `tidy` is called now and then."""
        self.staging.defer_removals()

    def tidy(self) -> bool:
        """Remove one name of the objects that wait for it; say False where there is none."""
        return self.staging.tidy()


class NoUpper(Upper):
    """The stand-in for `Upper` in a union that is only read; its truth value is false."""

    def __init__(self) -> None:
        pass

    def __bool__(self) -> bool:
        return False

    def __getattr__(self, name: str) -> NoReturn:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))
