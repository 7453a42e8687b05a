"""Whether the file system of an upper takes changes, as far as that is known without making one.

A disk's failure shows when it is written to.  Most file systems then end all changes themselves,
and say so in one of three ways.  They become read-only (ext4 with errors=remount-ro, btrfs).  They
stay writable by name and show a word among their options (ext4 since Linux 6.15, and after its
ioctl to shut it down).  Or they answer nothing at all any more (xfs).
"""

import os

from unionfs.host import mountinfo

# Options in mountinfo -> what they mean: fs/ext4/super.c, _ext4_show_options.
_SAID = {
    "emergency_ro": "has ended all changes after an error",
    "shutdown": "was shut down after an error",
}


def mounts() -> int:
    """Return a descriptor for `trouble`; to be opened before no path leads to it any more."""
    return os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)


def trouble(upper: int, mounts: int) -> str:
    """Say what is wrong with the file system of the directory *upper*, "" where all is well."""
    try:
        if os.fstatvfs(upper).f_flag & os.ST_RDONLY:
            return "is read-only"
        device = os.fstat(upper).st_dev
    except OSError as exc:
        return f"fails: {exc.strerror}"
    return _said_of(f"{os.major(device)}:{os.minor(device)}", mounts)


def _said_of(device: str, mounts: int) -> str:
    os.lseek(mounts, 0, os.SEEK_SET)
    with open(mounts, "rb", closefd=False) as lines:
        for line in lines:
            if f" {device} ".encode() in line:
                options = mountinfo.parse(os.fsdecode(line)).options
                return next((_SAID[option] for option in options if option in _SAID), "")
    return ""
