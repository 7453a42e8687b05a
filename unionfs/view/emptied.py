"""Directories known to be empty without being listed again: who removes a tree has seen all names.

A directory that was listed, and in which names were only removed since, shows
what it showed without these.  Any other change of its names ends that.
"""

from collections.abc import Mapping

from unionfs.view.node import Node

_MOST = 16  # directories: those of the last few levels of a tree
_MOST_NAMES = 256  # in each


class Emptied:
    """The directories of one union that were listed last."""

    def __init__(self) -> None:
        # the oldest first, each with the names that it showed and those of them that were removed
        self._listed: dict[Node, tuple[Mapping[bytes, int], set[bytes]]] = {}
        # what was known of the directory in which names are changing now
        self._before: tuple[Mapping[bytes, int], set[bytes]] | None = None

    def listed(self, directory: Node, names: Mapping[bytes, int]) -> None:
        """Take note of the names that a directory shows."""
        self._listed.pop(directory, None)
        if len(names) > _MOST_NAMES:
            return
        self._listed[directory] = names, set()
        if len(self._listed) > _MOST:
            del self._listed[next(iter(self._listed))]

    def changes(self, directory: Node) -> None:
        """Take note that names in a directory are about to change in any way."""
        self._before = self._listed.pop(directory, None)

    def removed(self, directory: Node, name: bytes) -> None:
        """Take note that the change just announced was the removal of *name*."""
        if self._before is None:
            return
        names, gone = self._before
        if name in names:
            gone.add(name)
        self._listed[directory] = self._before

    def is_empty(self, directory: Node) -> bool:
        """Tell whether a directory is known to show no name."""
        listed = self._listed.get(directory)
        return listed is not None and len(listed[0]) == len(listed[1])
