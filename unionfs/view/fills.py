"""Content that is filled into a copy in its place, as a copy with further names cannot be replaced.

Writing takes things from a file: its modification time, for a while its size, and its
capability (fs/inode.c, file_remove_privs).  A thread may write for long, and other requests go on
meanwhile.  So these values are kept apart until the content is there.  Programs that look at the
file see the values kept; programs that set a time or a capability set the value kept.  Time and
capability are in markers, too, as a crash would lose them (`metacopies`).
"""

import os

from unionfs.layers import markers
from unionfs.layers.layer import WritableLayer
from unionfs.view.content_copy import ContentCopy
from unionfs.view.node import Node

_NAMED = (
    "st_atime", "st_mtime", "st_ctime", "st_atime_ns", "st_mtime_ns", "st_ctime_ns",
    "st_blksize", "st_blocks", "st_rdev",
)  # fmt: skip


class Fills(dict[Node, ContentCopy]):
    """The copies in upper that are being filled in place, each with the copying of its content."""

    def begin(self, copy: ContentCopy, layer: WritableLayer, path: bytes) -> None:
        """Keep what the copy at *path* is about to lose."""
        markers.set_mtime(layer, path, copy.kept.mtime_ns)
        markers.keep_capability(layer, path)
        self[copy.node] = copy

    def shown(self, node: Node, st: os.stat_result) -> os.stat_result:
        """Return the attributes to show of a file on upper that has *st*."""
        copy = self.get(node)
        return st if copy is None else _changed(st, copy.kept.size, copy.kept.mtime_ns)

    def set_mtime(self, node: Node, layer: WritableLayer, path: bytes, mtime_ns: int) -> None:
        """Take note that the modification time of a file is set, if it is being filled."""
        copy = self.get(node)
        if copy is not None:
            markers.set_mtime(layer, path, mtime_ns)
            copy.kept.mtime_ns = mtime_ns

    def take_capability(self, node: Node, layer: WritableLayer, path: bytes) -> None:
        """Take note that a change of owner takes the capability away."""
        if node in self:
            markers.drop_kept_capability(layer, path)

    def finish(self, copy: ContentCopy, layer: WritableLayer, path: bytes) -> None:
        """Give back what was kept: the content is there now."""
        if copy.whole:
            layer.utime(path, layer.stat(path).st_atime_ns, copy.kept.mtime_ns)
            markers.give_capability_back(layer, path)
        markers.end_metacopy(layer, path)
        self.pop(copy.node, None)

    def undo(self, copy: ContentCopy, layer: WritableLayer, path: bytes) -> None:
        """Give back what was kept, and the room: the content stays below."""
        if self.get(copy.node) is copy:  # else the beginning failed
            layer.truncate(copy.target, 0)
            layer.truncate(copy.target, copy.kept.size)
            layer.utime(path, layer.stat(path).st_atime_ns, copy.kept.mtime_ns)
        markers.give_capability_back(layer, path)
        markers.end_mtime(layer, path)
        self.pop(copy.node, None)


def _changed(st: os.stat_result, size: int, mtime_ns: int) -> os.stat_result:
    """Return *st* with another size and modification time."""
    named = {name: getattr(st, name) for name in _NAMED}
    named |= {"st_mtime": mtime_ns / 10**9, "st_mtime_ns": mtime_ns}
    return os.stat_result((*st[:6], size, st[7], mtime_ns // 10**9, st[9]), named)
