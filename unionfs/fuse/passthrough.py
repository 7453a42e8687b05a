"""Which opens the kernel is to serve by itself: our rule; `backing` has the kernel's.

Passthrough pays for large files alone, and must not be where the daemon has to see the writes.
"""

import itertools
import os

from unionfs.fuse.backing import SMALL, Backings, Forecast
from unionfs.host import closing
from unionfs.host.content import ST_BLOCK
from unionfs.host.credentials import SET_IDS
from unionfs.layers.descent import stat_file
from unionfs.view.node import Node
from unionfs.view.union import Union

# How many deleted files' room an open for writing counts at most.
_MOST_LOOKED_AT = 32


class Passthrough:
    """The rule of one mount."""

    def __init__(self, union: Union, backings: Backings, *, of_lowers: bool) -> None:
        self._union = union
        self._backings = backings
        # Without an upper nothing is ever copied up, so no reader can be left behind.
        self._of_lowers = of_lowers or not union.upper
        self._forecast = Forecast()
        # The numbers of files that were large when they were last looked at.
        self._large: set[int] = set()

    def is_large(self, node: Node) -> None:
        """Take note, for later opens, of a file that is worth passing through."""
        self._large.add(node.ino)

    def needs_descriptor(self, node: Node) -> bool:
        """Tell whether an open for reading passes through, or may."""
        if self._backings.is_through(node) or self._backings.may_be_mapped(node):
            return True
        if not self._backings.enabled or node.partial or (node.below and not self._of_lowers):
            return False
        if self._union.far and self._union.far_content(node) is not None:
            return False  # threads read such a file
        return node.ino in self._large or self._union.access.strict

    def may_pass(self, node: Node, fd: int, flags: int) -> bool:
        """Tell whether the kernel may serve an open by itself, and should."""
        if not self._backings.enabled or node.partial or (node.below and not self._of_lowers):
            return False
        st = stat_file(fd)
        if flags & os.O_ACCMODE == os.O_RDONLY:
            large = st.st_size >= SMALL or self._union.access.strict
            return large or self._backings.may_be_mapped(node)
        # The backing file would keep O_APPEND when fcntl(2) takes it back, and set-uid bits
        # have to fall at a write that the daemon sees.
        if flags & os.O_APPEND or st.st_mode & SET_IDS:
            return False
        if self._backings.may_be_mapped(node):
            return True
        return (self._forecast.large or st.st_size >= SMALL) and not self._deleted_files_hold_room()

    def may_new_pass(self, mode: int, flags: int) -> bool:
        """Tell, as `may_pass`, of a new file."""
        may = self._forecast.large and not flags & os.O_APPEND and not mode & SET_IDS
        return may and not self._deleted_files_hold_room()

    def _deleted_files_hold_room(self) -> bool:
        """Tell whether upper may be full until deleted files end: passing writes cannot wait."""
        orphans, upper = self._union.nodes.orphans, self._union.upper
        if not orphans or not upper:
            return False
        pins = (node.pin for node in itertools.islice(orphans.values(), _MOST_LOOKED_AT))
        held = sum(closing.blocks(pin) for pin in pins if pin >= 0) * ST_BLOCK
        room = os.fstatvfs(upper.layer.fd)
        return held > room.f_bavail * room.f_frsize // 4

    def learn(self, node: Node, size: int) -> None:
        """Take note of a file's size, in bytes, when a descriptor that could write is closed."""
        self._forecast.learn(size)
        if size >= SMALL:
            self.is_large(node)

    def forget(self, ino: int) -> None:
        """Take note that the kernel dropped an inode."""
        self._large.discard(ino)
