"""The kernel forgets what it knows of one mount; drop_caches would take all others theirs, too.

Other tests, in other processes, count what the kernel does not ask for again.
"""

import os

from unionfs.host import mountcalls


def forget(mountpoint):
    """Have the kernel let go of all that it knows of a FUSE mount, and that is not in use.

    A remount does so: fs/super.c, reconfigure_super.  The mount is one without flags, and stays so.
    """
    mountcalls.mount("none", os.fspath(mountpoint), "", mountcalls.MS_REMOUNT)
