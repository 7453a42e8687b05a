"""The descriptors that are open on content in a lower layer.

A FUSE file handle is the host's descriptor itself.  A file of a lower layer that is open
when it is copied up must show what is written afterwards.  So the descriptors are
remembered by node and replaced in place with dup2(2): a handle's number never changes,
and a thread in the middle of a read simply finishes it on the old file.
"""

import fcntl
import os
from collections.abc import Iterable
from typing import TypeAlias

from unionfs.view.node import Node

Identity: TypeAlias = tuple[int, int]  # st_dev and st_ino


class LowerReaders:
    """The descriptors of one union that read lower content."""

    def __init__(self) -> None:
        self._nodes: dict[int, Node] = {}  # descriptor -> its node
        self._descriptors: dict[Node, set[int]] = {}  # node -> its descriptors

    def __len__(self) -> int:
        return len(self._nodes)

    def __contains__(self, node: Node) -> bool:
        """Tell whether *node* has readers."""
        return node in self._descriptors

    def add(self, node: Node, fd: int) -> None:
        """Remember that *fd* reads *node* in a lower layer."""
        self._nodes[fd] = node
        self._descriptors.setdefault(node, set()).add(fd)

    def discard(self, fd: int) -> None:
        """Forget a descriptor that is being closed."""
        node = self._nodes.pop(fd, None)
        if node is not None:
            descriptors = self._descriptors[node]
            descriptors.discard(fd)
            if not descriptors:
                del self._descriptors[node]

    def move(self, node: Node, upper_fd: int) -> None:
        """Let the readers of *node* go on in the upper file open as *upper_fd*."""
        for fd in self._descriptors.pop(node, ()):
            del self._nodes[fd]
            os.dup2(upper_fd, fd, inheritable=False)

    def attributes(self, node: Node) -> os.stat_result:
        """Return the attributes of the file that the readers of *node* have open."""
        return os.fstat(next(iter(self._descriptors[node])))

    def deleted(self) -> dict[Identity, list[int]]:
        """Return the descriptors of files that no name in their layer leads to any more."""
        found: dict[Identity, list[int]] = {}
        for fd in self._nodes:
            file = _deleted(fd)
            if file is not None:
                found.setdefault(file, []).append(fd)
        return found

    def replace(self, file: Identity, fds: Iterable[int], copy: int) -> None:
        """Let *fds*, which read a deleted file, go on in the file open as *copy*."""
        for fd in fds:
            if fd in self._nodes and _deleted(fd) == file:
                os.dup2(copy, fd, inheritable=False)


def _deleted(fd: int) -> Identity | None:
    """Return the identity of the open file, if it is a deleted file of a layer.

    A copy of such a file is not (`LowerReaders.replace`): no descriptor of a lower file can write.
    """
    st = os.fstat(fd)
    if st.st_nlink or fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY:
        return None
    return st.st_dev, st.st_ino
