"""What a directory passes on to new objects in it; what work passes on does not reach the union.

A new object takes from its directory a group, with set-gid (mkdir(2)) or on a mount
with `grpid`, a default ACL (acl(5)), inode flags and a project (ioctl_iflags(2),
ioctl_xfs_fsgetxattr(2)), and labels of security modules.  So our directories in work
are made to pass nothing on.  (Overlayfs does so with the ACL alone, fs/overlayfs/super.c,
ovl_workdir_create.)  They pass on only the project of upper's root: objects are moved and
linked between work and upper, and that is EXDEV for an object of another project.

Where a new object cannot be made in its own directory, it is made in a stand-in: a
directory in work that passes on the same as that one.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from typing import NamedTuple

from unionfs.host.acting import Acting
from unionfs.layers import iflags, links, staging
from unionfs.layers.iflags import EXTENDED, FLAGS
from unionfs.layers.layer import Layer, WritableLayer, join
from unionfs.layers.staging import Staging

_DEFAULT_ACL = "system.posix_acl_default"
_ACLS = ("system.posix_acl_access", _DEFAULT_ACL)
_LABELS = "security."

# Flags that new objects take from their directory on some file system: fs/ext4/ext4.h
# (EXT4_FL_INHERITED), fs/btrfs/inode.c (btrfs_inherit_iflags), mm/shmem.c, fs/f2fs/namei.c.
_FLAGS_PASSED_ON = (
    0x1 | 0x2 | 0x4 | 0x8 | 0x40 | 0x80 | 0x400 | 0x4000 | 0x8000 | 0x10000
    | 0x0080_0000 | 0x0200_0000 | 0x2000_0000 | 0x4000_0000
)  # fmt: skip
# The same of FS_XFLAG_*: fs/xfs/libxfs/xfs_inode_util.c, xfs_inode_inherit_flags.
_EXTENDED_PASSED_ON = (
    0x20 | 0x40 | 0x80 | 0x100 | 0x200 | 0x400 | 0x1000 | 0x2000 | 0x8000 | 0x10000
)

_NOTHING = bytes(EXTENDED.size)


class Heritage(NamedTuple):
    """What a directory passes on."""

    group: int
    set_gid: bool
    acl: bytes | None
    flags: int  # FS_*_FL
    extended: bytes  # struct fsxattr: flags, a project, sizes of extents
    labels: tuple[tuple[str, bytes], ...]  # attributes of security modules


def _extended(data: bytes) -> bytes:
    """Return the part of a struct fsxattr that is passed on: not the count of extents."""
    flags = EXTENDED.flags(data) & _EXTENDED_PASSED_ON
    if not flags:
        return _NOTHING
    return EXTENDED.with_flags(data[:8] + bytes(4) + data[12:], flags)


def heritage(layer: Layer, path: bytes, *, labelled: bool) -> Heritage:
    """Return what the directory *path* passes on; labels only if the layer has any (*labelled*)."""
    fd = layer.open(path, os.O_RDONLY)
    try:
        st = os.fstat(fd)
        return Heritage(
            st.st_gid,
            bool(st.st_mode & stat.S_ISGID),
            _default_acl(fd),
            FLAGS.flags(iflags.find_open(fd, FLAGS)) & _FLAGS_PASSED_ON,
            _extended(iflags.find_open(fd, EXTENDED)),
            _labels_of(fd) if labelled else (),
        )
    finally:
        os.close(fd)


def _default_acl(fd: int) -> bytes | None:
    try:
        return os.getxattr(fd, _DEFAULT_ACL)
    except OSError as exc:
        if exc.errno not in (errno.ENODATA, errno.EOPNOTSUPP):
            raise
        return None


def _labels_of(fd: int) -> tuple[tuple[str, bytes], ...]:
    names = sorted(name for name in os.listxattr(fd) if name.startswith(_LABELS))
    return tuple((name, os.getxattr(fd, name)) for name in names)


def prepare(work: WritableLayer, upper: Layer) -> None:
    """Make our directories in *work*, if need be, and let them pass on no more than they must."""
    for path in (staging.DIRECTORY, *links.DIRECTORIES):
        st = work.find(path)
        if st is None:
            work.mkdir(path, stat.S_IRWXU)
        elif not stat.S_ISDIR(st.st_mode):  # a symlink would lead out of work
            raise OSError(errno.ENOTDIR, f"{work.name}: {os.fsdecode(path)} is no directory")
        _make_neutral(work, path, upper)


def _make_neutral(work: WritableLayer, path: bytes, upper: Layer) -> None:
    """Have a directory of ours in *work* pass nothing on but the project of *upper*'s root."""
    before = FLAGS.flags(iflags.find(work, path, FLAGS))
    now = before & ~(_FLAGS_PASSED_ON | iflags.PROTECTING)
    if now != before:
        work.set_flags(path, FLAGS.write, FLAGS.with_flags(b"", now))
    for acl in _ACLS:
        if work.find_attribute(path, acl) is not None:
            work.remove_attribute(path, acl)
    if stat.S_IMODE(work.stat(path).st_mode) != stat.S_IRWXU:
        work.chmod(path, stat.S_IRWXU)
    project = _project(iflags.find(upper, b".", EXTENDED))
    if _extended(iflags.find(work, path, EXTENDED)) != project:
        _set_extended(work, path, project)


def _project(data: bytes) -> bytes:
    """Return a struct fsxattr that holds only the project of *data*, if that is passed on."""
    passed_on = EXTENDED.flags(data) & iflags.PROJECT_PASSED_ON
    number = data[iflags.PROJECT] if passed_on else bytes(4)
    return EXTENDED.with_flags(bytes(12) + number + bytes(12), passed_on)


def _set_extended(layer: WritableLayer, path: bytes, wished: bytes) -> None:
    """Set what is passed on as *wished*, and leave other flags as they are."""
    now = iflags.find(layer, path, EXTENDED)
    flags = EXTENDED.flags(now) & ~_EXTENDED_PASSED_ON | EXTENDED.flags(wished)
    layer.set_flags(path, EXTENDED.write, EXTENDED.with_flags(wished, flags))


class StandIns:
    """Where new objects of one union are staged."""

    def __init__(self, area: Staging, upper: WritableLayer, acting: Acting) -> None:
        self._staging = area
        self._acting = acting
        self._upper, self._work = upper, area.work
        self._own = heritage(self._work, staging.DIRECTORY, labelled=True)
        self._labelled = bool(self._own.labels)

    @contextlib.contextmanager
    def staging(self, directory: bytes, name: bytes) -> Iterator[bytes]:
        """Yield a path in work at which new objects inherit what they would in *directory*.

        Mostly they would inherit nothing.  Else the path is in a stand-in.
        """
        wanted = heritage(self._upper, directory, labelled=self._labelled)
        staged = self._staging.name()
        stand_in = wanted != self._own
        try:
            if stand_in:
                self._make(staged, self._upper.stat(directory), wanted)
            yield join(staged, name) if stand_in else staged
        except BaseException:
            self._staging.drop(staged)
            raise
        if stand_in:
            self._staging.drop(staged)

    def _make(self, stand_in: bytes, like: os.stat_result, wanted: Heritage) -> None:
        self._acting.as_root()
        work = self._work
        work.mkdir(stand_in, 0o700)
        work.chown(stand_in, like.st_uid, like.st_gid)
        work.chmod(stand_in, stat.S_IMODE(like.st_mode))
        if wanted.acl is not None:
            work.set_attribute(stand_in, _DEFAULT_ACL, wanted.acl)
        for name, value in wanted.labels:
            work.set_attribute(stand_in, name, value)
        if wanted.extended != self._own.extended:
            _set_extended(work, stand_in, wanted.extended)
        if wanted.flags != self._own.flags:
            iflags.add(work, stand_in, wanted.flags)
