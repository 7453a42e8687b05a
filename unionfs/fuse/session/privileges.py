"""What the process asks of the kernel for itself: flags and capabilities; limits: `inherited`.

The only module of this package that calls the C library.  The daemon works correctly
whether or not a wish is granted, so refusals are passed over.
"""

import contextlib
import ctypes

# linux/capability.h
_CAPABILITY_VERSION_3 = 0x20080522
CAP_FSETID = 4
CAP_SYS_RESOURCE = 24
# linux/prctl.h
_PR_SET_IO_FLUSHER = 57

# PyDLL keeps the interpreter lock: these calls are shorter than letting go of it.
_libc = ctypes.PyDLL(None)


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Set(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


class Without:
    """Run a block without one capability in this thread's effective set: capset(2).

    The set is read once, on first use, as reading it costs more than the rest;
    so between blocks it must always be the same.
    """

    def __init__(self, capability: int) -> None:
        self._capability = capability
        self._whole, self._less = (_Set * 2)(), (_Set * 2)()
        self._header = ctypes.byref(_Header(_CAPABILITY_VERSION_3, 0))
        self._known = False

    def _read(self) -> None:
        _libc.capget(self._header, self._whole)
        _libc.capget(self._header, self._less)
        self._less[self._capability >> 5].effective &= ~(1 << (self._capability & 31))
        self._known = True

    def __enter__(self) -> None:
        if not self._known:
            self._read()
        _libc.capset(self._header, self._less)

    def __exit__(self, *_exc: object) -> None:
        _libc.capset(self._header, self._whole)


def mark_as_io_flusher() -> None:
    """Keep memory reclaim from waiting for this process while it allocates memory itself.

    prctl(2), PR_SET_IO_FLUSHER, Linux 5.6, CAP_SYS_RESOURCE.  Without it the
    mount works, but may freeze when memory is short.
    """
    _libc.prctl(_PR_SET_IO_FLUSHER, 1, 0, 0, 0)


def heed_quotas() -> None:
    """Let this thread, and those that it starts, go beyond no user's quota: capabilities(7).

    Neither does kernel overlayfs (fs/overlayfs/super.c, ovl_fill_super).
    """
    Without(CAP_SYS_RESOURCE).__enter__()


def set_readahead(device: str, kib: int) -> None:
    """Let the kernel read ahead *kib* KiB on the mount with this device number, MAJOR:MINOR."""
    path = f"/sys/class/bdi/{device}/read_ahead_kb"
    with contextlib.suppress(OSError), open(path, "w", encoding="ascii") as file:
        file.write(str(kib))  # sysfs may be read-only or hidden: then the kernel's default holds
