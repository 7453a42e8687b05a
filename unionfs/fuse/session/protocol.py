"""The few messages of the FUSE protocol that are read or changed here.

libfuse speaks the protocol; this module only reads the kernel's INIT request, and
adds to replies what libfuse 3.14 has no words for: flags to the INIT reply, open
flags and a backing id to the replies of OPEN, CREATE and OPENDIR.  All structures
are those of include/uapi/linux/fuse.h, in
the machine's byte order.  Pure functions over bytes: no descriptor is touched.
"""

import enum
import struct
from typing import NamedTuple

IN_HEADER = struct.Struct("=IIQQIIIHH")  # len opcode unique nodeid uid gid pid extlen padding
OUT_HEADER = struct.Struct("=IiQ")  # len error unique
INIT_IN = struct.Struct("=IIII")  # major minor max_readahead flags
INIT_OUT = struct.Struct("=IIIIHHIIHHIIH")  # up to request_timeout
OPEN_OUT_TAIL = struct.Struct("=Ii")  # open_flags backing_id: the last 8 bytes of fuse_open_out

_UINT = struct.Struct("=I")
_BACKGROUND = struct.Struct("=HH")  # max_background congestion_threshold
_FLAGS2_IN = IN_HEADER.size + INIT_IN.size
_FLAGS_OUT = OUT_HEADER.size + 12
_BACKGROUND_OUT = OUT_HEADER.size + 16
_FLAGS2_OUT = OUT_HEADER.size + 32
_DEPTH_OUT = OUT_HEADER.size + 36

INIT_OPCODE = 26
MAJOR = 7


class Init(enum.IntFlag):
    """Flags of INIT; those above bit 31 travel in flags2 (protocol 7.36)."""

    ASYNC_READ = 1 << 0
    POSIX_LOCKS = 1 << 1
    FILE_OPS = 1 << 2
    ATOMIC_O_TRUNC = 1 << 3
    EXPORT_SUPPORT = 1 << 4
    BIG_WRITES = 1 << 5
    DONT_MASK = 1 << 6
    SPLICE_WRITE = 1 << 7
    SPLICE_MOVE = 1 << 8
    SPLICE_READ = 1 << 9
    FLOCK_LOCKS = 1 << 10
    HAS_IOCTL_DIR = 1 << 11
    AUTO_INVAL_DATA = 1 << 12
    DO_READDIRPLUS = 1 << 13
    READDIRPLUS_AUTO = 1 << 14
    ASYNC_DIO = 1 << 15
    WRITEBACK_CACHE = 1 << 16
    NO_OPEN_SUPPORT = 1 << 17
    PARALLEL_DIROPS = 1 << 18
    HANDLE_KILLPRIV = 1 << 19
    POSIX_ACL = 1 << 20
    ABORT_ERROR = 1 << 21
    MAX_PAGES = 1 << 22
    CACHE_SYMLINKS = 1 << 23
    NO_OPENDIR_SUPPORT = 1 << 24
    EXPLICIT_INVAL_DATA = 1 << 25
    MAP_ALIGNMENT = 1 << 26
    SUBMOUNTS = 1 << 27
    HANDLE_KILLPRIV_V2 = 1 << 28
    SETXATTR_EXT = 1 << 29
    INIT_EXT = 1 << 30
    SECURITY_CTX = 1 << 32
    HAS_INODE_DAX = 1 << 33
    CREATE_SUPP_GROUP = 1 << 34
    HAS_EXPIRE_ONLY = 1 << 35
    DIRECT_IO_ALLOW_MMAP = 1 << 36
    PASSTHROUGH = 1 << 37
    NO_EXPORT_SUPPORT = 1 << 38
    HAS_RESEND = 1 << 39
    ALLOW_IDMAP = 1 << 40
    OVER_IO_URING = 1 << 41
    REQUEST_TIMEOUT = 1 << 42


# Flags of the replies to OPEN, CREATE and OPENDIR.  Plain numbers, as arithmetic with
# enum.IntFlag costs microseconds, and these are used for each open.
FOPEN_DIRECT_IO = 1 << 0
FOPEN_KEEP_CACHE = 1 << 1
FOPEN_CACHE_DIR = 1 << 3
FOPEN_PASSTHROUGH = 1 << 7


class Offer(NamedTuple):
    """What the kernel offers in its INIT request."""

    protocol: tuple[int, int]
    max_readahead: int  # bytes
    flags: Init


class Answer(NamedTuple):
    """What an INIT reply settles; zeros where an old protocol has no field."""

    flags: Init
    max_readahead: int  # bytes
    max_write: int  # bytes
    max_background: int  # requests; 0: the kernel's default
    max_stack_depth: int


class InitPatch(NamedTuple):
    """What to change in libfuse's INIT reply."""

    flags: Init  # to add, as far as the kernel offers them
    unwanted: Init  # to remove
    max_background: int
    max_stack_depth: int


class OpenPatch(NamedTuple):
    """What to change in the reply of an open: flags to add and to keep, and the backing id."""

    add: int  # FOPEN_*
    keep: int  # mask of FOPEN_*
    backing: int


def read_offer(request: bytes) -> Offer | None:
    """Read an INIT request; None when it is none, or not of protocol 7 (then hands off)."""
    if len(request) < IN_HEADER.size + INIT_IN.size:
        return None
    if IN_HEADER.unpack_from(request)[1] != INIT_OPCODE:
        return None
    major, minor, max_readahead, flags = INIT_IN.unpack_from(request, IN_HEADER.size)
    if major != MAJOR:
        return None
    if flags & Init.INIT_EXT and len(request) >= _FLAGS2_IN + _UINT.size:
        flags |= _UINT.unpack_from(request, _FLAGS2_IN)[0] << 32
    return Offer((major, minor), max_readahead, Init(flags))


def patch_init(reply: bytearray, offer: Offer, patch: InitPatch) -> None:
    """Change an INIT reply by *patch*, as far as offered; the rest of libfuse's reply stays.

    An error reply is left alone, and so is the reply of a protocol too old for flags.
    """
    if _is_error(reply) or len(reply) < _FLAGS_OUT + _UINT.size:
        return
    flags = _allowed(_flags(reply), offer, patch)
    if len(reply) < _DEPTH_OUT + _UINT.size:
        flags &= ~(Init.INIT_EXT | Init.PASSTHROUGH) & 0xFFFFFFFF
    _UINT.pack_into(reply, _FLAGS_OUT, flags & 0xFFFFFFFF)
    if len(reply) >= _BACKGROUND_OUT + _BACKGROUND.size and patch.max_background:
        limits = patch.max_background, patch.max_background * 3 // 4
        _BACKGROUND.pack_into(reply, _BACKGROUND_OUT, *limits)
    if flags & Init.INIT_EXT:
        _UINT.pack_into(reply, _FLAGS2_OUT, flags >> 32)
    if flags & Init.PASSTHROUGH:
        _UINT.pack_into(reply, _DEPTH_OUT, patch.max_stack_depth)


def _allowed(answered: Init, offer: Offer, patch: InitPatch) -> Init:
    """Return the flags to answer with: libfuse's, and those wanted, offered and sensible."""
    added = patch.flags & offer.flags
    if answered & Init.WRITEBACK_CACHE:
        added &= ~Init.PASSTHROUGH  # process_init_reply() in fs/fuse/inode.c refuses both
    if added >> 32 and offer.flags & Init.INIT_EXT:
        added |= Init.INIT_EXT
    return answered & ~patch.unwanted | added


def read_answer(reply: bytes | bytearray) -> Answer | None:
    """Read an INIT reply; None when it is an error."""
    if _is_error(reply):
        return None
    whole = bytes(reply[OUT_HEADER.size :]).ljust(INIT_OUT.size, b"\0")
    fields = INIT_OUT.unpack_from(whole)
    return Answer(_flags(reply), fields[2], fields[6], fields[4], fields[11])


def _flags(reply: bytes | bytearray) -> Init:
    if len(reply) < _FLAGS_OUT + _UINT.size:
        return Init(0)
    flags: int = _UINT.unpack_from(reply, _FLAGS_OUT)[0]
    if flags & Init.INIT_EXT and len(reply) >= _FLAGS2_OUT + _UINT.size:
        flags |= _UINT.unpack_from(reply, _FLAGS2_OUT)[0] << 32
    return Init(flags)


def _is_error(reply: bytes | bytearray) -> bool:
    return len(reply) < OUT_HEADER.size or OUT_HEADER.unpack_from(reply)[1] != 0


def patch_open(reply: bytearray, size: int, patch: OpenPatch) -> None:
    """Change the first *size* bytes of *reply*, which answer OPEN, CREATE or OPENDIR.

    In all three fuse_open_out is the last part.  Error replies have no body and
    stay as they are.
    """
    if size <= OUT_HEADER.size:
        return
    tail = size - OPEN_OUT_TAIL.size
    flags, _ = OPEN_OUT_TAIL.unpack_from(reply, tail)
    OPEN_OUT_TAIL.pack_into(reply, tail, flags & patch.keep | patch.add, patch.backing)


def is_notification(reply: bytearray) -> bool:
    """Say whether this is a notification, which libfuse may send from any thread, not a reply."""
    unique: int = OUT_HEADER.unpack_from(reply)[2]
    return unique == 0


def names(flags: Init) -> tuple[str, ...]:
    """Return the names of the flags that are set, as in fuse.h, without FUSE_."""
    return tuple(flag.name for flag in Init if flag in flags and flag.name is not None)
