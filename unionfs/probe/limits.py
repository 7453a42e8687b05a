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
    """Linux: path_resolution(7) allows 4096 bytes, the NUL included, in one call."""
    directory = os.path.join(*["d" * 200] * 20)
    os.makedirs(directory)
    old = os.path.join(directory, "o").ljust(PATH_MAX - 1, "o")
    new = os.path.join(directory, "n").ljust(PATH_MAX - 1, "n")
    os.rename("source", old)
    os.rename(old, new)
    expect(trees.read(new) == "new", "another file")
    refuses(lambda: os.rename(new, new + "n"), errno.ENAMETOOLONG)


@beyond("names of any bytes", {"source": "new"})
def names_of_any_bytes(_trial: Trial) -> None:
    """Linux: path_resolution(7): a name is any bytes but "/" and NUL."""
    name = bytes(set(range(1, 256)) - {ord("/")})
    os.rename(b"source", name)
    expect(os.listdir(b".") == [name], "another name is listed")
    os.rename(name, b"\n -\xff")
    expect(os.listdir(b".") == [b"\n -\xff"], "another name is listed")
