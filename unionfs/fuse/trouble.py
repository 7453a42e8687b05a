"""Which errors an administrator should hear of: those of disks and layers, not of callers.

A caller gets its errno in any case.  A line in the log names the path.  The same errno
is logged again only after a while, with the number of errors left out.
"""

import errno
import logging
import os
import time

log = logging.getLogger(__name__)

_TOLD = frozenset(
    {
        errno.EIO,
        errno.ENOTCONN,
        errno.EUCLEAN,
        errno.EROFS,
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
    }
)

# Seconds between two lines of one errno: a full disk fails every write.
_QUIET = 10.0


# The kernel refuses replies with larger numbers, fs/fuse/dev.c, and the request would hang.
_LAST_ERRNO = 511


def reply_number(error: OSError) -> int:
    """Return the errno to answer with: EIO for numbers that only the kernel uses, as 524 of NFS.

    ESPIPE means that a FIFO lies in the place of a file: no request is ever made for a FIFO.
    """
    number = error.errno or errno.EIO
    if number == errno.ESPIPE:
        return errno.ESTALE
    return errno.EIO if number > _LAST_ERRNO else number


class Trouble:
    """The errors of one mount."""

    def __init__(self) -> None:
        self._last: dict[int, float] = {}  # errno -> when it was logged, time.monotonic()
        self._left_out: dict[int, int] = {}  # errno -> errors since then

    def concerns(self, number: int) -> bool:
        """Tell whether errors of that number are logged at all."""
        return number in _TOLD

    def tell(self, number: int, request: str, path: bytes) -> None:
        """Log that *request* failed for *path*."""
        now = time.monotonic()
        if now - self._last.get(number, -_QUIET) < _QUIET:
            self._left_out[number] = self._left_out.get(number, 0) + 1
            return
        self._last[number] = now
        more = self._left_out.pop(number, 0)
        log.error(
            "%s of '%s': %s%s",
            request,
            os.fsdecode(path),
            os.strerror(number),
            f" (and {more} more such errors before)" if more else "",
        )
