"""Who makes a request, as far as set-uid and set-gid bits are concerned.

Which of these bits fall when a file changes depends on the caller's groups, and on one of
the caller's capabilities.  A request does not tell these, but it names the thread, which waits
for the reply meanwhile: procthread_status(5).  So they are looked up where a file has such a
bit, which is rare.
"""

import errno
import os
import stat
from typing import NamedTuple

_FSID = 3  # of the four ids that a line of procthread_status(5) tells

# linux/capability.h
CAP_FOWNER = 3
CAP_FSETID = 4
CAP_SETFCAP = 31

SET_IDS = stat.S_ISUID | stat.S_ISGID
_SET_GID_OF_NO_PROGRAM = stat.S_ISGID  # of these two bits
_GROUP_PROGRAM = stat.S_ISGID | stat.S_IXGRP


class Ids(NamedTuple):
    """The ids that a user namespace has: its capabilities hold only for their objects."""

    capabilities: int = 0
    users: tuple[range, ...] = ()
    groups: tuple[range, ...] = ()


class Credentials(NamedTuple):
    """What a thread may do to set-id bits."""

    uid: int
    groups: frozenset[int]
    capabilities: int  # a bit for each: capabilities(7), the effective ones
    # Of a thread in a user namespace of its own, that has no other capabilities.
    over: Ids = Ids()

    def has(self, capability: int) -> bool:
        """Tell whether the thread has *capability*, a CAP_*: kernel/capability.c, capable."""
        return bool(self.capabilities >> capability & 1)

    def has_over(self, capability: int, st: os.stat_result) -> bool:
        """Tell whether the thread has it for an inode, too: capable_wrt_inode_uidgid."""
        if self.has(capability):
            return True
        mapped = _holds(self.over.users, st.st_uid) and _holds(self.over.groups, st.st_gid)
        return mapped and bool(self.over.capabilities >> capability & 1)

    def keeps_set_gid(self, st: os.stat_result) -> bool:
        """Tell whether set-gid of a file may stay: fs/inode.c, in_group_or_capable."""
        return st.st_gid in self.groups or self.has_over(CAP_FSETID, st)

    def gives_up(self, st: os.stat_result) -> int:
        """Return the bits that fall at a chown(2) with these: fs/open.c, chown_common."""
        taken = st.st_mode & stat.S_ISUID
        if st.st_mode & stat.S_IXGRP or not self.keeps_set_gid(st):
            taken |= st.st_mode & stat.S_ISGID
        return taken

    def is_forbidden_to_chown(self, st: os.stat_result) -> bool:
        """Tell whether chown(-1, -1) fails, as bits of another's file would fall: fs/attr.c."""
        another = self.uid != st.st_uid and not self._has_over_owner(CAP_FOWNER, st)
        return another and bool(self.gives_up(st))

    def _has_over_owner(self, capability: int, st: os.stat_result) -> bool:
        """Tell whether a capability is there for an owner: fs/inode.c, inode_owner_or_capable."""
        mapped = _holds(self.over.users, st.st_uid)
        return self.has(capability) or (mapped and bool(self.over.capabilities >> capability & 1))

    def takes(self, st: os.stat_result) -> int:
        """Return the bits that fall at a write with these: setattr_should_drop_suidgid."""
        return 0 if self.has(CAP_FSETID) else self.gives_up(st)


def _holds(ranges: tuple[range, ...], number: int) -> bool:
    return any(number in one for one in ranges)


def is_set_gid_alone(mode: int) -> bool:
    """Tell whether *mode* is set-gid without group execute, which only some lose."""
    return mode & _GROUP_PROGRAM == _SET_GID_OF_NO_PROGRAM and not stat.S_ISDIR(mode)


class Requester:
    """Who made a request: the ids of the file system, and the thread."""

    __slots__ = ("gid", "thread", "uid")

    def __init__(self, uid: int, gid: int, thread: int) -> None:
        self.uid = uid
        self.gid = gid
        self.thread = thread

    def credentials(self) -> Credentials:
        """Look up the credentials; for a thread that cannot be seen from here, the ids decide."""
        try:
            fields = _status(self.thread)
            if not self._is_meant(fields):
                return self._by_ids()
            groups = frozenset((self.gid, *map(int, fields[b"Groups"].split())))
            capabilities = int(fields[b"CapEff"], 16)
            if _namespace(self.thread) == _namespace("self"):
                return Credentials(self.uid, groups, capabilities)
            return Credentials(self.uid, groups, 0, _ids(self.thread, capabilities))
        except OSError as exc:
            if exc.errno not in {errno.ENOENT, errno.ESRCH}:  # pid 0; it was killed
                raise
            return self._by_ids()

    def _by_ids(self) -> Credentials:
        return Credentials(self.uid, frozenset((self.gid,)), -1 if self.uid == 0 else 0)

    def _is_meant(self, fields: dict[bytes, bytes]) -> bool:
        """Tell whether the thread has our ids: another one may have its number in this /proc."""
        ids = [int(fields[name].split()[_FSID]) for name in (b"Uid", b"Gid")]
        return ids == [self.uid, self.gid]


def _status(thread: int) -> dict[bytes, bytes]:
    with open(f"/proc/{thread}/status", "rb") as file:
        return dict(line.split(b":", 1) for line in file if b":" in line)


def _namespace(thread: int | str) -> int:
    return os.stat(f"/proc/{thread}/ns/user").st_ino


def _ids(thread: int, capabilities: int) -> Ids:
    """Read user_namespaces(7): the maps tell ids as this process sees them."""
    return Ids(capabilities, *(_map(f"/proc/{thread}/{kind}_map") for kind in ("uid", "gid")))


def _map(path: str) -> tuple[range, ...]:
    with open(path, encoding="ascii") as file:
        lines = [tuple(map(int, line.split())) for line in file]
    return tuple(range(start, start + length) for _, start, length in lines)


ROOT = Requester(0, 0, os.getpid())
