"""Open files: a FUSE file handle is the host's descriptor itself.

A file of a lower layer that is open when it is copied up must show what is
written afterwards.  Such descriptors are remembered by node and replaced in
place with dup2(2), so that a handle's number never changes and a thread in the
middle of a read simply finishes it on the old file.
"""

import dataclasses
import os

from unionfs.view.node import Node


class LowerReaders:
    """The descriptors that are open on content in a lower layer."""

    def __init__(self) -> None:
        self._nodes: dict[int, Node] = {}  # descriptor -> its node
        self._descriptors: dict[Node, set[int]] = {}  # node -> its descriptors

    def __len__(self) -> int:
        return len(self._nodes)

    def __contains__(self, node: Node) -> bool:
        """Tell whether there are any of *node*."""
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


@dataclasses.dataclass(slots=True)
class OpenFile:
    """What is known of one descriptor handed to the kernel as a file handle."""

    node: Node
    through: bool  # the kernel passes its data to the backing file
    writes: bool  # opened for writing
