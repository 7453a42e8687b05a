"""A mount's way to the kernel: event loop, handshake, passthrough.

The rest of the program knows `Session`, `Granted` and `Switches`, and nothing
of how they are done: `loop` is how requests are waited for, `dispatch` how
they are answered without libfuse, in the words of `messages`; `device` is
how libfuse's messages are added to, `protocol` what these look like, `session`
the life of a mount.  pyfuse3 and libfuse are used as they come.
"""

from unionfs.fuse.session.grants import Granted, Switches
from unionfs.fuse.session.session import BACKGROUND_REQUESTS, Session

__all__ = ["BACKGROUND_REQUESTS", "Granted", "Session", "Switches"]
