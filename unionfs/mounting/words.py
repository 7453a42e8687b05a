"""Options of others: the flags of mount(8), the options that it keeps, and overlayfs's."""

from unionfs.host import mountcalls

# Option of mount(8) -> the MS_* bits that it clears and the ones that it sets.  noatime, relatime
# and strictatime do not clear each other: of those given the kernel takes strictatime, or else
# noatime.
FLAGS: dict[str, tuple[int, int]] = {
    "ro": (0, mountcalls.MS_RDONLY),
    "rw": (mountcalls.MS_RDONLY, 0),
    "nosuid": (0, mountcalls.MS_NOSUID),
    "suid": (mountcalls.MS_NOSUID, 0),
    "nodev": (0, mountcalls.MS_NODEV),
    "dev": (mountcalls.MS_NODEV, 0),
    "noexec": (0, mountcalls.MS_NOEXEC),
    "exec": (mountcalls.MS_NOEXEC, 0),
    "sync": (0, mountcalls.MS_SYNCHRONOUS),
    "async": (mountcalls.MS_SYNCHRONOUS, 0),
    "dirsync": (0, mountcalls.MS_DIRSYNC),
    "noatime": (0, mountcalls.MS_NOATIME),
    "atime": (mountcalls.MS_NOATIME, 0),
    "relatime": (0, mountcalls.MS_RELATIME),
    "norelatime": (mountcalls.MS_RELATIME, 0),
    "strictatime": (0, mountcalls.MS_STRICTATIME),
    "nostrictatime": (mountcalls.MS_STRICTATIME, 0),
    "nodiratime": (0, mountcalls.MS_NODIRATIME),
    "diratime": (mountcalls.MS_NODIRATIME, 0),
    "defaults": (0, 0),
}

# The kernel shows these in the mount table, from where mount(8) takes them for a remount.
_IN_MOUNT_TABLE = ("user_id=", "group_id=", "max_read=", "blksize=")

# These are for mount(8), systemd or libfuse, or ask for what unionfs does anyway.
IGNORED = frozenset(
    {
        "_netdev",
        "allow_other",
        "auto",
        "default_permissions",
        "loud",
        "noauto",
        "nofail",
        "noiversion",
        "nolazytime",
        "nomand",
        "nouser",
        "nousers",
        "silent",
    }
)
IGNORED_PREFIXES = ("x-", "X-", "comment=", "uhelper=", "helper=", *_IN_MOUNT_TABLE)

# Options of others that a user may bring along -> the message.
EXPLAINED = {
    **dict.fromkeys(
        ("user", "users", "owner", "group", "allow_root"),
        "only root can mount a union; leave the option out",
    ),
    "index": "hard links are always kept; leave the option out",
    "xino": "inode numbers are always stable; leave the option out",
    "volatile": "say fsync=off",
    "userxattr": "markers are trusted.* attributes or, with whiteout=aufs, names",
    "nfs_export": "a union cannot be exported by NFS",
    "uuid": "leave the option out",
    "verity": "fs-verity digests are not checked",
    "lazytime": "a union has no times of its own; leave the option out",
    "mand": "Linux has no mandatory locks any more",
}
