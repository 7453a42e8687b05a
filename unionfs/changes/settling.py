"""Partial copies that no request asks for: found in upper, and made whole.

This happens before a lower is changed, when the union ends, and by `unionfs settle`.
"""

import errno
import logging
import os
import stat
from collections.abc import Iterator

from unionfs.changes.partial_copies import PartialCopies
from unionfs.host import mountcalls
from unionfs.layers import incomplete, markers, metacopies, walk
from unionfs.layers.layer import WritableLayer
from unionfs.layers.rules import Found
from unionfs.layers.whiteouts import LayerEntry
from unionfs.view.node import Node

log = logging.getLogger(__name__)

_Place = tuple[WritableLayer, bytes]


def bring_unknown(copies: PartialCopies) -> None:
    """Make all copies whole that the kernel knows nothing of."""
    if not (copies.union.nodes.has_partials or copies.records.is_said):
        return
    known = {node.host_ino for node in copies.union.nodes.all() if node.partial}
    for layer, path in places(copies):
        if layer.stat(path).st_ino not in known:
            _bring(copies, (layer, path))


def settle(copies: PartialCopies) -> int:
    """Make all copies whole, when requests have ended; return how many are still partial.

    When none is, programs that know nothing of partial copies may use the upper again.
    """
    upper = copies.union.upper
    if not copies.lasts or not incomplete.is_said(upper.layer):
        return 0
    for ino in [*upper.partials]:
        upper.partials.forget(ino)
    left = 0
    for place in places(copies):
        try:
            _bring(copies, place)
        except OSError as exc:
            left += 1
            log.error("%r is in upper in part, and stays so: %s", place[1], exc.strerror)  # noqa: TRY400
    if not left:
        if copies.syncs:
            mountcalls.sync_filesystem(upper.layer.fd)
        copies.records.say_no_more()
    return left


def places(copies: PartialCopies) -> Iterator[_Place]:
    """Yield the places of all partial copies; a copy with several names comes several times."""
    upper = copies.union.upper
    places = [
        (upper.layer, path)
        for path, entry in walk.non_directories(upper.layer)
        if entry.is_file(follow_symlinks=False)
    ]
    places += [(upper.work, path) for path in upper.links.paths()]
    for layer, path in places:
        marks = markers.read(layer, path)
        if marks.partial and marks.metacopy:
            yield layer, path


def _bring(copies: PartialCopies, place: _Place) -> None:
    layer, path = place
    upper, st = copies.union.upper, layer.stat(path)
    entry = LayerEntry(Found.METACOPY, upper.layer, path, st, markers.read(layer, path))
    shown = copies.union.columns.shown((entry,), b"")[-1]
    if shown.found is Found.METACOPY:
        raise OSError(errno.EIO, "its content is not in the lower layers")
    metacopies.made_right(layer, path, st, entry.marks, shown.place)  # as a look-up would
    node = Node(0, stat.S_IFREG, st.st_ino, None, b"", upper=True, below=(shown.place,))
    node.partial, node.pin = True, layer.hold(path)
    try:
        copies.bring(node)
    finally:
        upper.partials.forget(node.ino)
        os.close(node.pin)
