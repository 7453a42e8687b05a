"""A mount's way to the kernel: event loop, handshake, passthrough.

The rest of the program knows only `Session`, `Granted` and `Switches`.  `loop` waits
for requests; `dispatch` answers them without libfuse, with the structs of `messages`;
`device` adds to libfuse's messages, whose form `protocol` knows; `session` is the life
of a mount.  pyfuse3 and libfuse are used as they come.
"""

from unionfs.fuse.session.grants import Granted, Switches
from unionfs.fuse.session.session import BACKGROUND_REQUESTS, Session

__all__ = ["BACKGROUND_REQUESTS", "Granted", "Session", "Switches"]
