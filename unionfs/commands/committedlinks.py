"""The hard link index beside a commit, which changes the lower files that it knows by their keys.

A key holds the change time of a file (`layers/links`), and who gives a file a name, or takes one
away, changes that.  So the daemon is told the new key of each.
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
        """Keep in mind what is noted, as long as this lasts."""
        try:
            yield
        finally:
            for fd in self._files.values():
                os.close(fd)
            self._files.clear()

    def note(self, path: bytes) -> None:
        """Take note of what has several names among what is at *path*, which is to change."""
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
        """Tell the daemon of the keys that are new since it was told last."""
        for old, fd in [*self._files.items()]:
            new = links.key(self._lower, os.fstat(fd))
            if new == old:
                continue
            os.setxattr(self._union.fd, RENEWED, old + b" " + new)
            self._files[new] = self._files.pop(old)
