"""Whiteouts as names: `.wh.NAME` and `.wh..wh..opq` of aufs(5) and OCI image layers (layer.md).

`.wh.NAME` hides NAME in the layers below its own, so a file and its whiteout
may lie side by side: a change first puts the whiteout, which says nothing new,
and then makes its one visible step.  Beside a directory that has a redirect a whiteout
says nothing, either: the lower part of that directory has another name.

A name of 252 to 255 bytes leaves no room for a whiteout's name, so no whiteout can hide it.  A
directory from which such a name is to go hides all that is below it (`Names.make_removable`).
"""

import contextlib
import errno
import logging
import os
import stat
from collections.abc import Iterator, Sequence

from unionfs.host.acting import Acting
from unionfs.layers.layer import Layer, LayerPath, WritableLayer, join
from unionfs.layers.markers import end_redirect
from unionfs.layers.rules import Found
from unionfs.layers.whiteouts import BOTTOM, LayerEntry, Whiteouts, remove_spent

log = logging.getLogger(__name__)

_PREFIX = b".wh."
_OPAQUE = b".wh..wh..opq"


def _whiteout(path: bytes) -> bytes:
    """Return the path of the whiteout for *path*."""
    directory, slash, name = path.rpartition(b"/")
    return directory + slash + _PREFIX + name


class AufsWhiteouts(Whiteouts):
    """Whiteouts and opaque directories as aufs keeps them; attributes stay overlayfs's."""

    are_in_place = False

    def __init__(self, work: WritableLayer | None = None, acting: Acting | None = None) -> None:
        super().__init__(work, acting)
        # Upper is where work is.
        self.longest = os.fstatvfs(work.fd).f_namemax - len(_PREFIX) if work else 0

    def reserved(self, name: bytes) -> bool:
        """Tell whether *name* is a marker's."""
        return name.startswith(_PREFIX)

    def hidden_by(self, name: bytes) -> bytes | None:
        """Return the name that an entry of this name hides by it, or None."""
        if not name.startswith(_PREFIX) or name.startswith(_PREFIX * 2):
            return None
        return name.removeprefix(_PREFIX)

    def classify(self, directory: LayerPath, name: bytes) -> LayerEntry:
        """Say what one layer's *directory* holds under *name*."""
        entry = super().classify(directory, name)
        layer, path = entry.layer, entry.path
        if layer.number == BOTTOM or entry.found in (Found.WHITEOUT, Found.FILE):
            return entry
        hidden = layer.find(_whiteout(path)) is not None
        if entry.found is Found.NOTHING:
            return entry._replace(found=Found.WHITEOUT) if hidden else entry
        hidden = hidden and not entry.marks.redirect
        if entry.found is Found.DIRECTORY and (
            hidden or layer.find(join(path, _OPAQUE)) is not None
        ):
            return entry._replace(found=Found.OPAQUE)
        return entry

    def _hints(
        self, place: LayerPath, entries: "Sequence[os.DirEntry[bytes]]", *, numbered: bool
    ) -> dict[bytes, int]:
        """Map the names of one directory of one layer to whether they show."""
        found = super()._hints(place, entries, numbered=numbered)
        shows = {name: shown for name, shown in found.items() if not name.startswith(_PREFIX)}
        for name in found:
            if name.startswith(_PREFIX) and not name.startswith(b".wh..wh."):
                shows.setdefault(name.removeprefix(_PREFIX), 0)
        return shows

    def is_opaque_root(self, layer: Layer) -> bool:
        """Tell whether the root of a layer hides the layers below it."""
        return layer.number != BOTTOM and layer.find(_OPAQUE) is not None

    def require_name(self, upper: WritableLayer, path: bytes) -> None:
        """Raise FileExistsError where there is a whiteout for *path*."""
        if upper.find(_whiteout(path)) is not None:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))

    def hide_below(self, upper: WritableLayer, path: bytes) -> None:
        """Put a whiteout for *path*, where upper holds nothing."""
        self._put(upper, path)

    def hide(self, work: WritableLayer, staged: bytes, upper: WritableLayer, path: bytes) -> bool:
        """Put a whiteout beside *path* and remove what upper holds there."""
        is_directory = stat.S_ISDIR(upper.stat(path).st_mode)
        with self._covering(upper, path):
            if is_directory:
                upper.move(path, work, staged)
            else:
                upper.unlink(path)
        return is_directory

    def publish(
        self, work: WritableLayer, staged: bytes, upper: WritableLayer, path: bytes
    ) -> None:
        """Put a staged object at *path*, then take the whiteout away."""
        work.move(staged, upper, path)
        self._take(upper, path)

    def cut_off(self, upper: WritableLayer, path: bytes) -> None:
        """Put a whiteout beside the directory: a mark in it would have to go with the whiteouts.

        If the name is too long for that, nothing is left below it: `Names.make_removable`.
        """
        with self._covering(upper, path) if self._has_room(path) else contextlib.nullcontext():
            end_redirect(upper, path)

    def make_opaque(self, layer: WritableLayer, path: bytes) -> None:
        """Hide the directories below *path*; its modification time stays."""
        if layer.find(join(path, _OPAQUE)) is not None:
            return
        st = layer.stat(path)
        self._acting.as_root()
        layer.mknod(join(path, _OPAQUE), stat.S_IFREG | 0o444, 0)
        try:
            layer.utime(path, st.st_atime_ns, st.st_mtime_ns)
        except OSError:  # the directory is opaque: no error may say otherwise
            log.exception("%r: its times are those of its mark", path)

    def move_file(self, upper: WritableLayer, path: bytes, target: bytes, *, cover: bool) -> None:
        """Rename in upper, between putting one whiteout and taking another away."""
        with self._covering(upper, path) if cover else contextlib.nullcontext():
            upper.move(path, upper, target)
        self._take(upper, target)

    move_directory = move_file

    def _has_room(self, path: bytes) -> bool:
        return len(path.rpartition(b"/")[2]) <= self.longest

    @contextlib.contextmanager
    def _covering(self, upper: WritableLayer, path: bytes) -> Iterator[None]:
        """Put a whiteout for a step that takes *path* away; if the step fails, remove it again."""
        new = self._put(upper, path)
        try:
            yield
        except BaseException:
            if new:
                remove_spent(upper, _whiteout(path))
            raise

    def _take(self, upper: WritableLayer, path: bytes) -> None:
        """Take the whiteout for *path* away, if there is one."""
        if self._has_room(path):
            remove_spent(upper, _whiteout(path))

    def _put(self, upper: WritableLayer, path: bytes) -> bool:
        """Put a whiteout; say False where there was one."""
        self._acting.as_root()
        try:
            upper.mknod(_whiteout(path), stat.S_IFREG | 0o444, 0)
        except FileExistsError:
            return False
        return True
