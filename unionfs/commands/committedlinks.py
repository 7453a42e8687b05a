"""The hard link index beside a commit, which changes the lower files that it knows by their keys.

A key holds the change time of a file (`layers/links`), and who gives a file a name, or takes one
away, changes that.  So the daemon is told the new key of each.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator

from unionfs.fuse.rootattributes import RENEWED
from unionfs.layers import links
from unionfs.layers.layer import Layer


class CommittedLinks:
    """The files of a lower that had several names before the commit."""

    def __init__(self, union: Layer, lower: Layer) -> None:
        self._union = union  # as mounted
        self._lower = lower
        self._files: dict[bytes, int] = {}  # key -> O_PATH descriptor

    @contextlib.contextmanager
    def held(self, files: Iterable[bytes]) -> Iterator[None]:
        """Keep in mind which of *files* have several names."""
        try:
            for path in files:
                st = self._lower.stat(path)
                if st.st_nlink > 1 and links.key(self._lower, st) not in self._files:
                    self._files[links.key(self._lower, st)] = self._lower.hold(path)
            yield
        finally:
            for fd in self._files.values():
                os.close(fd)
            self._files.clear()

    def renew(self) -> None:
        """Tell the daemon of the keys that are new since it was told last."""
        for old, fd in [*self._files.items()]:
            new = links.key(self._lower, os.fstat(fd))
            if new == old:
                continue
            os.setxattr(self._union.fd, RENEWED, old + b" " + new)
            self._files[new] = self._files.pop(old)
