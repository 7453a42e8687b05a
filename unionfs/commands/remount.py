"""`-o remount`: other flags for a live mount, such as ro, and rw again.

mount(2) with MS_REMOUNT sets all flags anew.  So the mount's own flags are the start,
and those given are added.  All other options stay as they were when the union was
mounted: mount(8) repeats them from fstab and the mount table.
"""

import os
import sys

from unionfs.host import mountcalls, mountinfo
from unionfs.mounting import live
from unionfs.mounting.options import Options, Refused, parse

_FAILED = 1  # exit status

# Flags of statvfs(3) -> those of mount(2); all others are the same bits.
_ST_RELATIME = 4096
_SAME_BITS = (
    mountcalls.MS_RDONLY
    | mountcalls.MS_NOSUID
    | mountcalls.MS_NODEV
    | mountcalls.MS_NOEXEC
    | mountcalls.MS_SYNCHRONOUS
    | mountcalls.MS_NOATIME
    | mountcalls.MS_NODIRATIME
)


def remount(mountpoint: str, strings: list[str]) -> int:
    """Change the flags of a live mount, starting from its own."""
    mounted = live.find(mountpoint)
    if mounted.status is None:
        raise Refused(f"the daemon of '{mountpoint}' is dead: unmount it and mount it again")
    options = parse(strings, Options(flags=_flags_at(mounted.mountpoint)))
    if not options.flags & mountcalls.MS_RDONLY and mounted.status["layers"]["upper"] is None:
        raise Refused(
            f"'{mountpoint}' has no upper layer, so it stays read-only:"
            " mount it again with --upper and --work, or with --ram"
        )
    flags = options.flags | mountcalls.MS_REMOUNT
    try:
        mountcalls.mount("none", mounted.mountpoint, "none", flags)
    except OSError as exc:
        print(f"unionfs: cannot remount '{mountpoint}': {exc.strerror}", file=sys.stderr)
        return _FAILED
    live.find(mountpoint)  # to tell its status, the daemon looks at its own flags: `atimes`
    return 0


def _flags_at(path: str) -> int:
    said = os.statvfs(path).f_flag
    flags = said & _SAME_BITS | (mountcalls.MS_RELATIME if said & _ST_RELATIME else 0)
    mount = mountinfo.top_at(path)
    return flags | (mountcalls.MS_DIRSYNC if mount and "dirsync" in mount.options else 0)
