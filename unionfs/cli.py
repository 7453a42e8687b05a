"""The command `unionfs`: its first steps, kept light.

First of all, descriptors 0 to 2 are there (`inherited`).  A mount is to serve
soon, and most of that time goes into imports: so a daemon is started ahead
(`background`) before `commands` is imported and the command line is read.
"""

import sys

from unionfs.commands import background
from unionfs.host import inherited


def main() -> int:
    """Run what the command line asks for and return the exit status."""
    inherited.fill_descriptors()
    words = sys.argv[1:]
    daemon = None
    if background.is_likely(words):
        daemon = background.start(watched=background.is_watched(words))
    try:
        from unionfs.commands import commands  # noqa: PLC0415 - while the daemon imports its part

        return commands.main(words, daemon)
    finally:
        if daemon is not None:
            daemon.dismiss()


if __name__ == "__main__":
    sys.exit(main())
