"""Signs that an upper has partial copies (`blockmap`), so that others keep off it.

Kernel overlayfs would take a partial copy for a metadata-only one, and show old content.  So while
there may be one, an entry in `work/work/incompat` makes the kernel refuse the upper with this work
directory (fs/overlayfs/readdir.c, ovl_workdir_cleanup_recurse).  With another work directory, it
refuses the file (`markers.bar_metacopy`).  An attribute of upper's root tells unionfs, which does
not take such an upper as a lower.
"""

import os

from unionfs.host import content
from unionfs.layers import markers, staging
from unionfs.layers.layer import NO_ATTRIBUTES, Layer, WritableLayer, join

DIRECTORY = join(staging.DIRECTORY, staging.INCOMPATIBLE)
_ENTRY = join(DIRECTORY, staging.BLOCKS)


def is_said(layer: Layer) -> bool:
    """Tell whether an upper, or a layer that was one, has the sign.

    By descriptor, as the working directory must stay: names may still be relative to it.
    """
    try:
        os.getxattr(layer.fd, markers.INCOMPLETE)
    except OSError as exc:
        if exc.errno in NO_ATTRIBUTES:
            return False
        raise
    return True


def say(upper: WritableLayer, work: WritableLayer, *, syncs: bool) -> None:
    """Put the signs on disk, before the first such file is there."""
    for path in (DIRECTORY, _ENTRY):
        if work.find(path) is None:
            work.mkdir(path, 0o700)
    markers.set_incomplete(upper)
    if syncs:
        for layer, path in ((work, DIRECTORY), (work, staging.DIRECTORY), (upper, b".")):
            fd = layer.open(path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                content.sync(fd)
            finally:
                os.close(fd)


def end(upper: WritableLayer, work: WritableLayer) -> None:
    """Remove the signs: all files are whole."""
    for path in (_ENTRY, DIRECTORY):
        if work.find(path) is not None:
            work.rmdir(path)
    markers.end_incomplete(upper)


def bars_kernel(work: Layer) -> bool:
    """Tell whether kernel overlayfs is kept out."""
    return work.find(_ENTRY) is not None
