"""The lowers of a mount while somebody changes them: `unionfs maintain`, `unionfs commit`.

On any file system a program goes on with the file that it has open or mapped, even after an upgrade
has put another in its place.  Here the kernel may ask for a page of such a file at any time, and
only the file's path in the lower leads to its content.  So before the first change each file that
the kernel knows is opened, and kept open.

A file system cannot be made read-only while a deleted file of it is open.  So at the end the files
that are still in use are copied to where the changes are, and the others are closed.

Files that are copied up by blocks would show blocks of the changed lower beside their own.  So
they come up whole before, and no more are begun until the end.
"""

import errno
import logging
import os
import resource
import stat

import trio
import trio.lowlevel

from unionfs.changes import settling
from unionfs.fuse.descriptors import Descriptors
from unionfs.fuse.files import Files
from unionfs.fuse.rootattributes import BEGIN, END
from unionfs.layers import fetched
from unionfs.view.node import Node
from unionfs.view.union import Union

log = logging.getLogger(__name__)

_AT_ONCE = 64  # files that are opened before other requests are served

# The kernel's FORGETs of what it has dropped come soon, but not at once.
_PAUSE = 0.05  # seconds between looks
_LOOKS = 40  # at most


class Maintenance:
    """The work of one mount for programs that change its lowers."""

    def __init__(self, union: Union, descriptors: Descriptors, files: Files) -> None:
        self._union = union
        self._descriptors = descriptors
        self._files = files

    async def turn(self, value: bytes) -> None:
        """Begin or end, as *value* of the root's attribute says; EINVAL where it says neither.

        ENOSPC where upper has no room for the files that have to come up whole.

        Before either, the kernel should have been told to drop the files that nobody uses.
        """
        if value not in (BEGIN, END):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        await self._kernel_has_dropped()
        if value == BEGIN:
            await self._bring_partial_copies()
            await self._hold()
        else:
            self._files.partials.suspended = False
            await self._let_go()

    async def _kernel_has_dropped(self) -> None:
        """Wait until no more FORGETs come."""
        for _ in range(_LOOKS):
            known = len(self._union.nodes.all())
            await trio.sleep(_PAUSE)
            if len(self._union.nodes.all()) == known:
                return

    async def _bring_partial_copies(self) -> None:
        partials = self._files.partials
        partials.suspended = True
        try:
            for node in [node for node in self._union.nodes.all() if node.partial]:
                if self._files.is_written(node) or not partials.give_up(node):
                    await self._files.copies.bring(node)
            settling.bring_unknown(partials)
        except BaseException:
            partials.suspended = False
            raise

    async def _hold(self) -> None:
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2
        self._descriptors.keep(most)
        files = [node for node in self._union.nodes.all() if self._is_to_be_held(node)]
        if len(files) > most:
            log.warning("%d files of lowers are in use: %d of them are held", len(files), most)
        for number, node in enumerate(files[:most]):
            if number % _AT_ONCE == 0:
                await trio.lowlevel.checkpoint()
            self._hold_one(node)

    def _is_to_be_held(self, node: Node) -> bool:
        return self._union.has_lower_content(node) and not self._union.far_content(node)

    def _hold_one(self, node: Node) -> None:
        if self._union.nodes.get(node.ino) is not node or not self._is_to_be_held(node):
            return  # the file was forgotten, or copied up, meanwhile
        try:
            self._descriptors.to_read(node)
        except OSError as exc:
            log.warning("%r cannot be held: %s", node.path, exc.strerror)

    async def _let_go(self) -> None:
        for file, fds in self._union.readers.deleted().items():
            try:
                copy = await self._copied(fds[0])
            except OSError as exc:
                log.warning("a deleted file of a lower stays open: %s", exc.strerror)
                continue
            self._union.readers.replace(file, fds, copy)
            os.close(copy)
        self._descriptors.keep()

    async def _copied(self, fd: int) -> int:
        """Return a descriptor of a copy of the open file."""
        upper = self._union.upper
        stash = upper.work.fd if upper else -1
        source = os.dup(fd)  # the other may be closed meanwhile
        try:
            return await trio.to_thread.run_sync(_copy, source, stash)
        finally:
            os.close(source)


def _copy(source: int, stash: int) -> int:
    """Copy an open file with its owner, mode and times; return the descriptor of the copy."""
    st = os.fstat(source)
    copy = fetched.copy(source, None, stash)
    os.fchown(copy, st.st_uid, st.st_gid)
    os.fchmod(copy, stat.S_IMODE(st.st_mode))
    os.utime(copy, ns=(st.st_atime_ns, st.st_mtime_ns))
    return copy
