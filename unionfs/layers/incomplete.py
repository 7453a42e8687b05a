"""That an upper has files of which it holds a part (`blockmap`): who does not know keeps off.

Kernel overlayfs would take a partial copy for a metadata-only one, and show old content.  So while
there may be one, an entry in `work/work/incompat` has it refuse the upper with this work directory
(fs/overlayfs/readdir.c, ovl_workdir_cleanup_recurse); with another, it refuses the file
(`markers.bar_metacopy`).  An attribute of upper's root tells us, as such an upper is no lower.
"""

import os

from unionfs.host import content
from unionfs.layers import markers, staging
from unionfs.layers.layer import NO_ATTRIBUTES, Layer, WritableLayer, join

DIRECTORY = join(staging.DIRECTORY, staging.INCOMPATIBLE)
_ENTRY = join(DIRECTORY, staging.BLOCKS)


def is_said(layer: Layer) -> bool:
    """Tell whether it was said of an upper, or of a layer that was one.

    By descriptor: the directory of the process stays, to which names may be relative yet.
    """
    try:
        os.getxattr(layer.fd, markers.INCOMPLETE)
    except OSError as exc:
        if exc.errno in NO_ATTRIBUTES:
            return False
        raise
    return True


def say(upper: WritableLayer, work: WritableLayer, *, syncs: bool) -> None:
    """Say it, on disk, before the first such file is there."""
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
    """Say it no more: all files are whole."""
    for path in (_ENTRY, DIRECTORY):
        if work.find(path) is not None:
            work.rmdir(path)
    markers.end_incomplete(upper)


def bars_kernel(work: Layer) -> bool:
    """Tell whether kernel overlayfs is kept out."""
    return work.find(_ENTRY) is not None
