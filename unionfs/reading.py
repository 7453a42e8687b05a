"""Reading a file without holding up others: from memory at once, from a disk in a thread.

`RWF_NOWAIT` (preadv2(2)) tells the one from the other.  Some file systems do
not know it: for tmpfs, where nothing can be cold, the read is made at once, for
the others (squashfs, network file systems) always in a thread.
"""

import errno
import os

import trio

from unionfs import syscalls


class Reading:
    """The reads of one mount."""

    def __init__(self) -> None:
        self._in_memory: dict[int, bool] = {}  # st_dev without RWF_NOWAIT -> is it tmpfs?

    async def read(self, fd: int, size: int, offset: int) -> bytes | memoryview:
        """Return up to *size* bytes at *offset*; fewer only at the end of the file."""
        buffer = memoryview(bytearray(size))
        count = self.at_once(fd, buffer, offset)
        if count is not None:
            return buffer[:count]
        own = os.dup(fd)  # the handle's own may be moved to upper meanwhile
        try:
            return await trio.to_thread.run_sync(os.pread, own, size, offset)
        finally:
            os.close(own)

    def at_once(self, fd: int, buffer: memoryview, offset: int) -> int | None:
        """Fill *buffer* from *offset* on; return the bytes read, or None where it would wait."""
        try:
            count = os.preadv(fd, [buffer], offset, os.RWF_NOWAIT)
        except OSError as exc:
            if exc.errno == errno.EOPNOTSUPP and self._is_in_memory(fd):
                return os.preadv(fd, [buffer], offset)
            if exc.errno not in (errno.EOPNOTSUPP, errno.EAGAIN):
                raise
            return None
        if count in (0, len(buffer)) or offset + count >= os.fstat(fd).st_size:
            return count
        return None

    def _is_in_memory(self, fd: int) -> bool:
        device = os.fstat(fd).st_dev
        if device not in self._in_memory:
            self._in_memory[device] = syscalls.is_tmpfs(fd)
        return self._in_memory[device]
