"""Whom the host takes this process for, when it makes or writes something in upper.

New objects belong to whoever asked for them, and count in that user's quota, so the
ids of the file system are the caller's then: setfsuid(2).  They stay so, as a change
costs more than a comparison, until somebody else makes something or the union makes
something for itself: a copy, a whiteout.  That is root's at first, and counts for nobody.
"""

import os

from unionfs.host import syscalls

_Caller = tuple[int, int, int]  # uid, gid, umask


class Acting:
    """The one that the thread of the handlers stands for."""

    def __init__(self) -> None:
        self.now: _Caller = (-1, -1, 0)

    def become(self, caller: _Caller) -> None:
        """Let the host decide owner, group and mode of new objects, as for the caller itself."""
        uid, gid, umask = caller
        if uid:
            syscalls.keep_capabilities_across_setfsuid()
        syscalls.set_filesystem_ids(uid, gid)
        os.umask(umask)
        self.now = caller

    def as_root(self) -> None:
        """Make what is the union's own."""
        if self.now[0]:
            self.become((0, 0, self.now[2]))

    def write_as(self, uid: int, gid: int) -> None:
        """Let the host decide on room as for this user: ext4 keeps some for root, mke2fs(8)."""
        if uid != self.now[0]:
            self.become((uid, gid, self.now[2]))
