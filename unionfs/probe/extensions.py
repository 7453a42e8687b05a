"""Checks: what Linux adds, renameat2(2)'s flags and mount points."""

import errno
import os
import stat

from unionfs.host import mountcalls
from unionfs.host.syscalls import RENAME_EXCHANGE, RENAME_NOREPLACE, RENAME_WHITEOUT, renameat2
from unionfs.probe import trees
from unionfs.probe.model import (
    LACKING,
    NotSupportedError,
    NotTriedError,
    Trial,
    beyond,
    expect,
    refuses,
)
from unionfs.probe.trees import Other

EXCHANGE, NOREPLACE, WHITEOUT = RENAME_EXCHANGE, RENAME_NOREPLACE, RENAME_WHITEOUT
HERE = -100  # AT_FDCWD, fcntl.h
MS_BIND = 4096  # sys/mount.h

_WHITED_OUT = Other("c")


def rename_with(flags: int, source: str, target: str) -> None:
    """Rename with *flags*; raise NotSupportedError where the file system knows them not."""
    try:
        _rename(flags, source, target)
    except OSError as exc:
        if exc.errno in LACKING:
            raise NotSupportedError(errno.errorcode[exc.errno]) from None
        raise


def _rename(flags: int, source: str, target: str) -> None:
    renameat2(HERE, os.fsencode(source), HERE, os.fsencode(target), flags)


@beyond("NOREPLACE: to a new name", {"source": "new", "source-2": {"a": "b"}})
def noreplace_to_nothing(trial: Trial) -> None:
    """Linux: without a newpath it is a rename as any."""
    rename_with(NOREPLACE, "source", "target")
    rename_with(NOREPLACE, "source-2", "target-2")
    trial.shows({"target": "new", "target-2": {"a": "b"}})


@beyond("NOREPLACE: onto anything: EEXIST", {"source": "new", "target": "old", "target-2": {}})
def noreplace_onto_something(trial: Trial) -> None:
    """Linux: "Don't overwrite newpath of the rename. Return an error if newpath already exists"."""
    rename_with(NOREPLACE, "source", "other")
    rename_with(NOREPLACE, "other", "source")
    for target in ("target", "target-2", "source"):
        refuses(lambda target=target: _rename(NOREPLACE, "source", target), errno.EEXIST)  # type: ignore[misc]
    trial.unchanged()


@beyond("EXCHANGE: two files", {"source": "new", "target": "old"})
def exchange_files(trial: Trial) -> None:
    """Linux: "Both pathnames must exist but may be of different types"."""
    rename_with(EXCHANGE, "source", "target")
    trial.shows({"source": "old", "target": "new"})


@beyond("EXCHANGE: two full directories", {"source": {"a": "new"}, "target": {"b": "old"}})
def exchange_directories(trial: Trial) -> None:
    """Linux: they need not be empty."""
    rename_with(EXCHANGE, "source", "target")
    trial.shows({"source": {"b": "old"}, "target": {"a": "new"}})


@beyond("EXCHANGE: a file and a directory", {"source": "new", "target": {"b": "old"}})
def exchange_mixed(trial: Trial) -> None:
    """Linux: "for example, one could be a non-empty directory and the other a symbolic link"."""
    rename_with(EXCHANGE, "source", "target")
    trial.shows({"source": {"b": "old"}, "target": "new"})


@beyond(
    "EXCHANGE: across directories", {"source": {"x": "1"}, "target": {"x": {"y": "2"}, "z": ""}}
)
def exchange_across(trial: Trial) -> None:
    """Linux: oldpath and newpath need not be in one directory."""
    rename_with(EXCHANGE, "source/x", "target/x")
    trial.shows({"source": {"x": {"y": "2"}}, "target": {"x": "1", "z": ""}})
    expect(os.path.samefile("source/x/..", "source"), '".." leads to the old parent')


@beyond("EXCHANGE: twice is not at all", {"source": "new", "target": {"b": "old"}})
def exchange_twice(trial: Trial) -> None:
    """Linux: an exchange undoes itself."""
    rename_with(EXCHANGE, "source", "target")
    rename_with(EXCHANGE, "source", "target")
    trial.unchanged()


@beyond("EXCHANGE: refusals", {"source": {"child": {}}, "target": "old"})
def exchange_refused(trial: Trial) -> None:
    """Linux: ENOENT, a path is missing; EINVAL, with its own child, or NOREPLACE besides."""
    rename_with(EXCHANGE, "source", "target")
    rename_with(EXCHANGE, "source", "target")
    refuses(lambda: _rename(EXCHANGE, "source", "missing"), errno.ENOENT)
    refuses(lambda: _rename(EXCHANGE, "source", "source/child"), errno.EINVAL)
    refuses(lambda: _rename(EXCHANGE, "source/child", "source"), errno.EINVAL)
    refuses(lambda: _rename(EXCHANGE | NOREPLACE, "source", "target"), errno.EINVAL)
    trial.unchanged()


@beyond("WHITEOUT: leaves a device 0:0", {"source": "new", "target": "old"})
def whiteout_over_file(trial: Trial) -> None:
    """Linux: "creates a whiteout object at the source of the rename"; needs CAP_MKNOD."""
    rename_with(WHITEOUT, "source", "target")
    trial.shows({"source": _WHITED_OUT, "target": "new"})
    st = os.lstat("source")
    expect(stat.S_ISCHR(st.st_mode) and st.st_rdev == 0, "another object is at the source")


@beyond("WHITEOUT: of a directory", {"source": {"a": "new"}})
def whiteout_directory(trial: Trial) -> None:
    """Linux: any kind of source, and with a new name as target."""
    rename_with(WHITEOUT, "source", "target")
    trial.shows({"source": _WHITED_OUT, "target": {"a": "new"}})


@beyond("unknown flags: EINVAL", {"source": "new"})
def unknown_flags(trial: Trial) -> None:
    """Linux: EINVAL, an invalid flag was specified."""
    refuses(lambda: _rename(1 << 20, "source", "target"), errno.EINVAL)
    trial.unchanged()


@beyond("onto or of a mount point: EBUSY", {"source": {}, "target": {}, "spare": {}})
def mount_point(_trial: Trial) -> None:
    """Linux: EBUSY, a directory is in use by the system, "for example as mount point"."""
    _private()
    _bind("spare", "target")
    refuses(lambda: os.rename("source", "target"), errno.EBUSY)
    refuses(lambda: os.rename("target", "other"), errno.EBUSY)
    os.rename("source", "other")


@beyond("onto a bind-mounted file: EBUSY", {"source": "new", "target": "old"})
def bound_file(_trial: Trial) -> None:
    """Linux: EBUSY, so too for files: why passwd(1) fails on a bind-mounted /etc/shadow."""
    _private()
    _bind("target", "target")
    refuses(lambda: os.rename("source", "target"), errno.EBUSY)
    expect(trees.read("target") == "old", "another content")


@beyond("between mounts: EXDEV", {"source": {"f": "new"}, "target": {}})
def between_mounts(_trial: Trial) -> None:
    """Linux: EXDEV, not the same mounted file system, "even if the same file system"."""
    _private()
    _bind("target", "target")
    refuses(lambda: os.rename("source/f", "target/f"), errno.EXDEV)


def _bind(source: str, target: str) -> None:
    mountcalls.mount(source, target, "", MS_BIND)


def _private() -> None:
    """Leave the mount namespace of the others for one of our own, which ends with the check."""
    if os.geteuid() != 0:
        raise NotTriedError("needs root, to mount")
    try:
        mountcalls.unshare_mounts()
    except OSError as exc:
        raise NotTriedError(f"no mount namespace: {exc.strerror}") from exc
