"""The staging area `work/work`: objects under way, and nothing else.

Names there are numbers.  The area is emptied when a union is made, so leftovers of a
killed daemon are gone with the next mount.  Kernel overlayfs has the same place, and
empties it, too (fs/overlayfs/super.c, ovl_workdir_create).
"""

import collections
import itertools
import logging
import os
import re
import stat

from unionfs.layers.layer import WritableLayer, join

DIRECTORY = b"work"
INCOMPATIBLE = b"incompat"  # kernel overlayfs does not mount if it does not know what is in it

# Names that may wait to be removed: a few milliseconds of work.
_MOST_LEFT = 512

BLOCKS = b"unionfs-blocks"  # says that upper has files in part: `incomplete`

_NUMBERED = re.compile(rb"#([0-9a-f]+)")

log = logging.getLogger(__name__)

_LEFT = "%r is left in work until the next mount"


def keep_times(layer: WritableLayer, directory: bytes, before: os.stat_result) -> None:
    """Give a directory, in which a copy has got its name, the times that it had *before*."""
    try:
        layer.utime(directory, before.st_atime_ns, before.st_mtime_ns)
    except OSError:  # the name is there: no error may say otherwise
        log.exception("%r: its times are those of the copy-up", directory)


class Staging:
    """Names for objects being staged, their publishing and their removal."""

    def __init__(self, work: WritableLayer) -> None:
        self.work = work
        self._numbers = itertools.count()
        self._empty()
        self._defers = False
        # Directories that nobody sees any more, each with the names that are still in it.
        self._left: collections.deque[tuple[bytes, list[bytes]]] = collections.deque()
        self._many = 0  # of these names

    def name(self) -> bytes:
        """Return the path in work of a name not yet taken."""
        return b"%s/#%x" % (DIRECTORY, next(self._numbers))

    def publish(self, path: bytes, layer: WritableLayer, directory: bytes, name: bytes) -> None:
        """Move a staged object to a *directory* of *layer*, which keeps its times."""
        before = layer.stat(directory)
        self.work.move(path, layer, join(directory, name))
        keep_times(layer, directory, before)

    def drop(self, path: bytes) -> bool:
        """Remove a staged object that nobody needs any more, as `discard`; say False if it stays.

        This is for the end of a change, and for undoing one: no error may hide how it went.
        """
        try:
            self.discard(path)
        except OSError:
            log.exception(_LEFT, path)
            return False
        return True

    def discard(self, path: bytes) -> None:
        """Remove a staged object, whatever it is; no error where there is none."""
        st = self.work.find(path)
        if st is None:
            return
        if stat.S_ISDIR(st.st_mode):
            self._take_apart(path)
        else:
            self.work.unlink(path)

    def defer_removals(self) -> None:
        """Let `leave` put the work off: `tidy` is called when there is nothing else to do."""
        self._defers = True

    def leave(self, path: bytes) -> None:
        """Remove a staged directory of whiteouts, when there is time for it.

        The directory was taken out of upper when it was removed.  What cannot be removed from
        work stays until the next mount.
        """
        try:
            self._leave(path)
        except OSError:
            log.exception(_LEFT, path)

    def _leave(self, path: bytes) -> None:
        if not self._defers:
            self.discard(path)
            return
        names, deep = [], False
        for entry in self.work.scan(path):
            names.append(entry.name)
            deep = deep or entry.is_dir(follow_symlinks=False)
        if deep or self._many + len(names) > _MOST_LEFT:
            self.discard(path)
            return
        self._left.append((path, names))
        self._many += len(names)

    def tidy(self) -> bool:
        """Remove one name of the directories left; say False where there is none.

        What cannot be removed stays until the next mount.
        """
        if not self._left:
            return False
        path, names = self._left[0]
        try:
            if names:
                self._many -= 1
                st = self.work.stat(path)
                self.work.unlink(join(path, names.pop()))
                # A program that has the directory open sees the times it had when it was removed.
                self.work.utime(path, st.st_atime_ns, st.st_mtime_ns)
            else:
                self._left.popleft()
                self.work.rmdir(path)
        except OSError:
            log.exception(_LEFT, path)
        return True

    def _empty(self) -> None:
        """Remove what a killed daemon left behind, or a kernel overlay."""
        entries = list(self.work.scan(DIRECTORY))
        taken = [int(found[1], 16) for e in entries if (found := _NUMBERED.fullmatch(e.name))]
        self._numbers = itertools.count(max(taken, default=-1) + 1)
        for entry in entries:
            if entry.name != INCOMPATIBLE:
                self.discard(join(DIRECTORY, entry.name))
        self._empty_incompatible()

    def _empty_incompatible(self) -> None:
        """Remove what a kernel overlay left there; the sign of partial copies stays."""
        directory = join(DIRECTORY, INCOMPATIBLE)
        if self.work.find(directory) is None:
            return
        names = {entry.name for entry in self.work.scan(directory)}
        for name in names - {BLOCKS}:
            self.discard(join(directory, name))
        if BLOCKS not in names:
            self.discard(directory)

    def _take_apart(self, path: bytes) -> None:
        """Remove a directory and all that is in it.

        Directories come up first, so no path gets long, however deep they were.
        """
        pending, st = [path], self.work.stat(path)
        while pending:
            at = pending.pop()
            for entry in self.work.scan(at):
                inner = join(at, entry.name)
                if entry.is_dir(follow_symlinks=False):
                    pending.append(self.name())
                    self.work.move(inner, self.work, pending[-1])
                else:
                    self.work.unlink(inner)
            if at == path:  # as in `tidy`
                self.work.utime(path, st.st_atime_ns, st.st_mtime_ns)
            self.work.rmdir(at)
