"""The work of a daemon in the background: import modules while orders are awaited, then mount.

See `background`, which is the other half, and imports nothing.
"""

import os
import sys

import pyfuse3  # noqa: F401 - imported ahead of its use, as all of these
import trio  # noqa: F401

from unionfs.host import inherited
from unionfs.mounting import daemon, logs
from unionfs.mounting.options import Options, Refused
from unionfs.view import union  # noqa: F401

_BAD_INPUT = 2  # exit status


def serve(mountpoint: str, said: dict[str, object], verbosity: int, ready: int) -> int:
    """Mount as ordered, write to *ready* when it serves, and return the exit status."""
    logs.to_stderr(verbosity)

    options = Options(**said)  # type: ignore[arg-type]

    def let_go() -> None:
        logs.to_syslog()
        inherited.leave_terminal()
        os.write(ready, b"1")
        os.close(ready)

    try:
        if options.boot == "on":
            from unionfs.mounting import rootdaemon  # noqa: PLC0415 - a machine has one of them

            return rootdaemon.serve(options, mountpoint, ready)
        return daemon.open_and_serve(options, mountpoint, let_go)
    except Refused as exc:
        print(f"unionfs: {exc}", file=sys.stderr)
        return _BAD_INPUT
