"""Whiteouts as names: `.wh.NAME` and `.wh..wh..opq` of aufs(5) and OCI image layers (layer.md).

`.wh.NAME` hides NAME in the layers below its own, so a file and its whiteout
may lie side by side: a change first puts the whiteout, which says nothing new,
and then makes its one visible step.

A name for which a whiteout's has no room (252 to 255 bytes) cannot be hidden by one; a
directory from which such a name is to go hides all that is below it (`Names.make_way`).
"""

import errno
import os
import stat

from unionfs.layer import Layer, WritableLayer, join
from unionfs.rules import Found
from unionfs.whiteouts import BOTTOM, Finding, Markers, Part

_PREFIX = b".wh."
_OPAQUE = b".wh..wh..opq"

# Bytes of a name for which a whiteout's has room on every file system (the least: eCryptfs, 143).
_SURELY_HIDDEN = 128


def _whiteout(path: bytes) -> bytes:
    """Return the path of the whiteout for *path*."""
    directory, slash, name = path.rpartition(b"/")
    return directory + slash + _PREFIX + name


class DotMarkers(Markers):
    """Whiteouts and opaque directories as aufs keeps them; attributes stay overlayfs's."""

    bear_names = False

    def reserved(self, name: bytes) -> bool:
        """Tell whether *name* is a marker's."""
        return name.startswith(_PREFIX)

    def hidden_by(self, name: bytes) -> bytes | None:
        """Return the name that an entry of this name hides by it, or None."""
        if not name.startswith(_PREFIX) or name.startswith(_PREFIX * 2):
            return None
        return name.removeprefix(_PREFIX)

    def classify(self, directory: Part, name: bytes) -> Finding:
        """Say what one layer's *directory* holds under *name*."""
        finding = super().classify(directory, name)
        layer, path = finding.layer, finding.path
        if layer.number == BOTTOM or finding.found in (Found.WHITEOUT, Found.FILE):
            return finding
        hidden = layer.find(_whiteout(path)) is not None
        if finding.found is Found.NOTHING:
            return finding._replace(found=Found.WHITEOUT) if hidden else finding
        if finding.found is Found.DIRECTORY and (
            hidden or layer.find(join(path, _OPAQUE)) is not None
        ):
            return finding._replace(found=Found.OPAQUE)
        return finding

    def listing(self, part: Part) -> dict[bytes, int]:
        """Map the names of one directory of one layer to whether they show."""
        found = super().listing(part)
        shows = {name: shown for name, shown in found.items() if not name.startswith(_PREFIX)}
        for name in found:
            if name.startswith(_PREFIX) and not name.startswith(b".wh..wh."):
                shows.setdefault(name.removeprefix(_PREFIX), 0)
        return shows

    def is_opaque_root(self, layer: Layer) -> bool:
        """Tell whether the root of a layer hides the layers below it."""
        return layer.number != BOTTOM and layer.find(_OPAQUE) is not None

    def can_hide(self, upper: WritableLayer, name: bytes) -> bool:
        """Tell whether there is room for a whiteout's name, which is longer than that it hides."""
        if len(name) <= _SURELY_HIDDEN:
            return True
        return len(_PREFIX + name) <= os.fstatvfs(upper.fd).f_namemax

    def hides(self, upper: WritableLayer, path: bytes) -> bool:
        """Tell whether upper holds a whiteout for *path*."""
        return upper.find(_whiteout(path)) is not None

    def require_name(self, upper: WritableLayer, path: bytes) -> None:
        """Raise FileExistsError where there is a whiteout for *path*."""
        if self.hides(upper, path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))

    def hide_below(self, upper: WritableLayer, path: bytes) -> None:
        """Put a whiteout for *path*, where upper holds nothing."""
        self._put(upper, path)

    def hide(self, work: WritableLayer, staged: bytes, upper: WritableLayer, path: bytes) -> bool:
        """Put a whiteout beside *path* and remove what upper holds there."""
        self._put(upper, path)
        st = upper.stat(path)
        if stat.S_ISDIR(st.st_mode):
            upper.move(path, work, staged)
            return True
        upper.unlink(path)
        return False

    def publish(
        self, work: WritableLayer, staged: bytes, upper: WritableLayer, path: bytes
    ) -> None:
        """Put a staged object at *path*, then take the whiteout away."""
        work.move(staged, upper, path)
        self._take(upper, path)

    def clear(self, upper: WritableLayer, path: bytes) -> None:
        """Empty an upper directory that shows nothing of its markers, hidden from outside."""
        names = [entry.name for entry in upper.scan(path)]
        if names and self.can_hide(upper, path.rpartition(b"/")[2]):
            self._put(upper, path)  # else nothing is below: `Names.make_way`
        for name in names:
            upper.unlink(join(path, name))

    def make_opaque(self, layer: WritableLayer, path: bytes) -> None:
        """Hide the directories below *path*; its modification time stays."""
        if layer.find(join(path, _OPAQUE)) is None:
            st = layer.stat(path)
            layer.mknod(join(path, _OPAQUE), stat.S_IFREG | 0o444, 0)
            layer.utime(path, st.st_atime_ns, st.st_mtime_ns)

    def move_file(self, upper: WritableLayer, path: bytes, target: bytes, *, cover: bool) -> None:
        """Rename in upper, between putting one whiteout and taking another away."""
        if cover:
            self._put(upper, path)
        try:
            upper.move(path, upper, target)
        except OSError:
            if cover:
                self._take(upper, path)
            raise
        self._take(upper, target)

    move_directory = move_file

    @staticmethod
    def _put(upper: WritableLayer, path: bytes) -> None:
        try:
            upper.mknod(_whiteout(path), stat.S_IFREG | 0o444, 0)
        except OSError as exc:
            if exc.errno != errno.EEXIST:
                raise

    @staticmethod
    def _take(upper: WritableLayer, path: bytes) -> None:
        try:
            upper.unlink(_whiteout(path))
        except OSError as exc:
            if exc.errno not in (errno.ENOENT, errno.ENAMETOOLONG):
                raise
