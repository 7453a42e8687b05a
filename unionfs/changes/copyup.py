"""Bringing an object of a lower layer to upper: stage in work, publish by one rename.

What others see does not change by it: owner, mode, times, attributes and the
times of the parent directory are those of before.  A crash leaves the lower
object or the whole copy.

`metadata` brings a node up without its content where it can (overlayfs.rst,
"Metadata only copy up"); `begin`, `ContentCopy.fill` and `publish` bring the content,
in three steps so that the second can run in a thread while other requests are
served: it knows only descriptors, and `publish` looks again.
"""

import itertools
import logging
import os
import stat
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from unionfs.changes import staged_copies
from unionfs.changes.partial_copies import LEAST, PartialCopies
from unionfs.changes.staged_copies import StagedCopies, model_of
from unionfs.host import content, syscalls
from unionfs.layers import markers
from unionfs.layers.attribute_copies import Model
from unionfs.layers.descent import stale, stat_file
from unionfs.layers.layer import LayerPath
from unionfs.view.content_copy import ContentCopy, Kept
from unionfs.view.node import UNKNOWN_COPY, Node

if TYPE_CHECKING:
    from unionfs.view.union import Union

log = logging.getLogger(__name__)


class _Target(NamedTuple):
    """The file that content is copied to, opened for that."""

    fd: int
    staged: bytes = b""  # its path in work; empty: it has its place in upper
    is_whole: bool = False  # it has the content already


class CopyUp:
    """The copy-up of one union."""

    def __init__(self, union: "Union") -> None:
        self.union = union
        self.upper = union.upper
        self._copies = StagedCopies(union)
        self._numbers = itertools.count(UNKNOWN_COPY + 1)
        self._shares = bool(union.upper) and not syscalls.never_shares(union.upper.work.fd)
        # A tmpfs has no disk to wait for.
        self.syncs = (
            bool(union.upper)
            and union.features.fsync != "off"
            and not syscalls.is_tmpfs(union.upper.work.fd)
        )
        lasts = bool(union.upper) and not union.features.volatile
        self.partials = PartialCopies(union, syncs=self.syncs, lasts=lasts)

    def count(self) -> int:
        """Return the number of a copy-up: one more than the last, as a sync may be under way."""
        return next(self._numbers)

    def foresee(self, node: Node) -> None:
        """Ask far layers for all that *node*, and bringing it up, takes, before anything changes.

        That is for what is not undone, or shows, when `Ask` is raised in between.
        """
        if not self.union.far:
            return
        if self.union.has_lower_content(node):
            layer, path, _ = node.lowers[-1]
            layer.stat(path)
        at: Node | None = node
        while at is not None and not at.upper:
            staged_copies.foresee(at)
            at = at.parent if not at.orphan else None

    def foresee_content(self, node: Node, size: int | None = None) -> None:
        """Do so, and have the first *size* bytes of the content near, for `begin`."""
        self.foresee(node)
        far = self.union.far_content(node)
        if far is not None:
            layer, path = far
            layer.foresee_content(path, size)

    def metadata(self, node: Node) -> None:
        """Bring *node* to upper; the content of a file may stay where it is."""
        if node.upper:
            return
        if node.format == stat.S_IFREG and not self._can_leave_content(node):
            self.whole(node)
            return
        try:
            self._bring(node)
        except OSError as exc:
            if not (
                node.format == stat.S_IFREG and markers.is_too_long(exc, self._content_path(node))
            ):
                raise
            self.whole(node)

    def whole(self, node: Node, size: int | None = None) -> bool:
        """Bring *node* to upper with its content, or with its first *size* bytes.

        Say False where it has another size still.
        """
        if not self.union.has_lower_content(node):
            self.metadata(node)
            return False
        if node.partial:
            self._rest(node, size)
            return size is not None
        running = self.upper.fills.get(node)  # by a thread: two would write to one file
        copy = self.begin(node, size) if running is None or running.over else running
        try:
            copy.fill()
        except BaseException:
            self.abandon(copy)
            raise
        self.publish(copy)
        return copy is not running

    def _rest(self, node: Node, size: int | None) -> None:
        """Bring the content, up to *size* bytes, that a partial copy has not got yet."""
        if size is not None:
            self.partials.cut(node, size)
        if node.partial:
            self.partials.bring(node)

    def cuts_by_blocks(self, node: Node, size: int) -> bool:
        """Tell whether a file that is cut to *size* leaves its content in the lower."""
        return node.partial or (size >= LEAST and self.partials.suits(node))

    def by_blocks(self, node: Node) -> bool:
        """Bring *node* to upper so that its content follows as it is written; no: it came whole."""
        self.metadata(node)
        if not self.union.has_lower_content(node):
            return False
        try:
            self.partials.begin(node)
        except OSError as exc:
            if not markers.has_no_room(exc):
                raise
            self.whole(node)  # its map is too long for upper; or that is full, and says so again
            return False
        return True

    def _can_leave_content(self, node: Node) -> bool:
        return self.union.features.metacopy and self.union.attributes(node).st_size > 0

    # Objects without content

    def _bring(self, node: Node) -> None:
        work, parent = self.upper.work, node.parent
        self.foresee(node)
        if parent is not None and not parent.upper and not node.orphan:
            self.directories(parent)
        staged = self.upper.staging.name()
        lowers, is_file = node.lowers, node.format == stat.S_IFREG
        redirect = self._content_path(node) if is_file else b""
        layer, path, _ = lowers[0]
        model = Model(layer, path, layer.stat(path))
        if stat.S_IFMT(model.st.st_mode) != node.format:
            raise stale()
        self.union.acting.as_root()
        try:
            self._copies.make(node, model, staged)
            entry = self._copies.dress(node, model, staged, model.st.st_mtime_ns)
            if is_file:
                markers.set_redirect(work, staged, redirect)
                markers.set_metacopy(work, staged)
            if self.union.features.fsync == "strict":
                staged_copies.sync(work, staged, node.format)
            host_ino = work.stat(staged).st_ino
            self._copies.publish(node, staged, entry, model.st)
        except BaseException:
            self.upper.staging.drop(staged)
            raise
        node.upper, node.host_ino, node.unsynced = True, host_ino, self.count()
        if is_file:
            node.redirect, node.below = redirect, lowers[-1:]
        elif node.format != stat.S_IFDIR:
            node.below = ()

    def _content_path(self, node: Node) -> bytes:
        """Return where a file's content is found again: the redirect of a metadata-only copy."""
        return node.redirect or node.lower_path

    def directories(self, node: Node) -> None:
        """Bring a directory and its parents to upper."""
        if not node.upper:
            self.foresee(node)
        missing = []
        at: Node | None = node
        while at is not None and not at.upper:
            missing.append(at)
            at = at.parent if not at.orphan else None
        for directory in reversed(missing):
            self._bring(directory)

    # Content

    def begin(self, node: Node, size: int | None = None, flags: int | None = None) -> ContentCopy:
        """Stage the copy of a file's content; ENOSPC where upper has not the room for it.

        With *flags* it is for an open(2), and stays open: so no error comes after the file is
        seen to be changed.
        """
        self.foresee(node)
        node.below = lowers = node.lowers  # kept as they are now: `publish` looks at them again
        lower = lowers[-1]
        source = lower.layer.open_content(lower.path, size)
        host_flags = os.O_RDWR if flags is None else flags
        try:
            st = stat_file(source)
            model = None if node.upper else _model_in_lowers(lowers, source, st)
            if node.upper and self._has_further_names(node):
                shown, target = self.union.attributes(node), self._open_in_place(node, host_flags)
            else:
                fetched = source if lower.layer.asks and size is None else -1
                shown, target = st, self._open_staged(fetched, host_flags)
        except BaseException:
            os.close(source)
            raise
        copied = st.st_size if size is None else min(size, st.st_size)
        copy = ContentCopy(
            node, lower, source, target.fd, target.staged, copied,
            copied if size is None else size,
            whole=size is None,
            sync=self.syncs and copied > 0,
            kept=Kept(shown.st_size, shown.st_mtime_ns),
            model=model,
            kept_open=flags is not None,
            shared=target.is_whole,
            persisted=node.persisted,
        )  # fmt: skip
        try:
            self._make_ready(copy, st)
        except BaseException:
            self.abandon(copy)
            raise
        return copy

    def _open_in_place(self, node: Node, flags: int) -> _Target:
        layer, path = self.upper.place(node)
        return _Target(layer.open_to_write(path, flags))

    def _open_staged(self, fetched: int, flags: int) -> _Target:
        """Make a file in work; of a far file that is *fetched*, the copy of a thread serves."""
        staged = self.upper.staging.name()
        self.union.acting.as_root()
        if fetched < 0 or not self._is_named(fetched, staged):
            return _Target(self.upper.work.create(staged, flags, 0o600), staged)
        try:
            return _Target(self.upper.work.open_to_write(staged, flags), staged, is_whole=True)
        except BaseException:
            self.upper.staging.drop(staged)
            raise

    def _is_named(self, fetched: int, staged: bytes) -> bool:
        """Give the copy that a thread has made of a far file a name, if that can be."""
        try:
            self.upper.work.give_name(fetched, staged)
        except OSError:  # ENOENT: it has had a name (`fetched`), or there is no /proc
            return False
        return True

    def _make_ready(self, copy: ContentCopy, lower: os.stat_result) -> None:
        """See that a copy shares the blocks of the file, or has the room for its own."""
        if not copy.staged:
            self.upper.fills.begin(copy, *self.upper.place(copy.node))
        if self._shares and not copy.shared and copy.size == lower.st_size > 0:
            copy.shared = content.share(copy.source, copy.target)
        if not copy.shared:
            content.require_room(self.upper.work.fd, content.taken(copy.size, lower))

    def _has_further_names(self, node: Node) -> bool:
        """Tell whether upper's copy has further names, so that no rename can replace it."""
        return (
            node.partial
            or bool(node.link)
            or node.pin >= 0
            or self.union.attributes(node).st_nlink > 1
        )

    def publish(self, copy: ContentCopy) -> None:
        """Put a filled copy in its place, if it still can be; close its descriptors.

        Where the content is in the lower still, it takes another copy.
        """
        if copy.over:  # by `whole`, which was faster
            return
        node = copy.node
        try:
            wanted = self._is_wanted(copy)
            if wanted and copy.staged:
                self._publish_staged(copy)
            elif wanted:
                self._finish_in_place(copy)
        except BaseException:
            self.abandon(copy)
            raise
        if not wanted:
            self.abandon(copy)
            return
        node.below, node.redirect, copy.published = (), b"", True
        if node in self.union.readers:
            self.union.readers_go_on(node, copy.target)
        copy.close()

    def _is_wanted(self, copy: ContentCopy) -> bool:
        """Tell whether no other request was faster, nor gave the file a further name meanwhile."""
        node = copy.node
        lowers = node.lowers
        if not lowers or lowers[-1] != copy.lower:
            return False
        return not (copy.staged and node.upper and self._has_further_names(node))

    def _publish_staged(self, copy: ContentCopy) -> None:
        node = copy.node
        parent = node.parent
        if parent is not None and not parent.upper and not node.orphan:
            self.directories(parent)
        # A lower does not change; but what is on upper by now may have other attributes.
        model = model_of(self.union, node) if copy.model is None or node.upper else copy.model
        filled = os.fstat(copy.target)
        times = model.st if copy.whole else filled
        entry = self._copies.dress(node, model, copy.staged, times.st_mtime_ns)
        if not copy.whole:
            markers.drop_capability(self.upper.work, copy.staged)
        if self.union.features.fsync == "strict":
            content.sync(copy.target)
        self._copies.publish(node, copy.staged, entry, model.st)
        node.upper, node.host_ino, node.unsynced = True, filled.st_ino, self.count()

    def _finish_in_place(self, copy: ContentCopy) -> None:
        self.union.known.names_change()
        self.upper.fills.finish(copy, *self.upper.place(copy.node))
        copy.node.unsynced = self.count()

    def abandon(self, copy: ContentCopy) -> None:
        """Drop a copy that is not wanted any more."""
        if copy.over:  # published by `whole`, after it had failed
            copy.close_kept()
            return
        try:
            if copy.staged:
                self.upper.staging.drop(copy.staged)
            elif copy.node.lowers:
                self.upper.fills.undo(copy, *self.upper.place(copy.node))
        except OSError:  # what others see is kept (`fills`)
            log.exception("%r is half a copy until the kernel forgets it", copy.node.path)
        finally:
            copy.close()


def _model_in_lowers(lowers: Sequence[LayerPath], source: int, st: os.stat_result) -> Model:
    """Return what a lower file is like, whose content is open as *source*, with attributes *st*."""
    layer, path, _ = lowers[0]
    if len(lowers) > 1 or layer.asks:  # its attributes are elsewhere, or its content is a copy
        return Model(layer, path, layer.stat(path))
    return Model(layer, path, st, source)
