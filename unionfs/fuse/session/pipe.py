"""Parts of files as a reply, copied once: by splice(2), through a pipe.

read(2) and write(2) would copy the data twice, and write(2) takes as long again to
look up the pages of our memory one by one.
"""

import fcntl
import os
from collections.abc import Sequence

# A part of a file: its descriptor, where the part begins, and how many bytes it has.
Piece = tuple[int, int, int]

# As large as a process without CAP_SYS_RESOURCE may make it: pipe(7), /proc/sys/fs/pipe-max-size.
_BYTES = 1 << 20
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Pipe:
    """The pipe; there is none until it is needed."""

    def __init__(self) -> None:
        self._ends: tuple[int, int] | None = None
        self._slots = 0  # pages that fit in

    def send(self, device: int, head: bytes, pieces: Sequence[Piece]) -> bool:
        """Send *head* and the parts of files to *device*; say False where nothing was sent.

        False: the reply is too large, a file has become shorter meanwhile, or the kernel does
        not want the reply.
        """
        try:
            receiver, sender = self._ends or self._open()
            # Beside the pages of the files, one for the head.
            pages = sum((at % _PAGE + count - 1) // _PAGE + 1 for _, at, count in pieces)
            if pages + 1 > self._slots:
                return False
            os.write(sender, head)
            if all(_spliced(piece, sender) for piece in pieces):
                os.splice(receiver, device, len(head) + sum(count for _, _, count in pieces))
                return True
        except OSError:  # the usual way of reading will give the error
            pass
        self.close()  # with what is left in it
        return False

    def _open(self) -> tuple[int, int]:
        self._ends = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)  # better no reply than a wait for room
        self._slots = fcntl.fcntl(self._ends[1], fcntl.F_SETPIPE_SZ, _BYTES) // _PAGE
        return self._ends

    def close(self) -> None:
        """Close the pipe; another one is made when it is needed again."""
        for fd in self._ends or ():
            os.close(fd)
        self._ends = None


def _spliced(piece: Piece, sender: int) -> bool:
    fd, offset, left = piece
    while left:
        count = os.splice(fd, sender, left, offset)
        if not count:
            return False
        offset, left = offset + count, left - count
    return True
