"""Who makes a request, as far as set-uid and set-gid bits are concerned.

Which of them fall when a file changes hangs on the groups and on one capability of
whoever changes it.  A request does not tell those, but it names the thread, which waits
for the reply meanwhile: procthread_status(5).  So they are looked for where such a bit is
there, which is rare.
"""

import errno
import os
import stat
from typing import NamedTuple

# linux/capability.h
CAP_FOWNER = 3
CAP_FSETID = 4
CAP_SETFCAP = 31

SET_IDS = stat.S_ISUID | stat.S_ISGID
_SET_GID_OF_NO_PROGRAM = stat.S_ISGID  # of these two bits
_GROUP_PROGRAM = stat.S_ISGID | stat.S_IXGRP


class Credentials(NamedTuple):
    """What a thread may do to bits."""

    uid: int
    groups: frozenset[int]
    capabilities: int  # a bit for each: capabilities(7), the effective ones

    def has(self, capability: int) -> bool:
        """Tell whether *capability*, a CAP_*, is there."""
        return bool(self.capabilities >> capability & 1)

    def keeps_set_gid(self, group: int) -> bool:
        """Tell whether set-gid of a file that belongs to *group* may stay: in_group_or_capable."""
        return group in self.groups or self.has(CAP_FSETID)

    def gives_up(self, st: os.stat_result) -> int:
        """Return the bits that fall at a chown(2) by these: fs/open.c, chown_common."""
        taken = st.st_mode & stat.S_ISUID
        if st.st_mode & stat.S_IXGRP or not self.keeps_set_gid(st.st_gid):
            taken |= st.st_mode & stat.S_ISGID
        return taken

    def is_forbidden_to_chown(self, st: os.stat_result) -> bool:
        """Tell whether chown(-1, -1) fails, as bits of another's file would fall: fs/attr.c."""
        another = self.uid != st.st_uid and not self.has(CAP_FOWNER)
        return another and bool(self.gives_up(st))

    def takes(self, st: os.stat_result) -> int:
        """Return the bits that fall when these write to a file: setattr_should_drop_suidgid."""
        return 0 if self.has(CAP_FSETID) else self.gives_up(st)


def is_set_gid_alone(mode: int) -> bool:
    """Tell whether *mode* is set-gid without group execute, which only some lose."""
    return mode & _GROUP_PROGRAM == _SET_GID_OF_NO_PROGRAM and not stat.S_ISDIR(mode)


class Requester:
    """Who made a request: the ids of the file system, and the thread."""

    __slots__ = ("_gid", "thread", "uid")

    def __init__(self, uid: int, gid: int, thread: int) -> None:
        self.uid = uid
        self._gid = gid
        self.thread = thread

    def credentials(self) -> Credentials:
        """Look for the rest; of a thread that cannot be seen from here, the ids decide."""
        try:
            with open(f"/proc/{self.thread}/status", "rb") as file:
                fields = dict(line.split(b":", 1) for line in file if b":" in line)
        except OSError as exc:
            if exc.errno not in {errno.ENOENT, errno.ESRCH}:  # pid 0; it was killed
                raise
            return Credentials(self.uid, frozenset((self._gid,)), -1 if self.uid == 0 else 0)
        groups = frozenset((self._gid, *map(int, fields[b"Groups"].split())))
        return Credentials(self.uid, groups, int(fields[b"CapEff"], 16))


ROOT = Requester(0, 0, os.getpid())
