"""What a layer holds under a name, and how deletions are kept: overlayfs's whiteouts.

A whiteout is a character device 0:0 that bears the name, or, in a directory
marked `opaque=x`, an empty regular file with the attribute `whiteout`
(overlayfs.rst, "whiteouts and opaque directories").  Those that we make are names
of one device, which has a name in work, too.  Only this module and `aufs_whiteouts`, for
aufs's names, make and read whiteouts.
"""

import contextlib
import logging
import os
import stat
import sys
from typing import TYPE_CHECKING, NamedTuple

from unionfs.host.acting import Acting
from unionfs.layers.inodes import ROOT_INO, of_host
from unionfs.layers.layer import Layer, LayerPath, WritableLayer, join
from unionfs.layers.markers import OPAQUE, UNMARKED, WHITEOUT, Marks, read, set_opaque
from unionfs.layers.rules import Found

if TYPE_CHECKING:
    from collections.abc import Sequence

log = logging.getLogger(__name__)

BOTTOM = 1  # the number of the lowest layer

_NO_DEVICE = 0

# In work, the device that all whiteouts are names of.
_DEVICE = b"unionfs/whiteout"

# Getting a member from its enumeration takes a call before Python 3.12.
_NOTHING, _WHITEOUT, _FILE, _METACOPY, _DIRECTORY, _OPAQUE = Found


class LayerEntry(NamedTuple):
    """What one layer holds under one name, with all that has been read of it."""

    found: Found
    layer: Layer
    path: bytes
    st: os.stat_result | None
    marks: Marks = UNMARKED

    @property
    def place(self) -> LayerPath:
        """The place of this entry, for later use."""
        return LayerPath(self.layer, self.path, self.marks.whiteouts_are_files)


def is_whiteout(st: os.stat_result) -> bool:
    """Tell whether *st* is that of a character device 0:0."""
    return stat.S_ISCHR(st.st_mode) and st.st_rdev == _NO_DEVICE


def read_marks(layer: Layer, path: bytes) -> Marks:
    """Read the marks of one object; in the lowest layer they would speak of layers below."""
    return UNMARKED if layer.number == BOTTOM else read(layer, path)


def shown(layer: Layer, path: bytes, st: os.stat_result, marks: Marks) -> LayerEntry:
    """Return the entry of an object that is no whiteout."""
    mode = stat.S_IFMT(st.st_mode)
    if mode == stat.S_IFDIR:
        found = _OPAQUE if marks.opaque else _DIRECTORY
    else:
        found = _METACOPY if marks.metacopy and mode == stat.S_IFREG else _FILE
    return LayerEntry(found, layer, path, st, marks)


# What a listing tells of a name, as one number, for there may be many names: in the last bits the
# kind, DT_* of readdir(3), then the number of the layer that has it, and above the union's inode
# number (0: only a look-up tells).
KIND_MASK = 0xF
LAYER_SHIFT = 4
LAYER_MASK = 0x3FF
INO_SHIFT = 14
_FILE_HINT = stat.S_IFREG >> 12
_DIRECTORY_HINT = stat.S_IFDIR >> 12
_SYMLINK_HINT = stat.S_IFLNK >> 12


def _tell_numbers(layer: Layer, directory: bytes, entries: "Sequence[os.DirEntry[bytes]]") -> bool:
    """Tell whether a directory's entries have the numbers that stat(2) tells, and of this layer.

    Where that is not known, one entry shows it.  An entry of a directory shows nothing:
    overlayfs.rst, "Inode properties".
    """
    if layer.stat(directory).st_dev != layer.device:
        return False  # a subvolume of btrfs has numbers of its own
    if layer.lists_numbers:
        return True
    for entry in entries:
        if not entry.is_dir(follow_symlinks=False):
            st = layer.stat(join(directory, entry.name))
            return (st.st_dev, st.st_ino) == (layer.device, entry.inode())
    return False


def _is_whiteout_file(layer: Layer, directory: bytes, name: bytes) -> bool:
    path = join(directory, name)
    return is_whiteout_file(layer, path, layer.stat(path))


class Whiteouts:
    """Whiteouts and opaque directories as overlayfs keeps them."""

    are_in_place = True  # is a whiteout found under the name that it hides?
    longest = sys.maxsize  # bytes of a name for whose whiteout there is room in upper

    def __init__(self, work: WritableLayer | None = None, acting: Acting | None = None) -> None:
        """Take the work directory, where whiteouts are made, and the user who makes them."""
        self._work = work
        self._acting = acting or Acting()
        self._number = 0  # the inode number of the device that whiteouts are names of, once known

    def reserved(self, name: bytes) -> bool:  # noqa: ARG002 (no name is taken by this format)
        """Tell whether users may not see or make *name*."""
        return False

    def hidden_by(self, name: bytes) -> bytes | None:  # noqa: ARG002 (as above)
        """Return the name that an entry of this name hides by it, or None."""
        return None

    def classify(self, directory: LayerPath, name: bytes) -> LayerEntry:
        """Say what one layer's *directory* holds under *name*."""
        layer = directory.layer
        path = join(directory.path, name)
        st = layer.find(path)
        if st is None:
            return LayerEntry(_NOTHING, layer, path, None)
        if is_whiteout_in(directory, path, st):
            return LayerEntry(_WHITEOUT, layer, path, st)
        return shown(layer, path, st, read_marks(layer, path))

    def listing(self, place: LayerPath) -> dict[bytes, int]:
        """Map the names of one directory of one layer to what it says of them; 0: a whiteout.

        The number is that of `INO_SHIFT`, from the host's directory entry alone (readdir(3)).
        """
        layer, path, files = place
        if not layer.asks:
            return self._listing(place)
        return layer.learned(
            ("listing", path, files), lambda near: self._listing(LayerPath(near, path, files))
        )

    def _listing(self, place: LayerPath) -> dict[bytes, int]:
        layer, directory = place.layer, place.path
        entries = layer.scan(directory)
        numbered = layer.number != 0 and _tell_numbers(layer, directory, entries)
        return self._hints(place, entries, numbered=numbered)

    def show_none(
        self, places: "Sequence[LayerPath]", held: "Sequence[os.DirEntry[bytes]] | None" = None
    ) -> bool:
        """Tell whether a directory that has these *places*, top first, shows no name.

        What the first of them has *held* need not be read again.  `rules.merged` says the same
        of the listings; but here none is read below one that shows a name, and no numbers are
        asked for.
        """
        hidden: set[bytes] = set()
        for place in places:
            if held is None and place.layer.asks:
                names = self.listing(place)  # which may be known
            else:
                entries = place.layer.scan(place.path) if held is None else held
                names = self._hints(place, entries, numbered=False)
            held = None
            for name, hint in names.items():
                if hint and name not in hidden:
                    return False
                hidden.add(name)
        return True

    def _hints(
        self, place: LayerPath, entries: "Sequence[os.DirEntry[bytes]]", *, numbered: bool
    ) -> dict[bytes, int]:
        """Return what *entries* say; of numbers, too, if they are *numbered* as the objects are."""
        layer, directory = place.layer, place.path
        base = layer.number << LAYER_SHIFT
        start = layer.first << INO_SHIFT | base
        end = layer.end if numbered else 0
        whiteout = None  # the number of ours, asked for where there may be some
        hints: dict[bytes, int] = {}
        for entry in entries:
            name, host = entry.name, entry.inode()
            if ROOT_INO < host < end:
                hint = (host << INO_SHIFT) + start
            else:
                hint = of_host(layer, host) << INO_SHIFT | base if numbered else base
            if entry.is_file(follow_symlinks=False):
                hides = place.whiteouts_are_files and _is_whiteout_file(layer, directory, name)
                hints[name] = 0 if hides else hint | _FILE_HINT
            elif entry.is_dir(follow_symlinks=False):
                hints[name] = hint | _DIRECTORY_HINT
            elif entry.is_symlink():
                hints[name] = hint | _SYMLINK_HINT
            else:
                if whiteout is None:
                    whiteout = self._number_in(layer, directory)
                st = None if host == whiteout else layer.find(join(directory, name))
                shows = st is not None and not is_whiteout(st)
                hints[name] = hint | stat.S_IFMT(st.st_mode) >> 12 if st and shows else 0
        return hints

    def _number_in(self, layer: Layer, directory: bytes) -> int:
        """Return the inode number of our whiteouts, where a listing has it for them alone; or 0."""
        if layer.number or not self._number or not layer.lists_numbers:
            return 0
        return self._number if layer.stat(directory).st_dev == layer.device else 0

    def is_opaque_root(self, layer: Layer) -> bool:  # noqa: ARG002 (overlayfs has none)
        """Tell whether the root of a layer hides the layers below it."""
        return False

    def require_name(self, upper: WritableLayer, path: bytes) -> None:
        """Raise FileExistsError where a whiteout for *path* does not bear its name."""

    def hide_below(self, upper: WritableLayer, path: bytes) -> None:
        """Put a whiteout at *path*, where upper holds nothing."""
        self._make(upper, path)

    def _make(self, layer: WritableLayer, path: bytes) -> None:
        """Make a whiteout: one more name of a device, a fifth of the work of a device on ext4.

        Kernel overlayfs does the same (fs/overlayfs/dir.c, ovl_whiteout).
        """
        if self._work is not None and self._has_device(self._work):
            try:
                self._work.link(_DEVICE, layer, path)
            except FileExistsError:
                raise
            except OSError:  # it can have no more names: link(2), EMLINK
                self._number = 0
                with contextlib.suppress(OSError):
                    self._work.unlink(_DEVICE)
            else:
                return
        self._acting.as_root()
        layer.mknod(path, stat.S_IFCHR, _NO_DEVICE)

    def _has_device(self, work: WritableLayer) -> bool:
        """Tell whether there is a device that can be given names; make it, if need be."""
        if self._number:
            return True
        try:
            st = work.find(_DEVICE)
            if st is None:
                self._acting.as_root()
                work.mknod(_DEVICE, stat.S_IFCHR, _NO_DEVICE)
                st = work.stat(_DEVICE)
        except OSError:  # ENOSPC: making the whiteout itself will fail with it
            return False
        self._number = st.st_ino if is_whiteout(st) else 0
        return self._number != 0

    def hide(self, work: WritableLayer, staged: bytes, upper: WritableLayer, path: bytes) -> bool:
        """Put a whiteout at *path* in one step, where upper holds something.

        Tell whether a directory is left at *staged*.
        """
        st = upper.stat(path)
        self._make(work, staged)
        if stat.S_ISDIR(st.st_mode):
            work.exchange(staged, upper, path)
            return True
        work.move(staged, upper, path)
        return False

    def publish(
        self, work: WritableLayer, staged: bytes, upper: WritableLayer, path: bytes
    ) -> None:
        """Put a staged object at *path*, where upper holds nothing, a whiteout or a file."""
        held = upper.find(path)
        if held is not None and stat.S_ISDIR(work.stat(staged).st_mode):
            work.exchange(staged, upper, path)
            remove_spent(work, staged)
        else:
            work.move(staged, upper, path)

    def cut_off(self, upper: WritableLayer, path: bytes) -> None:
        """Say by one mark that an upper directory shows nothing of those below it.

        It shows nothing of them already, as its whiteouts hide each name.  It is about to lose the
        whiteouts and then its place.
        """
        set_opaque(upper, path)

    def take_out(
        self,
        upper: WritableLayer,
        path: bytes,
        spent: "Sequence[os.DirEntry[bytes]]",
        st: os.stat_result,
    ) -> None:
        """Take the last whiteouts, *spent*, out of a directory that was cut off.

        It has the times of *st*, also where one of them cannot be removed.
        """
        try:
            for entry in spent:
                upper.unlink(join(path, entry.name))
        finally:
            upper.utime(path, st.st_atime_ns, st.st_mtime_ns)

    def make_opaque(self, layer: WritableLayer, path: bytes) -> None:
        """Hide the directories below *path*."""
        set_opaque(layer, path)

    def move_file(self, upper: WritableLayer, path: bytes, target: bytes, *, cover: bool) -> None:
        """Rename in upper, leaving a whiteout where something lies below (*cover*).

        At the target there may be nothing, a whiteout, or an object that the source may
        replace; each state on disk is the old one or the new one.
        """
        if cover:
            self._acting.as_root()
            upper.move_and_cover(path, upper, target)
        else:
            upper.move(path, upper, target)

    def move_directory(
        self, upper: WritableLayer, path: bytes, target: bytes, *, cover: bool
    ) -> None:
        """Rename a directory as `move_file` does, to a name that shows nothing.

        A whiteout there changes places with it.
        """
        held = upper.find(target)
        if held is None or not is_whiteout(held):
            self.move_file(upper, path, target, cover=cover)
            return
        upper.exchange(path, upper, target)
        if not cover:
            remove_spent(upper, path)


def remove_spent(layer: WritableLayer, path: bytes) -> None:
    """Remove a whiteout that hides nothing after a change; it does no harm if it stays."""
    try:
        layer.unlink(path)
    except FileNotFoundError:
        pass
    except OSError:
        log.exception("%r: a whiteout that hides nothing is left", path)


def has_whiteout_files(layer: Layer, path: bytes) -> bool:
    """Tell whether empty files with the attribute `whiteout` are whiteouts in a directory."""
    return layer.find_attribute(path, OPAQUE) == b"x"


def is_whiteout_in(directory: LayerPath, path: bytes, st: os.stat_result) -> bool:
    """Tell whether the object of *directory* at *path* is a whiteout of either kind."""
    return is_whiteout(st) or (
        directory.whiteouts_are_files and is_whiteout_file(directory.layer, path, st)
    )


def is_whiteout_file(layer: Layer, path: bytes, st: os.stat_result) -> bool:
    """Tell whether a file in a directory with opaque=x is a whiteout."""
    return (
        stat.S_ISREG(st.st_mode)
        and st.st_size == 0
        and layer.find_attribute(path, WHITEOUT) is not None
    )
