"""What a daemon in the background does: imports while orders are awaited, then mounts.

See `background`, which is the other half, and imports nothing.
"""

import os
import sys

import pyfuse3  # noqa: F401 - imported ahead of its use, as all of these
import trio  # noqa: F401

from unionfs import daemon, logs, operations, session, union  # noqa: F401
from unionfs.options import Options, Refused

_BAD_INPUT = 2  # exit status


def serve(mountpoint: str, said: dict[str, object], verbosity: int, ready: int) -> int:
    """Mount as ordered, write a byte to *ready* when it serves, and return the exit status."""
    logs.to_stderr(verbosity)

    def let_go() -> None:
        _leave_terminal()
        os.write(ready, b"1")
        os.close(ready)

    try:
        return daemon.open_and_serve(Options(**said), mountpoint, let_go)  # type: ignore[arg-type]
    except Refused as exc:
        print(f"unionfs: {exc}", file=sys.stderr)
        return _BAD_INPUT


def _leave_terminal() -> None:
    """Log to syslog, and let go of the descriptors that the command came with."""
    logs.to_syslog()
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for fd in range(3):
        os.dup2(null, fd)
    os.close(null)
