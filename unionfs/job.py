"""A copy of a file's content under way; what is done to it may be done by a thread."""

import dataclasses
import os

from unionfs import content, durability
from unionfs.node import Node
from unionfs.whiteouts import Part


@dataclasses.dataclass(slots=True, eq=False)
class Job:
    """A copy under way: its descriptors, and what it was begun for."""

    node: Node
    part: Part  # the lower file that holds the content
    source: int
    target: int
    staged: bytes  # empty: the content goes into the copy that upper has already
    size: int  # bytes to copy
    length: int  # bytes that the file has then
    whole: bool  # all of the file, so that its modification time is kept
    sync: bool
    st: os.stat_result | None = None  # of a copy that is filled in place
    shared: bool = False
    published: bool = False

    def fill(self) -> None:
        """Copy the content; may run in a thread."""
        if not self.shared:
            content.copy(self.source, self.target, self.size)
        if self.length > self.size:
            os.ftruncate(self.target, self.length)
        if self.sync:
            durability.sync(self.target)

    def close(self) -> None:
        """Close both descriptors."""
        os.close(self.source)
        os.close(self.target)
