"""Checks: names and paths at their limits.  Tried last: FUSE daemons have died of them."""

import errno
import os

from unionfs.probe import trees
from unionfs.probe.model import Trial, beyond, expect, posix, refuses

NAME_MAX = 255  # bytes; POSIX leaves it to the file system, Linux file systems agree
LONGEST_NAME = "target".ljust(NAME_MAX, "t")
PATH_MAX = 4096  # bytes with the final NUL, limits.h


@posix("names of 255 bytes, and 256: ENAMETOOLONG", {"source": "new", LONGEST_NAME: "old"})
def longest_names(trial: Trial) -> None:
    """POSIX: [ENAMETOOLONG], a component is longer than {NAME_MAX}."""
    trial.refused("source", LONGEST_NAME + "t", errno.ENAMETOOLONG)
    trial.refused(LONGEST_NAME + "t", "source", errno.ENAMETOOLONG)
    os.rename("source", LONGEST_NAME)
    trial.shows({LONGEST_NAME: "new"})
    os.rename(LONGEST_NAME, "s" * NAME_MAX)
    trial.shows({"s" * NAME_MAX: "new"})


@beyond("paths near PATH_MAX", {"source": "new"})
def longest_paths(_trial: Trial) -> None:
    """Linux: path_resolution(7) allows 4096 bytes, the NUL included, from the mount's root on."""
    _rename_deep(PATH_MAX - 1 - len(_path_in_mount()))


@beyond("paths beyond PATH_MAX, from a working directory", {"source": "new"})
def deeper_paths(_trial: Trial) -> None:
    """Linux: the limit is on what one call is given, not on how deep a tree may be."""
    _rename_deep(PATH_MAX - 1)
    refuses(lambda: os.rename("o" * PATH_MAX, "source"), errno.ENAMETOOLONG)


def _rename_deep(length: int) -> None:
    """Rename to, at and from a relative path of *length* bytes."""
    component = "d" * 200 + "/"
    directory = component * ((length - 1) // len(component))
    os.makedirs(directory)
    old, new = directory.ljust(length, "o"), directory.ljust(length, "n")
    os.rename("source", old)
    os.rename(old, new)
    expect(trees.read(new) == "new", "another file")
    os.rename(new, "source")


def _path_in_mount() -> str:
    """Return the path of the current directory, with a slash, as its file system sees it."""
    path = os.getcwd()
    inside = "/"
    device = os.stat(path).st_dev
    while path != "/" and os.stat(os.path.dirname(path)).st_dev == device:
        path, name = os.path.split(path)
        inside = f"/{name}{inside}"
    return inside


@beyond("names of any bytes", {"source": "new"})
def names_of_any_bytes(_trial: Trial) -> None:
    """Linux: path_resolution(7): a name is any bytes but "/" and NUL."""
    name = bytes(set(range(1, 256)) - {ord("/")})
    os.rename(b"source", name)
    expect(os.listdir(b".") == [name], "another name is listed")
    os.rename(name, b"\n -\xff")
    expect(os.listdir(b".") == [b"\n -\xff"], "another name is listed")
