"""The writable layers of a union: opened, tried and claimed for one mount alone.

Upper and work are directories of one file system and of one mount.  The features that
a union needs of them (whiteouts, trusted attributes, renames that exchange) are tried
in work, under a name that is removed again.  Locks on both keep other unions out
(`claims`).  Kernel overlayfs takes no such lock, so its mounts are looked for in the
mount table.
"""

import contextlib
import errno
import logging
import os
import stat
from collections.abc import Callable, Iterator

from unionfs.host import copies, mountcalls, mountinfo, syscalls
from unionfs.layers.layer import WritableLayer
from unionfs.mounting import claims
from unionfs.mounting.options import Refused
from unionfs.mounting.places import Place

log = logging.getLogger(__name__)


def open_ram(size: str, like: int) -> tuple[WritableLayer, WritableLayer, int]:
    """Return upper and work in a tmpfs that is mounted nowhere, and the tmpfs, as `open_upper`.

    *size* is as tmpfs(5) takes it, "" for half of the RAM.  The mount shows upper's
    root as its own, so upper's root is made to resemble the directory *like*.
    """
    parameters = {"mode": "755", **({"size": size} if size else {})}
    tmpfs = _tmpfs(parameters)
    try:
        os.mkdir("upper", dir_fd=tmpfs)
        os.mkdir("work", 0o700, dir_fd=tmpfs)
        upper = os.open("upper", copies.DIRECTORY, dir_fd=tmpfs)
        work = os.open("work", copies.DIRECTORY, dir_fd=tmpfs)
    except BaseException:
        os.close(tmpfs)
        raise
    resemble(upper, like)
    return WritableLayer(upper, name="ram"), WritableLayer(work, name="ram"), tmpfs


def _tmpfs(parameters: dict[str, str]) -> int:
    try:
        tmpfs = mountcalls.detached_tmpfs(**parameters)
    except OSError as exc:
        if exc.errno != errno.ENOSYS:
            raise Refused(f"a RAM upper cannot be had: {exc.strerror}") from None
        return _hidden_tmpfs(parameters)
    with contextlib.suppress(OSError):  # before Linux 5.12
        copies.guard(tmpfs)
    return tmpfs


def _hidden_tmpfs(parameters: dict[str, str]) -> int:
    """Return a tmpfs that was mounted for a moment only, for kernels before Linux 5.2."""
    import tempfile  # noqa: PLC0415 - slow to import, and old kernels only

    place = tempfile.mkdtemp(prefix="unionfs-")
    try:
        data = ",".join(f"{key}={value}" for key, value in parameters.items())
        mountcalls.mount("tmpfs", place, "tmpfs", 0, data)
        try:
            return os.open(place, copies.DIRECTORY)
        finally:
            mountcalls.umount(place, mountcalls.MNT_DETACH)
    finally:
        os.rmdir(place)


def resemble(fd: int, like: int) -> None:
    """Give the new directory *fd* the owner, mode, times and attributes of *like*."""
    st = os.fstat(like)
    os.fchown(fd, st.st_uid, st.st_gid)
    os.fchmod(fd, stat.S_IMODE(st.st_mode))
    for name in _attributes(like):
        if not name.startswith("trusted."):
            with contextlib.suppress(OSError):  # tmpfs has no user.* before Linux 6.6
                os.setxattr(fd, name, os.getxattr(like, name))
    os.utime(fd, ns=(st.st_atime_ns, st.st_mtime_ns))


def _attributes(fd: int) -> list[str]:
    try:
        return os.listxattr(fd)
    except OSError:
        return []


def open_upper(
    upper: Place, work: Place, attached: list[Place], whiteout: str = "overlay"
) -> tuple[WritableLayer, WritableLayer, int]:
    """Open, claim and try both; return them and the detached copy of the mount that holds them.

    Where there is no copy, it is -1, and they join *attached*.  They are tried for the format
    *whiteout*: "overlay" or "aufs".
    """
    for place in (upper, work):
        if os.fstatvfs(place.fd).f_flag & os.ST_RDONLY:
            raise Refused(
                f"{place.label} is on a read-only file system: mount that read-write,"
                " or leave upper and work out for a read-only union"
            )
        refuse_kernel_overlay(place)
    copy, fds = open_together([upper, work], attached)
    with contextlib.ExitStack() as undo:
        if copy >= 0:
            undo.callback(os.close, copy)
        for fd, place in zip(fds, (upper, work), strict=True):
            undo.callback(os.close, fd)
            claims.claim(fd, place)
        layers = WritableLayer(fds[0], name=upper.name), WritableLayer(fds[1], name=work.name)
        _try_out(layers[1], upper, whiteout)
        undo.pop_all()
    return *layers, copy


def open_together(writable: list[Place], attached: list[Place]) -> tuple[int, list[int]]:
    """Open directories in one copy of their mount; return the copy and the directories.

    If there can be no copy, they are opened as they are and join *attached*; the copy is -1.
    """
    names = [os.path.realpath(place.name) for place in writable]
    above = os.path.commonpath(names)
    try:
        copy, fds = copies.open_siblings(
            above, tuple(os.path.relpath(name, above) for name in names)
        )
    except OSError as exc:
        log.debug("no detached copy of %s: %s", above, exc)
    else:
        if all(map(os.path.sameopenfile, fds, (place.fd for place in writable))):
            return copy, fds
        for fd in (copy, *fds):
            os.close(fd)
    attached += writable
    return -1, [os.open(".", copies.DIRECTORY, dir_fd=place.fd) for place in writable]


def refuse_kernel_overlay(place: Place) -> None:
    """Refuse a directory that a mounted kernel overlay writes to."""
    for mount in mountinfo.mounts():
        if mount.kind != "overlay":
            continue
        for key in ("upperdir", "workdir"):
            if _is_place(mount.options.get(key, ""), place):
                raise Refused(
                    f"{place.label} is in use by the overlay mounted at '{mount.target}':"
                    " unmount that first, or choose another directory"
                )


def _is_place(path: str, place: Place) -> bool:
    with contextlib.suppress(OSError):
        st = os.stat(path)
        return (st.st_dev, st.st_ino) == place.chain[0]
    return False


# What the file system can do


def require_holes(upper: Place) -> None:
    """Refuse a file system that is not known to tell which parts of a file were written."""
    if not syscalls.knows_holes(upper.fd):
        raise Refused(
            f"{upper.label} is on a file system that copyup=blocks is not made for:"
            " choose a directory on ext4, xfs, btrfs or tmpfs, or leave copyup=blocks out"
        )


def _try_out(work: WritableLayer, upper: Place, whiteout: str) -> None:
    """Refuse a file system that cannot hold a union's upper; work is left as it was."""
    name = b".unionfs-probe"
    try:
        _remove_trial(work, name)
        work.mkdir(name, 0o700)
        _try(_for_any(work, name), upper, "")
        if whiteout == "overlay":
            _try(_for_overlay(work, name), upper, ", or -o whiteout=aufs, which does without")
    except OSError as exc:
        if exc.errno not in {errno.ENOSPC, errno.EDQUOT}:  # a full one may be read and emptied
            raise Refused(f"work '{work.name}' cannot be written to: {exc.strerror}") from None
    finally:
        _remove_trial(work, name)


_Attempts = Iterator[tuple[str, Callable[[], None]]]  # the name of a feature, and its trial


def _try(attempts: _Attempts, upper: Place, way_out: str) -> None:
    for what, attempt in attempts:
        try:
            attempt()
        except OSError as exc:
            if exc.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise
            raise Refused(
                f"{upper.label} is on a file system that cannot {what} ({exc.strerror}):"
                f" choose a directory on ext4, xfs, btrfs or tmpfs{way_out}"
            ) from None


def _for_any(work: WritableLayer, name: bytes) -> _Attempts:
    yield (
        "store trusted.* attributes",
        lambda: work.set_attribute(name, "trusted.overlay.opaque", b"y"),
    )
    yield "hold directories", lambda: work.mkdir(name + b"/directory", 0o700)


def _for_overlay(work: WritableLayer, name: bytes) -> _Attempts:
    """Try what overlayfs's format needs: overlayfs itself and some FUSE do not have it."""
    whiteout = name + b"/whiteout"
    yield "hold whiteouts", lambda: work.mknod(whiteout, stat.S_IFCHR, 0)
    yield "exchange names", lambda: work.exchange(whiteout, work, name + b"/directory")


def _remove_trial(work: WritableLayer, name: bytes) -> None:
    """Remove what `_try_out` made, also in a process that was killed."""
    if work.find(name) is None:
        return
    for path in work.scan(name):
        remove = work.rmdir if path.is_dir(follow_symlinks=False) else work.unlink
        remove(name + b"/" + path.name)
    work.rmdir(name)
