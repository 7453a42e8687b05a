"""A copy of a file's content under way; a thread may work on it."""

import dataclasses
import os
import threading

from unionfs.host import content
from unionfs.layers.attribute_copies import Model
from unionfs.layers.layer import LayerPath
from unionfs.view.node import Node


@dataclasses.dataclass(slots=True)
class Kept:
    """The attributes that a file filled in place shows until its content is there: `fills`."""

    size: int
    mtime_ns: int


@dataclasses.dataclass(slots=True, eq=False)
class ContentCopy:
    """A copy under way: its descriptors, and its purpose."""

    node: Node
    lower: LayerPath  # the file that holds the content
    source: int
    target: int
    staged: bytes  # empty: the content goes into the copy that upper has already
    size: int  # bytes to copy
    length: int  # bytes that the file has afterwards
    whole: bool  # all of the file is copied, so its modification time is kept
    sync: bool
    kept: Kept  # of a copy that is filled in place
    model: Model | None  # of one that is staged: what the lower was like, if it showed that
    kept_open: bool = False  # `target` is for who wants the file, once it is published
    shared: bool = False
    over: bool = False  # published or abandoned
    persisted: bool = False  # the node's side at the beginning, which it may leave: `sides`
    published: bool = False
    _filled: bool = False
    _filling: threading.Lock = dataclasses.field(default_factory=threading.Lock)

    def fill(self) -> None:
        """Copy the content; may run in a thread, and a second caller waits for the first."""
        with self._filling:
            if not self._filled:
                self._fill()
                self._filled = True

    def _fill(self) -> None:
        if not self.shared:
            content.copy(self.source, self.target, self.size)
        if self.length > self.size:
            os.ftruncate(self.target, self.length)
        if self.sync:
            content.sync(self.target)

    def close(self) -> None:
        """Close the descriptors that nobody wants; the copy is over."""
        self.over = True
        os.close(self.source)
        if not (self.published and self.kept_open):
            os.close(self.target)

    def close_kept(self) -> None:
        """Close the target that was kept open, as nobody wants it after all."""
        if self.published and self.kept_open:
            self.kept_open = False
            os.close(self.target)
