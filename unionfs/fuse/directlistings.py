"""Requests for directories, answered directly; see `direct`.

A listing begins where the kernel says that the last one ended.  The first part carries
attributes, the others names alone, until the kernel asks for attributes.
"""

import errno
import os
from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING

from unionfs.fuse.foresight import Foresight
from unionfs.fuse.service import Service
from unionfs.fuse.session import messages
from unionfs.fuse.session.crew import Waiting
from unionfs.view.node import Node

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from unionfs.fuse.session.dispatch import Handler
    from unionfs.view.listings import Listed


class DirectListings:
    """The direct handlers of one mount for directories."""

    def __init__(
        self,
        service: Service,
        foresight: Foresight,
        shown: Callable[[Node, os.stat_result], tuple[int, int, int]],
        forget: Callable[[int, int], None],
    ) -> None:
        """Take also the functions that tell which attributes to show, and take look-ups back."""
        self._union = service.union
        self._nodes = service.union.nodes
        self._listings = service.listings
        self._durability = service.durability
        self._foresight = foresight
        self._shown = shown
        self._forget = forget
        self.table: Mapping[int, Handler] = {
            messages.OPENDIR: self._opendir,
            messages.READDIR: self._readdir,
            messages.READDIRPLUS: self._readdirplus,
            messages.RELEASEDIR: self._releasedir,
            messages.FSYNCDIR: self._fsyncdir,
        }

    def _opendir(self, unique: int, node: int, _body: memoryview, _uid: int, _gid: int) -> bytes:
        """Say that directories need not be opened, nor closed; the kernel asks no more.

        The kernel then keeps their listings until it changes one (fs/fuse/file.c, fuse_file_open).
        Where each listing counts as a read (`atimes`), it keeps none.
        """
        if self._union.access.strict:
            return messages.opened(unique, node, 0)
        return messages.error(unique, errno.ENOSYS)

    def _releasedir(
        self, unique: int, _node: int, _body: memoryview, _uid: int, _gid: int
    ) -> bytes:
        return messages.empty(unique)

    def _readdirplus(
        self, unique: int, number: int, body: memoryview, _uid: int, _gid: int
    ) -> bytes:
        _, start, room = messages.READ_IN.unpack_from(body)
        directory, listing = self._nodes[number], messages.Listing(room)
        most = self._listings.most(directory, start)
        self._foresight.will_list()
        ready = self._foresight.listing(directory) if start == 0 else None
        entries = iter(self._listings.read(directory, start) if ready is None else ready)
        sent: list[Listed] = []
        try:
            self._fill(listing, islice(entries, most), sent)
        except OSError:
            if not listing:  # else send what counts as looked up; the next call gives the error
                raise
        if ready is not None:  # nodes for which there was no room
            for _, node, *_ in entries:
                self._forget(node.ino, 0)
        if start == 0:
            self._foresight.listed(directory, sent)
        self._listings.sent(directory, start, listing.after, most)
        return listing.reply(unique)

    def _fill(
        self, listing: messages.Listing, entries: "Iterator[Listed]", sent: "list[Listed]"
    ) -> None:
        """Put entries into a reply, as many as there is room for; collect these in *sent*."""
        for entry in entries:
            name, node, st, after = entry
            if st is None:
                fits = listing.add_bare(name, node.ino, node.format >> 12, after)
            else:
                shown = self._shown(node, st)
                fits = listing.add_entry(name, node.ino, st, *shown, after)
                node.lookups += fits
            if not fits:
                self._forget(node.ino, 0)
                return
            sent.append(entry)

    def _readdir(self, unique: int, number: int, body: memoryview, _uid: int, _gid: int) -> bytes:
        _, start, room = messages.READ_IN.unpack_from(body)
        node, listing = self._nodes[number], messages.Listing(room)
        most = self._listings.most(node, start)
        self._foresight.will_list()
        listing.add_all(islice(self._listings.read_names(node, start), most))
        self._listings.sent(node, start, listing.after, most)
        return listing.reply(unique)

    def _fsyncdir(
        self, unique: int, number: int, _body: memoryview, _uid: int, _gid: int
    ) -> Waiting:
        node = self._nodes[number]

        async def job() -> bytes:
            await self._durability.sync_directory(node)
            return messages.empty(unique)

        return Waiting(job)
