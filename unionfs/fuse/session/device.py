"""The FUSE device, and what stands between it and libfuse's descriptor.

libfuse takes `/dev/fd/N` for a device that someone else has mounted; N is
`Device.fd`.  At first N is one end of a socket pair, through which the kernel's
INIT request and libfuse's reply travel, so that flags can be added.  Then the
device itself is put on N (dup2), and libfuse never notices.

**Diverted replies.**  FOPEN_PASSTHROUGH and FOPEN_CACHE_DIR must stand in the
replies of OPEN, CREATE and OPENDIR, and pyfuse3 cannot say them.  So the handler
calls `divert`, which puts the pair's end on N again; libfuse's reply lands there;
`settle` puts the device back, changes the reply and sends it on.  Why nothing else gets
there, and nothing gets lost, whatever the handler and its worker do:

1. *N is diverted only within one step of one trio task*: `divert` is called in a
   handler, and at the end of every step the loop's instrument calls `settle`.
   (The loop settles earlier when the worker waits for its next request in the
   same step.)  So it does not matter whether the handler returns, raises
   FUSEError, raises something else, is cancelled, or waits though it must not,
   nor whether its worker then waits, ends, or dies.
2. *In one step only one worker runs, and after `divert` it sends one reply*: the
   handler returns to pyfuse3, which replies and asks for the next request; on
   asking, `settle` comes first.  No request is read while N is diverted.  A
   reply of another worker comes in another step, when N is the device again.
3. *An error reply* (16 bytes, no body) is sent on as it is: `patch_open`.
4. *If no reply came* (the handler raised what pyfuse3 does not catch), the pair
   is empty: only N is put back.
5. *Other threads* never reply.  They may send notifications (pyfuse3's
   invalidate_entry_async); such a message has no request's number: it is sent on
   unchanged, and the reply is looked for behind it.

A handler that waits after `divert` breaks the contract; then, by 1, the reply
goes out unchanged: an ordinary open.
"""

import contextlib
import errno
import fcntl
import os
import select
import socket
import struct
from collections.abc import Sequence

from unionfs.fuse.session.pipe import Piece, Pipe
from unionfs.fuse.session.protocol import (
    FOPEN_CACHE_DIR,
    FOPEN_DIRECT_IO,
    FOPEN_KEEP_CACHE,
    FOPEN_PASSTHROUGH,
    Answer,
    InitPatch,
    Offer,
    OpenPatch,
    is_notification,
    patch_init,
    patch_open,
    read_answer,
    read_offer,
)

# Larger than any request without data: FUSE_MIN_READ_BUFFER, include/uapi/linux/fuse.h
_REQUEST_BYTES = 1 << 16
# Larger than the replies of OPEN (32), CREATE (160) and than a notification of a name (~300).
_REPLY_BYTES = 4096

# include/uapi/linux/fuse.h: _IOW(229, 1, struct fuse_backing_map), _IOW(229, 2, uint32_t)
_BACKING_OPEN = 0x4010E501
_BACKING_CLOSE = 0x4004E502
_BACKING_MAP = struct.Struct("=iIQ")  # fd flags padding

_CACHE_LISTING = OpenPatch(FOPEN_CACHE_DIR | FOPEN_KEEP_CACHE, 0xFF, 0)
# Without KEEP_CACHE the kernel drops what it has cached of the inode, which would be stale
# after a write to the backing file.
_KEPT_WHEN_PASSING = 0xFF & ~FOPEN_KEEP_CACHE


class PlainReplies:
    """libfuse mounted and holds the device itself: nothing can be added to its messages."""

    diverted: OpenPatch | None = None

    def settle(self) -> None:
        """Nothing is ever diverted."""

    def register(self, _fd: int) -> int:
        """Refuse."""
        raise OSError(errno.EOPNOTSUPP, "no kernel passthrough on this mount")

    def unregister(self, _backing: int) -> None:
        """Nothing was ever registered."""

    def pass_through(self, _backing: int, *, direct_io: bool) -> None:
        """Leave the open as it is."""

    def cache_listing(self) -> None:
        """Leave listings uncached."""

    def send_pieces(self, _head: bytes, _pieces: Sequence[Piece]) -> bool:
        """Leave the reply to others."""
        return False

    def notify(self, message: bytes) -> None:
        """Send nothing: nothing is done this way that the kernel would have to be told."""

    def close(self) -> None:
        """Close nothing: libfuse closes its own descriptors."""


class Device(PlainReplies):
    """An open /dev/fuse, `device`, and libfuse's descriptor `fd` in front of it."""

    def __init__(self, path: str = "/dev/fuse") -> None:
        self.device = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._peer, self._other = ours.detach(), theirs.detach()
        self.fd = os.dup(self._other)
        self._reply = bytearray(_REPLY_BYTES)
        self._offer: Offer | None = None
        self.diverted = None
        self._map = bytearray(_BACKING_MAP.size)
        self._pipe = Pipe()

    def introduce(self) -> Offer | None:
        """Hand the kernel's INIT request, which waits since mount(2), to libfuse."""
        request = os.read(self.device, _REQUEST_BYTES + (1 << 20))
        self._offer = read_offer(request)
        os.write(self._peer, request)
        return self._offer

    def answer(self, patch: InitPatch) -> Answer | None:
        """Send libfuse's INIT reply to the kernel, changed by *patch*; then get out of the way."""
        reply = bytearray(os.read(self._peer, _REQUEST_BYTES))
        if self._offer is not None:
            patch_init(reply, self._offer, patch)
        os.write(self.device, reply)
        os.dup2(self.device, self.fd, inheritable=False)
        os.set_blocking(self._peer, False)
        return read_answer(reply) if self._offer is not None else None

    def is_connected(self) -> bool:
        """Say whether the filesystem is still there, mounted or at least in use."""
        poll = select.poll()
        poll.register(self.device, select.POLLIN)
        return not any(event & select.POLLERR for _, event in poll.poll(0))

    def register(self, fd: int) -> int:
        """Return a backing id for the open file *fd*: FUSE_DEV_IOC_BACKING_OPEN.

        Writes to the backing file are made with the credentials of this moment.  Privileges that a
        write takes away are removed before, with the writer's own credentials (fs/backing-file.c).
        """
        _BACKING_MAP.pack_into(self._map, 0, fd, 0, 0)
        backing: int = fcntl.ioctl(self.device, _BACKING_OPEN, self._map)
        return backing

    def can_register(self) -> bool:
        """Try it with a file in memory: it takes CAP_SYS_ADMIN beside the kernel's offer."""
        fd = os.memfd_create("passthrough", os.MFD_CLOEXEC)
        try:
            self.unregister(self.register(fd))
        except OSError:
            return False
        finally:
            os.close(fd)
        return True

    def unregister(self, backing: int) -> None:
        """Let go of a backing id: FUSE_DEV_IOC_BACKING_CLOSE."""
        fcntl.ioctl(self.device, _BACKING_CLOSE, backing.to_bytes(4, "little"))

    def pass_through(self, backing: int, *, direct_io: bool) -> None:
        """Divert the next reply, to carry FOPEN_PASSTHROUGH and *backing*."""
        add = FOPEN_PASSTHROUGH | FOPEN_DIRECT_IO if direct_io else FOPEN_PASSTHROUGH
        self._divert(OpenPatch(add, _KEPT_WHEN_PASSING, backing))

    def cache_listing(self) -> None:
        """Divert the next reply, to carry FOPEN_CACHE_DIR."""
        self._divert(_CACHE_LISTING)

    def _divert(self, patch: OpenPatch) -> None:
        os.dup2(self._other, self.fd, inheritable=False)
        self.diverted = patch

    def send(self, reply: bytes | memoryview) -> None:
        """Send a reply to the kernel."""
        try:  # noqa: SIM105 - contextlib.suppress costs as much as all else here
            os.write(self.device, reply)
        except OSError:  # ENOENT: the request was aborted; ENODEV: unmounted.  libfuse, too,
            pass  # only reports these, and goes on.

    def send_pieces(self, head: bytes, pieces: Sequence[Piece]) -> bool:
        """Send a reply whose body is parts of files; say whether it was sent."""
        return self._pipe.send(self.device, head, pieces)

    def notify(self, message: bytes) -> None:
        """Send the kernel a message that is no reply."""
        self.send(message)

    def settle(self) -> None:
        """Put the device back, and send on what libfuse has written meanwhile."""
        patch, self.diverted = self.diverted, None
        os.dup2(self.device, self.fd, inheritable=False)
        if patch is None:
            return
        # BlockingIOError: no reply came (4 above).
        with contextlib.suppress(BlockingIOError):
            while self._send_on(patch):
                pass

    def _send_on(self, patch: OpenPatch) -> bool:
        """Send one message on; say whether the reply is still to come."""
        reply = self._reply
        size = os.readv(self._peer, [reply])
        notification = is_notification(reply)
        if not notification:
            patch_open(reply, size, patch)
        self.send(memoryview(reply)[:size])  # EINVAL of a notification: its object is unknown
        return notification

    def close(self) -> None:
        """Close all but `fd`, which libfuse closes once pyfuse3 is initialized."""
        for fd in (self.device, self._peer, self._other):
            os.close(fd)
        self._pipe.close()
