"""What a change of names has to see to: copies, link counts, pins, and where what lies below is.

Shared by `changes` and `renames`.  Nothing here changes what the union shows.
"""

import errno
import logging
import os
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from unionfs.changes import protection
from unionfs.changes.copyup import CopyUp
from unionfs.layers import markers
from unionfs.layers.iflags import IMMUTABLE
from unionfs.layers.layer import WritableLayer, join
from unionfs.layers.staging import keep_times
from unionfs.view.lookup_result import LookupResult
from unionfs.view.node import Node, child_path, passing
from unionfs.view.union import Union

log = logging.getLogger(__name__)


class Most(NamedTuple):
    """How much of a directory is copied up at most at once: everybody waits meanwhile."""

    names: int
    size: int  # bytes


# Because a name is too long for a whiteout: it takes a second or two.
_FOR_LONG_NAMES = Most(1000, 64 << 20)
# Because what persists is renamed: each file of it is synced, and mv(1) can do it as well.
FOR_STATE = Most(100, 16 << 20)


def error(number: int) -> OSError:
    """Return the error of a system call."""
    return OSError(number, os.strerror(number))


class Names:
    """The names of one union in upper."""

    def __init__(self, union: Union, copyup: CopyUp) -> None:
        self.union = union
        self.upper = union.upper
        self._longest = union.whiteouts.longest
        self.copyup = copyup

    def directory(self, parent: Node) -> WritableLayer:
        """Bring a directory, in which a name is to change, up, and return upper's layer.

        ENOENT in a deleted directory, EPERM in an immutable one.
        """
        layer = self.upper.layer
        if parent.orphan:
            raise error(errno.ENOENT)
        if parent.protection or not parent.upper:
            protection.require(self.union, parent, IMMUTABLE)
        if not parent.upper:
            self.copyup.directories(parent)
        self.union.known.names_change(parent)
        return layer

    def give_name(self, node: Node, parent: Node, name: bytes) -> None:
        """Link a file of the link index under its lower name, unless copy-up chose that name.

        Nothing that is seen changes: the directory, which is on upper, keeps its times.
        """
        upper, work, path = self.upper.layer, self.upper.work, child_path(parent, name)
        if upper.find(path) is not None:
            return
        entry = self.upper.links.path(node.link)
        try:
            markers.prepare_links(work, entry, node.links, node.links - 1)
            before = upper.stat(parent.path)
            work.link(entry, upper, path)
            keep_times(upper, parent.path, before)
        except BaseException:
            self.upper.links.settle(node.link)
            raise
        node.links -= 1
        self.upper.links.settle(node.link)

    def counted(self, parent: Node, name: bytes, result: LookupResult) -> LookupResult:
        """See that removing a name of a lower file with several is counted, in the same step.

        The file is copied up, and the name given to the copy in upper, whose st_nlink then
        counts.  Kernel overlayfs does the first with index=on (fs/overlayfs/util.c,
        ovl_nlink_start).
        """
        if not result.named and (result.st.st_nlink > 1 or result.link):
            with self.union.nodes.held(parent, name, result) as node:
                self.copyup.metadata(node)
                if node.link:
                    self.directory(parent)
                    self.give_name(node, parent, name)
            result = self.union.lookup.require(parent, name)
        if result.link:
            self.upper.links.require_settled(result.link)
        return result

    def bring_tree(self, node: Node) -> None:
        """Copy a directory up with all that it shows, for want of redirects; then hide the lower.

        Nothing that is seen changes, at no step.
        """
        brought: list[Node] = []  # each before those that are in it
        pending = [node]
        node.lookups += 1  # all of them stay until this is done
        try:
            while pending:
                brought.append(pending.pop())
                self._bring_content(brought[-1], pending)
            for directory in reversed(brought):
                self._hide_lower(directory)
        finally:
            node.lookups -= 1
            for directory in reversed((brought + pending)[1:]):
                self.union.nodes.forget(directory.ino, 1)

    def _bring_content(self, directory: Node, pending: list[Node]) -> None:
        """Copy a directory up, and the files in it; add the directories that are to follow."""
        self.copyup.directories(directory)
        nodes = self.union.nodes
        for name in self.union.listing(directory):
            with nodes.held(directory, name, self.union.lookup.require(directory, name)) as child:
                if child.is_directory and child.lowers:
                    child.lookups += 1
                    pending.append(child)
                elif not child.is_directory:
                    self.copyup.whole(child)
                    if child.link:
                        self.give_name(child, directory, name)

    def _hide_lower(self, directory: Node) -> None:
        """Make a directory opaque that shows nothing any more that is not in upper."""
        shown = self.union.listing(directory)
        layer, path = self.upper.place(directory)
        st = layer.stat(path)
        spent = {entry.name for entry in layer.scan(path)}.difference(shown)
        self.union.whiteouts.make_opaque(layer, path)
        self._stands_alone(directory)
        try:
            for name in spent:
                layer.unlink(join(path, name))
            markers.end_redirect(layer, path)
            layer.utime(path, st.st_atime_ns, st.st_mtime_ns)
        except OSError:  # it is opaque: they say nothing any more
            log.exception("%r keeps whiteouts or a redirect", path)

    def look_again(self, node: Node, parent: Node, name: bytes) -> None:
        """Take note of what a directory shows now: a step could perhaps not be undone."""
        try:
            result = self.union.lookup.require(parent, name)
        except OSError:
            log.exception("%r: what it shows of the lowers is not known", child_path(parent, name))
            return
        node.below, node.redirect = result.below, result.redirect

    @staticmethod
    def _stands_alone(node: Node) -> None:
        """Take note that a directory shows nothing of a lower any more, by what is on disk."""
        node.below, node.redirect = (), b""

    def make_way(
        self,
        node: Node | None,
        path: bytes,
        st: os.stat_result,
        spent: Sequence["os.DirEntry[bytes]"],
    ) -> None:
        """Take the last whiteouts, *spent*, out of a directory in upper that shows nothing.

        So another can take its place.  It shows nothing at each step, has the times of *st*, and
        goes on so where a step fails: nothing is to be undone.
        """
        upper = self.upper.layer
        self.union.whiteouts.cut_off(upper, path)
        if node is not None:
            self._stands_alone(node)
        self.union.whiteouts.take_out(upper, path, spent, st)

    def make_removable(self, names: Iterable[tuple[Node, bytes]]) -> bool:
        """See that *names* can be taken away, also those that are too long to have a whiteout.

        Then all that the directory of one shows is brought to upper, and hides the lower: nothing
        that is seen changes.  Say whether that was done; ENAMETOOLONG where it would be too much.
        """
        changed = False
        for parent, name in names:
            if len(name) > self._longest and self.union.lookup.shows_below(parent, name):
                self.require_little(parent, _FOR_LONG_NAMES, errno.ENAMETOOLONG)
                self.directory(parent)
                self.bring_tree(parent)
                changed = True
        return changed

    def require_little(self, directory: Node, most: Most, number: int) -> None:
        """Raise error *number* where a directory with all that it shows is more than *most*."""
        names = size = 0
        pending = [directory]
        while pending:
            node = pending.pop()
            for name in self.union.listing(node):
                result = self.union.lookup.require(node, name)
                names += 1
                size += result.st.st_size if result.below else 0
                if names > most.names or size > most.size:
                    raise error(number)
                if result.is_directory and result.below:
                    pending.append(passing(result, node, name))

    def anchor(self, node: Node, *, absolute: bool) -> None:
        """Say on disk where the lower part of *node* is, before its name changes.

        Within the same parent the old name will do; else it is a path from the root
        of the union (overlayfs.rst, "redirect_dir").  Where that is too long for the
        host, nothing is left in the lower.
        """
        if not node.below or node.redirect.startswith(b"/") or (node.redirect and not absolute):
            return
        redirect = node.lower_path if absolute else node.name
        layer, path = self.upper.place(node)
        try:
            markers.set_redirect(layer, path, redirect)
        except OSError as exc:
            if not markers.is_too_long(exc, redirect):
                raise
        else:
            node.redirect = redirect
            return
        if node.is_directory:
            self.bring_tree(node)
        else:
            self.copyup.whole(node)

    def pin(self, node: Node | None, result: LookupResult, path: bytes) -> Node | None:
        """Pin what is about to lose its last known name in upper, while the kernel knows it.

        Return it if it was pinned by this; `unpin` it if it keeps its name.
        """
        if node is None or not result.named or node.link or node.pin >= 0 or node.aliases:
            return None
        upper = self.upper.layer
        node.pin = upper.hold(path)
        return node

    @staticmethod
    def unpin(node: Node | None) -> None:
        """Let go of the pin of a node that has a name, if there is one."""
        if node is not None and node.pin >= 0:
            os.close(node.pin)
            node.pin = -1

    def removed(self, parent: Node, name: bytes, result: LookupResult, node: Node | None) -> None:
        """Bring the link count and the node table up to date after a name is gone."""
        if result.link:
            try:
                self._lost_link(result, node)
            except OSError:
                log.exception("%r: its index entry is left", child_path(parent, name))
        if node is not None:
            self.union.nodes.detach(node, parent, name)

    def _lost_link(self, result: LookupResult, node: Node | None) -> None:
        """Remove the index entry of a file that no name shows any more."""
        work = self.upper.work
        path = self.upper.links.path(result.link)
        if work.stat(path).st_nlink + markers.read(work, path).links > 0:
            return
        if node is not None:
            node.pin, node.link = work.hold(path), b""
        self.upper.links.remove(result.link)
