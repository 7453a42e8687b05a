"""The kernel's likely next request, made ready while the client is busy with its last reply.

Two requests can be foreseen.  After each change of names the kernel asks for the
attributes of the directory before it lets anybody change it again (the attributes that
the kernel has are out of date: fs/fuse/dir.c, fuse_perm_getattr).  And a program that
walks a tree lists the first directory below the one that was just listed, then the next.

Attributes are used only if nothing has changed since (`Known.revision`).  Content
changes without a new revision, and with passthrough without our knowing; so only
directories that lie in lowers alone are listed ahead.  These stay as they are until they
are copied up: a name or a file that changes is in upper, and so are the directories above
it.  (A file with several names may have been copied up under another name: then its
attributes are read again.)

The work is done in small steps, between which requests are looked for: `step`.
"""

import os
import stat
from collections.abc import Callable, Iterator, Sequence

from unionfs.layers.far import Ask
from unionfs.view.listings import Listed, Listings
from unionfs.view.node import Node
from unionfs.view.union import Union

# Bytes of a directory up to which it is listed ahead: one block of ext4.  A large one takes long to
# list, and its listing takes several requests.
_SMALL = 4096

# Directories that may be listed next, at most: those of the last few levels of a walk.
_MOST = 64

# Unused listings after which none is made any more, until one would have been right.
_TRUST = 4


class _Prepared:
    """A listing that is being made."""

    __slots__ = ("entries", "node", "rest")

    def __init__(self, node: Node, rest: Iterator[Listed]) -> None:
        self.node = node
        self.rest: Iterator[Listed] | None = rest  # None: it is complete
        self.entries: list[Listed] = []  # their nodes are counted as looked up, so that they stay

    @property
    def holds(self) -> bool:
        """Tell whether the directory is still as it was."""
        return not self.node.upper and not self.node.orphan

    def step(self) -> None:
        """Look one more entry up, if there is one."""
        entry = next(self.rest, None) if self.rest is not None else None
        if entry is None:
            self.rest = None
            return
        entry[1].lookups += entry[2] is not None
        self.entries.append(entry)


class Foresight:
    """The answers made ready for one mount."""

    def __init__(
        self, union: Union, listings: Listings, forget: Callable[[int, int], None]
    ) -> None:
        """Take also what is to be called with the number of a node and look-ups to take back."""
        self._union = union
        self._listings = listings
        self._forget = forget
        # one directory's attributes, read ahead: the revision when read, the directory, attributes
        self._attributes: tuple[int, Node, os.stat_result] | None = None
        # the listing that was sent last: its directory, the revision when read, its entries
        self._sent: tuple[Node, int, list[Listed]] | None = None
        self._next: list[Node] = []  # directories to be listed, the first one last
        self._prepared: _Prepared | None = None
        self._trust = 1

    def step(self) -> bool:
        """Make something ready that takes a few microseconds; say False when there is nothing."""
        try:
            return self._foresee_attributes() or self._go_on() or self._begin()
        except OSError:  # the request itself will get the error
            self._discard()
        except Ask:  # nobody has asked for it yet
            self._discard()
            self._next.clear()
        return False

    def _go_on(self) -> bool:
        """Look up one more entry of the listing that is being made."""
        prepared = self._prepared
        if prepared is None:
            return False
        if not prepared.holds:
            self._waste()
            return False
        if prepared.rest is None:
            return False
        prepared.step()
        return True

    def _begin(self) -> bool:
        if self._prepared is not None or not self._next or not self._trust:
            return False
        node = self._next[-1]
        if self._union.nodes.get(node.ino) is not node:  # forgotten by the kernel
            self._next.clear()
            return False
        prepared = _Prepared(node, self._listings.read(node, 0))
        if not prepared.holds:  # reading one in upper would change its time of access
            return False
        self._prepared = prepared
        return True

    # Attributes of a directory

    def _foresee_attributes(self) -> bool:
        union, node = self._union, self._union.known.changed
        union.known.changed = None
        if node is None or node.orphan:
            return False
        self._attributes = union.known.revision, node, union.attributes(node)
        return True

    def will_list(self) -> None:
        """Take note that a directory is listed, which changes the time of access to it."""
        self._attributes = None

    def attributes(self, node: Node) -> os.stat_result:
        """Return the attributes of *node*, as `Union.attributes`."""
        foreseen = self._attributes
        if foreseen is not None and foreseen[1] is node:
            self._attributes = None
            if foreseen[0] == self._union.known.revision:
                return foreseen[2]
        return self._union.attributes(node)

    # Listings

    def listing(self, node: Node) -> Sequence[Listed] | None:
        """Return the entries of a directory, if they are ready; None where not."""
        again = self._sent_again(node)
        if again is not None:
            return again
        self._judge(node)
        prepared = self._prepared
        if prepared is None:
            return None
        if prepared.node is not node or not prepared.holds:
            self._waste()
            return None
        try:
            while prepared.rest is not None:
                prepared.step()
            entries = [self._renewed(entry) for entry in prepared.entries]
        except (OSError, Ask):
            self._discard()
            return None
        if any(entry[1].superseded for entry in entries):  # the name has another node by now
            self._discard()
            return None
        self._prepared = None
        for entry in prepared.entries:
            entry[1].lookups -= entry[2] is not None
        return entries

    def _sent_again(self, node: Node) -> Sequence[Listed] | None:
        """Return the listing sent last, if it was of the same directory: rm(1) asks twice."""
        sent, self._sent = self._sent, None
        if sent is None or sent[0] is not node or sent[1] != self._union.known.revision:
            return None
        nodes = self._union.nodes
        if any(nodes.get(entry[1].ino) is not entry[1] for entry in sent[2]):
            return None  # the kernel has forgotten some
        return [self._renewed(entry) for entry in sent[2]]

    def _judge(self, node: Node) -> None:
        """Compare the request that was expected with the one that came."""
        if not self._next or self._next[-1] is not node:
            self._next.clear()
            return
        self._next.pop()
        self._trust = min(self._trust + 1, _TRUST)

    def _waste(self) -> None:
        self._trust = max(self._trust - 1, 0)
        self._discard()

    def _renewed(self, entry: Listed) -> Listed:
        """Read the attributes of entries that may have been written to since."""
        name, node, st, after = entry
        if st is None or not node.upper:
            return entry
        return name, node, self._union.attributes(node), after

    def listed(self, directory: Node, entries: list[Listed]) -> None:
        """Take note of a listing that was sent from its beginning."""
        small = [
            node
            for _, node, st, _ in reversed(entries)
            if st is not None and node.format == stat.S_IFDIR and st.st_size <= _SMALL
        ]
        self._next = (self._next + small)[-_MOST:]
        self._sent = directory, self._union.known.revision, entries

    def _discard(self) -> None:
        """Let go of the listing, and of nodes that were made for it alone."""
        prepared, self._prepared = self._prepared, None
        for entry in prepared.entries if prepared is not None else ():
            if entry[2] is not None:
                self._forget(entry[1].ino, 1)
