"""Which process serves a mount, and whether it still lives: what /proc tells."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess

STATUS = "trusted.unionfs.status"  # of the root of a mount of ours


def daemon_of(process: subprocess.Popen[bytes], mountpoint: Path) -> int | None:
    """Return the process that serves *mountpoint*: the one started, or one that it left behind."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        return int(json.loads(os.getxattr(mountpoint, STATUS))["pid"])
    if process.poll() is None:
        return process.pid
    return next((pid for pid in _processes() if _names(pid, mountpoint)), None)


def _processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def _names(pid: int, mountpoint: Path) -> bool:
    """Tell whether *pid* has the mount point, unique in each run, on its command line."""
    try:
        line = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # it has ended meanwhile
        return False
    return os.fsencode(mountpoint) in line.split(b"\0")


def has_ended(pid: int) -> bool:
    """Is *pid* gone, or a zombie that only waits for its parent?"""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    return text.rpartition(")")[2].split()[0] in "ZX"
