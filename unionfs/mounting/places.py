"""Where the directories that a user named lie, and which of them exclude each other.

A `Place` is a directory held open, so that what was checked is what is used
later.  Places are told apart by device and inode along the way up to the root,
never by their names: symlinks and bind mounts make no difference.

A union whose layers are detached copies of their mounts (`opening`) cannot
meet its own mount, so a mount point inside a layer is no loop; overlapping
layers that would let one change show up in another are refused as kernel
overlayfs does (overlayfs.rst, "Changes to underlying filesystems").
"""

import logging
import os
from typing import NamedTuple

from unionfs.layers.stack import OWN_WORK
from unionfs.mounting.options import Refused

log = logging.getLogger(__name__)

Identity = tuple[int, int]  # st_dev, st_ino


class Place(NamedTuple):
    """A directory that the user named, held open."""

    role: str  # lower, upper, work, mount point: for messages
    name: str  # an absolute path
    fd: int  # O_PATH
    chain: tuple[Identity, ...]  # its own identity, its parent's, ..., that of the root

    @property
    def label(self) -> str:
        """Return the place's name in messages."""
        return f"{self.role} '{self.name}'"

    def is_within(self, other: "Place") -> bool:
        """Tell whether this directory is the other one, or lies below it."""
        return other.chain[0] in self.chain


_EXPLAINED = {
    FileNotFoundError: "does not exist: make it first",
    NotADirectoryError: "is not a directory",
}


def find(role: str, name: str) -> Place:
    """Hold the directory *name* open; refuse what is none."""
    try:
        path = os.path.abspath(name)  # fails where it is relative to a directory that is gone
        fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        return Place(role, path, fd, _chain(fd))
    except OSError as exc:
        why = _EXPLAINED.get(type(exc), f"cannot be opened: {exc.strerror}")
        raise Refused(f"{role} '{name}' {why}") from None


def _chain(fd: int) -> tuple[Identity, ...]:
    identities = [_identity(fd)]
    current = os.dup(fd)
    while True:
        try:
            parent = os.open("..", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=current)
        except OSError:  # some FUSE file systems shut out even root: what is above stays unknown
            break
        finally:
            os.close(current)
        identity = _identity(parent)
        if identity == identities[-1]:
            os.close(parent)
            break
        identities.append(identity)
        current = parent
    return tuple(identities)


def _identity(fd: int) -> Identity:
    st = os.fstat(fd)
    return st.st_dev, st.st_ino


def check_layers(upper: Place | None, work: Place | None, lowers: list[Place]) -> None:
    """Refuse layers if one of them would change behind another's back."""
    _check_twice(lowers)
    if upper is None or work is None:
        return
    _check_pair(upper, work)
    for lower in lowers:
        for writable in (upper, work):
            if lower.is_within(writable):
                raise Refused(
                    f"{lower.label} is inside {writable.label}: it would change with it;"
                    " move one of them elsewhere"
                )
        if upper.is_within(lower) or work.is_within(lower):
            log.info(
                "%s is inside %s: what is written there shows up in the union a second time",
                (upper if upper.is_within(lower) else work).label,
                lower.label,
            )


def within_another(found: list[Place]) -> list[Place]:
    """Return the places that lie within another of them, on the same file system."""
    heads = {place.chain[0] for place in found}
    return [
        place
        for place in found
        if any(above in heads and above[0] == place.chain[0][0] for above in place.chain[1:])
    ]


def _check_twice(lowers: list[Place]) -> None:
    seen: dict[Identity, Place] = {}
    for lower in lowers:
        first = seen.setdefault(lower.chain[0], lower)
        if first is not lower:
            raise Refused(
                f"lower '{first.name}' and lower '{lower.name}' are the same directory:"
                " leave one out"
            )


def _check_pair(upper: Place, work: Place) -> None:
    if upper.chain[0] == work.chain[0]:
        raise Refused(f"{upper.label} and {work.label} are the same directory: give two")
    for inner, outer in ((upper, work), (work, upper)):
        if inner.is_within(outer) and not (outer.role == "state" and is_own_work(inner, outer)):
            raise Refused(
                f"{inner.label} is inside {outer.label}: put them side by side,"
                " on the same file system"
            )
    if upper.chain[0][0] != work.chain[0][0]:
        raise Refused(
            f"{upper.label} and {work.label} are on different file systems:"
            " choose a work directory beside upper"
        )
    if _mount_number(upper.fd) != _mount_number(work.fd):
        raise Refused(
            f"{upper.label} and {work.label} are on different mounts of one file system:"
            " name them through the same mount, files cannot be renamed between two"
        )


def is_own_work(work: Place, state: Place) -> bool:
    """Tell whether a work directory is the one that a state directory has in itself."""
    return os.path.basename(work.name) == OWN_WORK and work.chain[1:2] == state.chain[:1]


def check_sides(scratch: list[Place], state: list[Place]) -> None:
    """Refuse a state that would be emptied with scratch, or scratch that would be kept in it."""
    for one in scratch:
        for other in state:
            if one.is_within(other) or other.is_within(one):
                raise Refused(f"{one.label} and {other.label} are nested: keep them apart")


def _mount_number(fd: int) -> int:
    """Return the number of the mount that a descriptor is in: proc_pid_fdinfo(5)."""
    with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("mnt_id:"))


def check_mountpoint(mountpoint: Place, layers: list[Place], attached: list[Place]) -> None:
    """Refuse a mount point with which the daemon would wait for itself.

    *layers* are all of them; *attached* those that are not detached copies:
    below these the daemon would walk into its own mount.
    """
    for place in layers:
        if mountpoint.is_within(place) and place.role == "work":
            raise Refused(f"{mountpoint.label} is inside {place.label}: mount it elsewhere")
    for place in attached:
        if mountpoint.is_within(place) and mountpoint.chain != place.chain:
            raise Refused(
                f"{mountpoint.label} is inside {place.label}, which needs Linux 5.12 or newer:"
                " mount it elsewhere"
            )
    if all(place.chain[0] != mountpoint.chain[0] for place in layers):
        _warn_of_content(mountpoint)


def _warn_of_content(mountpoint: Place) -> None:
    fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=mountpoint.fd)
    try:
        with os.scandir(fd) as entries:
            if any(True for _ in entries):
                log.warning("%s is not empty: its content is hidden", mountpoint.label)
    finally:
        os.close(fd)
