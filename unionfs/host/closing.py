"""Descriptors whose end may take long: a file is deleted when the last one is closed.

Deleting 1 GiB takes ext4 a quarter of a second; other requests are not to wait for that.
"""

import logging
import os
import stat
import threading

from unionfs.host.content import ST_BLOCK

log = logging.getLogger(__name__)

# Bytes on disk from which deleting takes longer than a thread costs, many times.
_LARGE = 64 << 20


def takes_long(st: os.stat_result, kept: int = 0) -> bool:
    """Tell whether freeing a file beyond its first *kept* bytes takes long."""
    return stat.S_ISREG(st.st_mode) and st.st_blocks * ST_BLOCK - kept >= _LARGE


def blocks(fd: int) -> int:
    """Return st_blocks of a deleted file, which goes when *fd* is closed; 0 where nobody knows."""
    try:
        return os.fstat(fd).st_blocks
    except OSError:  # some FUSE file systems know a deleted file no more: ESTALE
        return 0


def close(fd: int) -> None:
    """Close a descriptor, in a thread if that is going to delete a large file.

    If there is less room left than the file takes, the program that deletes it may be about to
    use its room.  Then no thread is used: all requests wait, and the next one finds the room.
    """
    if not _delays(fd):
        os.close(fd)
        return
    try:
        threading.Thread(target=_close, args=(fd,), daemon=True).start()
    except RuntimeError:  # pthread_create(3), EAGAIN: then all have to wait
        os.close(fd)


def _delays(fd: int) -> bool:
    """Tell whether closing a descriptor takes long, and nobody is likely to need the room."""
    try:
        st = os.fstat(fd)
        return not st.st_nlink and takes_long(st) and _room(fd) >= st.st_blocks * ST_BLOCK
    except OSError:  # some FUSE file systems know a deleted file no more: ESTALE
        return False


def _room(fd: int) -> int:
    """Return how many bytes the file system has left for anybody: fstatvfs(3)."""
    figures = os.fstatvfs(fd)
    return figures.f_bavail * figures.f_frsize


def _close(fd: int) -> None:
    try:
        os.close(fd)
    except OSError as exc:  # it is closed all the same: close(2)
        log.warning("deleting a large file: %s", exc.strerror)
