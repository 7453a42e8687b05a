"""Checks: who may rename what; made by the user nobody, so they need root."""

import errno
import os

from unionfs.probe.children import NOBODY, as_nobody
from unionfs.probe.model import Trial, beyond, posix, refuses
from unionfs.probe.trees import File

# Modes of the directories, by what others may do there.
OPEN, STICKY, CLOSED, UNSEARCHABLE, READ_ONLY = 0o777, 0o1777, 0o755, 0o766, 0o555


@posix("another user, in a directory of all", {"source": "new", "target": "old"})
def others_may(trial: Trial) -> None:
    """POSIX: write permission on the parents is all that is needed, even for files of others."""
    os.chmod(".", OPEN)
    as_nobody(lambda: os.rename("source", "target"))()
    trial.shows({"target": "new"})


@posix(
    "another user, no write permission: EACCES", {"source": {"f": "new"}, "target": {"f": "old"}}
)
def others_may_not(trial: Trial) -> None:
    """POSIX: [EACCES], one of the directories containing old or new denies write permission."""
    for readable, writable in (("source", "target"), ("target", "source")):
        os.chmod(readable, CLOSED)
        os.chmod(writable, OPEN)
        refuses(as_nobody(lambda: os.rename("source/f", "target/f")), errno.EACCES)
        refuses(as_nobody(lambda: os.rename("source/f", "target/new")), errno.EACCES)
    trial.unchanged()


@posix("another user, no search permission: EACCES", {"source": {"f": "new"}, "target": "old"})
def others_may_not_search(trial: Trial) -> None:
    """POSIX: [EACCES], a component of either path prefix denies search permission."""
    os.chmod(".", OPEN)
    os.chmod("source", UNSEARCHABLE)
    refuses(as_nobody(lambda: os.rename("source/f", "target")), errno.EACCES)
    os.chmod("source", CLOSED)
    trial.unchanged()


@posix("sticky: a file of another stays: EPERM", {"source": "new", "target": "old"})
def sticky_source(trial: Trial) -> None:
    """POSIX: [EPERM] or [EACCES], S_ISVTX is set and the caller owns neither file nor directory."""
    os.chmod(".", STICKY)
    refuses(as_nobody(lambda: os.rename("source", "new")), errno.EPERM, errno.EACCES)
    trial.unchanged()


@posix(
    "sticky: a file of another is not replaced",
    {"source": File("new", owner=NOBODY), "target": "old"},
)
def sticky_target(trial: Trial) -> None:
    """POSIX: the same holds for the file named by new, should it exist."""
    os.chmod(".", STICKY)
    refuses(as_nobody(lambda: os.rename("source", "target")), errno.EPERM, errno.EACCES)
    trial.unchanged()


@posix(
    "sticky: one's own files are renamed",
    {"source": File("new", owner=NOBODY), "target": File("old", owner=NOBODY)},
)
def sticky_own(trial: Trial) -> None:
    """POSIX: the owner of the files may."""
    os.chmod(".", STICKY)
    as_nobody(lambda: os.rename("source", "target"))()
    trial.shows({"target": "new"})


@beyond("a directory of another keeps its parent", {"source": {"d": {}}, "target": {}})
def others_directory_moves(trial: Trial) -> None:
    """Linux: EACCES: ".." of a directory changes, so it needs write permission itself."""
    for directory in ("source", "target"):
        os.chmod(directory, OPEN)
    refuses(as_nobody(lambda: os.rename("source/d", "target/d")), errno.EACCES)
    trial.unchanged()


@posix("no one but root renames in a 0555 directory", {"source": {"f": File("new", owner=NOBODY)}})
def read_only_directory(trial: Trial) -> None:
    """POSIX: [EACCES], even for the owner of the file."""
    os.chmod("source", READ_ONLY)
    refuses(as_nobody(lambda: os.rename("source/f", "source/new")), errno.EACCES)
    trial.unchanged()
