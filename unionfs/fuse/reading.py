"""Reading a file without holding up others: from memory at once, from a disk in a thread.

`RWF_NOWAIT` (preadv2(2)) tells the one from the other.  Some file systems do
not know it.  On tmpfs, where nothing can be cold, the read is made at once; on
the others (squashfs, network file systems) always in a thread.

A fast disk takes less time than waking a thread and giving it the interpreter lock.
So the data is sent for, and looked for again for a moment (`fetch`).
"""

import errno
import os

import trio

from unionfs.host import syscalls

# Bytes of a read from which on it is worth asking whether all of it is cached.
LARGE = 64 << 10

# Seconds within which data that was sent for has to come, and how many reads go to threads at once
# after data that has not.
_MOMENT = 1e-3
_LEFT_TO_THREADS = 32


class Reading:
    """The reads of one mount."""

    def __init__(self) -> None:
        self._slow = 0  # reads that are still to be left to threads
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

    def cached(self, fd: int, size: int, offset: int) -> int:
        """Return how many bytes a read yields that is large and wholly cached; else 0."""
        if size < LARGE:
            return 0
        st = os.fstat(fd)
        count = min(size, st.st_size - offset)
        if count < LARGE:
            return 0
        return count if self._in_memory.get(st.st_dev) or self.is_cached(fd, count, offset) else 0

    def is_cached(self, fd: int, count: int, offset: int) -> bool:
        """Tell whether all of *count* bytes, not 0, that a file has is in the page cache."""
        if not syscalls.is_cached(fd, offset, count):
            return False
        # Data on its way counts as cached; its end comes last.
        return bool(self.at_once(fd, memoryview(bytearray(1)), offset + count - 1))

    def fetch(self, fd: int, size: int, offset: int) -> bool:
        """Send for data that is not in memory; tell whether it is likely to come in a moment."""
        if self._slow:
            self._slow -= 1
            return False
        if os.fstat(fd).st_dev in self._in_memory:  # a file system without RWF_NOWAIT
            return False
        try:
            os.posix_fadvise(fd, offset, size, os.POSIX_FADV_WILLNEED)
        except OSError:  # the read itself will give the error
            return False
        return True

    def took(self, seconds: float) -> None:
        """Take note how long the data took, or that it has not come for that long."""
        if seconds > _MOMENT:
            self._slow = _LEFT_TO_THREADS

    def _is_in_memory(self, fd: int) -> bool:
        device = os.fstat(fd).st_dev
        if device not in self._in_memory:
            self._in_memory[device] = syscalls.is_tmpfs(fd)
        return self._in_memory[device]
