"""The hard link index during a commit, which changes the keys of lower files.

A key holds the change time of a file (`layers/links`), and giving the file a name, or taking one
away, changes that time.  So the daemon is told the new key of each file.
"""

import contextlib
import os
import stat
from collections.abc import Iterator

from unionfs.fuse.rootattributes import RENEWED
from unionfs.layers import links, walk
from unionfs.layers.layer import Layer


class CommittedLinks:
    """The files of a lower with several names of which the commit changes some."""

    def __init__(self, union: Layer, lower: Layer) -> None:
        self._union = union  # as mounted
        self._lower = lower
        self._files: dict[bytes, int] = {}  # key -> O_PATH descriptor

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep the noted files open for the length of the block."""
        try:
            yield
        finally:
            for fd in self._files.values():
                os.close(fd)
            self._files.clear()

    def note(self, path: bytes) -> None:
        """Take note of the files with several names at *path*, or below it, that will change."""
        st = self._lower.find(path)
        if st is None:
            return
        if not stat.S_ISDIR(st.st_mode):
            self._note(path, st)
            return
        for inner, _ in walk.non_directories(self._lower, path):
            self._note(inner, self._lower.stat(inner))

    def _note(self, path: bytes, st: os.stat_result) -> None:
        key = links.key(self._lower, st)
        if st.st_nlink > 1 and key not in self._files:
            self._files[key] = self._lower.hold(path)

    def renew(self) -> None:
        """Tell the daemon the keys that have changed since the last time."""
        for old, fd in [*self._files.items()]:
            new = links.key(self._lower, os.fstat(fd))
            if new == old:
                continue
            os.setxattr(self._union.fd, RENEWED, old + b" " + new)
            self._files[new] = self._files.pop(old)
