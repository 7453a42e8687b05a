"""The union itself: which object a name shows, and what is known of it.

Looking up a name reads a lazy column of findings, one per layer, until
`rules.visible` has decided; the layers below are not asked.  Redirects (of
moved directories and of metadata-only copies) change the column's path on the
way down, as overlayfs.rst describes under "redirect_dir".

Nothing here changes what the layers show; that is `changes` and `copyup`.
"""

import dataclasses
import errno
import logging
import os
import stat
from collections.abc import Iterator, Sequence
from typing import Literal

from unionfs import markers, rules, syscalls
from unionfs.dotmarkers import DotMarkers
from unionfs.handle import LowerReaders
from unionfs.layer import Layer, Pins, WritableLayer, join, path_of_pin
from unionfs.links import LinkIndex, key
from unionfs.markers import Finding, Markers, Part
from unionfs.node import ROOT_INO, Node, NodeTable, Sighting, number
from unionfs.rules import Found
from unionfs.stack import Stack
from unionfs.temporaries import Temporaries

log = logging.getLogger(__name__)

_NAME_MAX = 255
_HIDDEN = frozenset({Found.NOTHING, Found.WHITEOUT})
_GONE = OSError(errno.ENOENT, os.strerror(errno.ENOENT))


@dataclasses.dataclass(frozen=True, slots=True)
class Features:
    """What the user may choose; the words are overlayfs's where it has one."""

    metacopy: bool = True
    redirect_dir: bool = True
    whiteout: Literal["overlay", "aufs"] = "overlay"
    fsync: Literal["auto", "strict", "off"] = "auto"


class Union:
    """A stack of layers seen as one tree."""

    def __init__(self, stack: Stack, features: Features) -> None:
        self.stack = stack
        self.features = features
        self.lowers = stack.lowers
        self.upper = stack.upper
        self.work = stack.work
        self.markers = Markers() if features.whiteout == "overlay" else DotMarkers()
        self.readers = LowerReaders()
        self.nodes = NodeTable(self._root())
        if stack.upper is not None and stack.work is not None:
            syscalls.keep_capabilities_across_setfsuid()
            os.umask(0)
            self.pins = Pins()
            self.temporaries = Temporaries(stack.work)
            self.links = LinkIndex(stack.work)
            names = [layer.name for layer in stack.lowers]
            self._record_layers(stack.upper, stack.work)
