"""Files of state that have names in scratch, too: hard links across the sides of a union.

As long as a file has a name that persists, it lives in state.  Its names in scratch are links of a
*placeholder*, a file of scratch without content.  A look-up of such a name finds the file in state.
Scratch is empty after a reboot, so only memory tells which placeholder stands for which file.

A placeholder has a node of scratch, which the kernel does not know.  Both nodes are held.
"""

from unionfs.view.node import Node


class Twins:
    """The files of one union that have placeholders."""

    def __init__(self) -> None:
        self._files: dict[Node, Node] = {}  # placeholder -> its file
        self._placeholders: dict[Node, Node] = {}  # file -> its placeholder

    def __len__(self) -> int:
        return len(self._files)

    def file(self, node: Node) -> Node:
        """Return the file that a node stands for, mostly itself."""
        return self._files.get(node, node)

    def has(self, file: Node) -> bool:
        """Tell whether a file has a placeholder."""
        return file in self._placeholders

    def placeholder(self, file: Node) -> Node | None:
        """Return the placeholder of a file, None where it has none."""
        return self._placeholders.get(file)

    def add(self, file: Node, placeholder: Node) -> None:
        """Let *placeholder* stand for *file*."""
        self._files[placeholder] = file
        self._placeholders[file] = placeholder
        file.lookups += 1
        placeholder.lookups += 1

    def part(self, file: Node, placeholder: Node) -> None:
        """Let *placeholder* stand for *file* no more."""
        del self._files[placeholder], self._placeholders[file]
        file.lookups -= 1
        placeholder.lookups -= 1

    def nameless(self) -> list[Node]:
        """Return the placeholders of which no name is known."""
        return [placeholder for placeholder in self._files if placeholder.orphan]
