"""Memory that a virtual machine keeps while it measures.

A guest may return freed memory to its host after a moment (free page
reporting), and getting 1 GiB of it again takes up to a second, which is added to
what whoever comes next takes: four times as long for a sequential write.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# Free blocks of this many pages (2 to the power of it) and more are returned; none are that large.
ORDER = Path("/sys/module/page_reporting/parameters/page_reporting_order")
_TOO_LARGE = "11"

# Of the free memory, a share, but not more bytes than any work needs: what the host lends at first.
_SHARE = 2
_MOST = 6 << 30


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Return no memory to the host, and have that at hand which work takes first."""
    before = None
    with contextlib.suppress(OSError):  # no such kernel, or no such right
        before = ORDER.read_text()
        ORDER.write_text(_TOO_LARGE)
    try:
        _take_and_give_back()
        yield
    finally:
        if before is not None:
            with contextlib.suppress(OSError):
                ORDER.write_text(before)


def _take_and_give_back() -> None:
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
    mmap.mmap(-1, min(free // _SHARE, _MOST), flags=flags).close()
