"""Metadata-only copies that a crash left half way, made right when they are next looked up.

A file of several names cannot be replaced by a rename, so its content is filled
into the copy that upper has; until that is done the copy counts as one without
content.  Content that a crash leaves in it is never shown, but its size, modification
time and capability are.  The size is that of the content below; the others are kept in
attributes while content comes in (`fills`).

A power cut may also lose the size of a copy that was not synced: btrfs and others
then leave the name, the attributes and a size of zero.  Any other size that is not
the content's means that the lower was changed, and stays (`unionfs check` reports it).
"""

import os

from unionfs.layers import markers
from unionfs.layers.layer import LayerPath, WritableLayer
from unionfs.layers.markers import Marks


def is_half_way(st: os.stat_result, marks: Marks, size: int) -> bool:
    """Tell whether a copy that nobody fills was left half way; *size* is its content's."""
    return marks.mtime is not None or st.st_size == 0 != size


def made_right(
    layer: WritableLayer, path: bytes, st: os.stat_result, marks: Marks, content: LayerPath
) -> os.stat_result:
    """Return the attributes of a copy that nobody fills; make it right where it was left half way.

    *content* is the place of the lower's content.
    """
    if marks.partial:
        size = st.st_size or _least_size(layer, path)
    else:
        size = content.layer.stat(content.path).st_size
    return settle(layer, path, st, marks, size) if is_half_way(st, marks, size) else st


def _least_size(layer: WritableLayer, path: bytes) -> int:
    """Return the least size that a partial copy has had: it shows the lower up to there."""
    blocks = markers.blocks(layer, path)
    return blocks.limit if blocks else 0


def settle(
    layer: WritableLayer, path: bytes, st: os.stat_result, marks: Marks, size: int
) -> os.stat_result:
    """Give a copy its size, time and capability again; return its attributes.

    A crash in here leaves the copy half way, as before.
    """
    mtime = st.st_mtime_ns if marks.mtime is None else marks.mtime
    if st.st_size != size:
        markers.set_mtime(layer, path, mtime)
        fd = layer.open_to_write(path, os.O_RDWR)
        try:
            layer.truncate(fd, size)
        finally:
            os.close(fd)
    layer.utime(path, st.st_atime_ns, mtime)
    markers.give_capability_back(layer, path)
    markers.end_mtime(layer, path)
    return layer.stat(path)
