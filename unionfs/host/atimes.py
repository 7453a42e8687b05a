"""When reading sets access times: the options of mount(8), for objects in upper.

The kernel never sets access times of FUSE inodes itself (fs/fuse/inode.c, S_NOATIME): the host
does, where it reads the file or directory in upper.  It goes by the flags of the mount through
which it reads, which is our detached copy.  So the copy gets the union's flags, and not those
of upper's own mount, as with kernel overlayfs (fs/overlayfs/super.c, ovl_get_upper).  Access
times in lowers never change.

A read from the page cache reaches neither the daemon nor the host.  So an open of a file that
was changed since it was last read starts with an empty cache, and the access time becomes later
than the change (relatime).  With strictatime nothing stays cached, and what can passes through.
"""

import logging

from unionfs.host import mountcalls, mountinfo

log = logging.getLogger(__name__)


class AccessTimes:
    """The access times of one union."""

    def __init__(self, *copies: int) -> None:
        """Rule over the detached mounts whose roots are open as *copies*; -1: there is none."""
        self._copies = [copy for copy in copies if copy >= 0]
        self.count = False  # are they set at all?
        self.strict = False  # at each read?

    def follow(self, flags: int) -> None:
        """Set access times as a mount with *flags*, MS_* of mount(2), does."""
        strict = flags & mountcalls.MS_STRICTATIME
        self.count = not flags & mountcalls.MS_RDONLY and bool(
            strict or not flags & mountcalls.MS_NOATIME
        )
        self.strict = self.count and bool(strict)
        attributes = 0 if self.count else mountcalls.MOUNT_ATTR_NOATIME
        if self.strict:
            attributes = mountcalls.MOUNT_ATTR_STRICTATIME
        if flags & mountcalls.MS_NODIRATIME:
            attributes |= mountcalls.MOUNT_ATTR_NODIRATIME
        for copy in self._copies:
            try:
                mountcalls.set_attributes(
                    copy, add=attributes, remove=mountcalls.MOUNT_ATTR_ALL_OF_ATIME, private=False
                )
            except OSError as exc:  # mount_setattr(2): locked by a user namespace
                log.warning("access times are set as on upper's own mount: %s", exc.strerror)

    def follow_mount(self, device: str) -> None:
        """Set access times as the mount of the file system *device* says now, after a remount."""
        for mount in mountinfo.mounts():
            if mount.device == device:
                self.follow(_flags(mount.flags))
                return


def _flags(words: frozenset[str]) -> int:
    """Return the flags in the mount table as MS_*; strictatime is not written there."""
    flags = mountcalls.MS_RDONLY if "ro" in words else 0
    if "noatime" in words:
        flags |= mountcalls.MS_NOATIME
    elif "relatime" not in words:
        flags |= mountcalls.MS_STRICTATIME
    return flags | (mountcalls.MS_NODIRATIME if "nodiratime" in words else 0)
