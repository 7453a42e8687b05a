"""The hard link index: which file in upper stands for all names of a lower one.

A lower file with several names is copied up once, and the copy gets an entry
in `work/unionfs/links` beside its name in upper: a hard link whose name is the
key of the lower file.  The other names still lie in the lower only; a look-up of one
finds the entry, and so the copy.  (Kernel overlayfs keeps such an index with `index=on`;
without that, the kernel sees the old content under those names.)

The key holds the number, from the bottom, of the lowest layer on the file's file
system, the inode number and the change time.  So an entry is never taken for a file
of another, newer lower.
"""

import errno
import logging
import os
import re
import stat

from unionfs.layers import markers
from unionfs.layers.layer import Layer, WritableLayer, join

log = logging.getLogger(__name__)

DIRECTORY = b"unionfs/links"
DIRECTORIES = (b"unionfs", DIRECTORY)

_KEY = re.compile(rb"[0-9a-f]+-[0-9a-f]+-[0-9a-f]+")


def key(layer: Layer, st: os.stat_result) -> bytes:
    """Return the key of a lower file: one for all names, in all layers on its file system."""
    return _key(layer.family, st)


def _key(number: int, st: os.stat_result) -> bytes:
    return b"%x-%x-%x" % (number, st.st_ino, st.st_ctime_ns)


def is_key(text: bytes) -> bool:
    """Tell whether *text* has the form of a key."""
    return _KEY.fullmatch(text) is not None


def may_be_of(entry: bytes, layers: int) -> bool:
    """Tell whether a key may stand for a file of one of *layers* lowers; 0: not known how many."""
    return not layers or 0 < int(entry.split(b"-")[0], 16) <= layers


def is_usable(work: Layer) -> bool:
    """Tell whether work has an index, and no symlink in its place."""
    found = map(work.find, DIRECTORIES)
    return all(st is not None and stat.S_ISDIR(st.st_mode) for st in found)


class LinkIndex:
    """The entries of `work/unionfs/links`, their names kept in memory."""

    def __init__(self, work: WritableLayer) -> None:
        self.work = work
        self._unsettled: set[bytes] = set()  # entries of which the end of a change failed
        self._keys = {entry.name for entry in work.scan(DIRECTORY)}
        for entry in self._keys:
            self.settle(entry)

    def __contains__(self, entry: bytes) -> bool:
        return entry in self._keys

    def __bool__(self) -> bool:
        return bool(self._keys)

    def find(self, layer: Layer, st: os.stat_result) -> bytes:
        """Return the entry of a lower file, b"" where there is none.

        Older keys are of one layer each, even where several layers lie on one file system.
        """
        for entry in (_key(layer.number, st), key(layer, st)):
            if entry in self._keys:
                return entry
        return b""

    @staticmethod
    def path(entry: bytes) -> bytes:
        """Return the path of an entry in work."""
        return join(DIRECTORY, entry)

    def paths(self) -> list[bytes]:
        """Return the paths of all entries in work."""
        return [self.path(entry) for entry in self._keys]

    def add(self, staged: bytes, entry: bytes) -> None:
        """Enter the file staged in work."""
        self.work.link(staged, self.work, self.path(entry))
        self._keys.add(entry)

    def renew(self, old: bytes, new: bytes) -> bool:
        """Let an entry have the key that its lower file has now; say whether there is one."""
        if old not in self._keys:
            return False
        markers.set_link(self.work, self.path(old), new)
        self.work.move(self.path(old), self.work, self.path(new))
        for entries in (self._keys, self._unsettled):
            if old in entries:
                entries.remove(old)
                entries.add(new)
        return True

    def settle(self, entry: bytes) -> None:
        """End a change of an entry's link count; where this fails, the next mount does it."""
        try:
            self._settle(entry)
        except OSError:
            self._unsettled.add(entry)
            log.exception("the link count of %r is settled at the next mount", entry)

    def require_settled(self, entry: bytes) -> None:
        """Settle an unsettled entry before a name goes: st_nlink would be what it was before."""
        if entry in self._unsettled:
            self._settle(entry)

    def _settle(self, entry: bytes) -> None:
        markers.settle_links(self.work, self.path(entry))
        self._unsettled.discard(entry)

    def remove(self, entry: bytes) -> None:
        """Remove an entry; the file lives on under its other names."""
        try:
            self.work.unlink(self.path(entry))
        except OSError as exc:
            if exc.errno != errno.ENOENT:
                raise
        self._keys.discard(entry)
        self._unsettled.discard(entry)
