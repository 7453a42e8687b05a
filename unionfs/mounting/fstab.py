"""What fstab(5) has to say of file systems that a configuration needs."""

import os
import re
from collections.abc import Iterator
from typing import NamedTuple

# Options of a line that speak to the mounting program, and not of the mount.
_OF_THE_TABLE = frozenset({"defaults", "noauto", "nofail", "_netdev", "auto"})

_FIELDS = 3  # that a line has at least: device, mount point, type


class Entry(NamedTuple):
    """One line."""

    device: str  # as mount(8) takes it: LABEL=..., /dev/..., a directory to be bound
    mountpoint: str
    kind: str
    options: str  # "" for none

    @property
    def is_bind(self) -> bool:
        """Tell whether a directory is shown at a second place."""
        return not {"bind", "rbind"}.isdisjoint(self.options.split(","))


def entries(root: str = "/") -> Iterator[Entry]:
    """Yield the lines of the root's fstab; nothing where there is none."""
    try:
        with open(os.path.join(root, "etc/fstab"), errors="surrogateescape") as lines:
            for line in lines:
                fields = [re.sub(r"\\([0-7]{3})", _character, field) for field in line.split()]
                if len(fields) >= _FIELDS and not fields[0].startswith("#"):
                    device, mountpoint, kind, *rest = fields
                    options = _of_the_mount(rest[0] if rest else "")
                    yield Entry(device, os.path.normpath(mountpoint), kind, options)
    except OSError:  # as if it were empty: mount(8) says what is wrong with it
        return


def _character(found: re.Match[str]) -> str:
    return chr(int(found[1], 8))


def _of_the_mount(options: str) -> str:
    said = options.split(",")
    return ",".join(
        word for word in said if word not in _OF_THE_TABLE and not word.startswith("x-")
    )


def holder(path: str, root: str = "/") -> Entry | None:
    """Return the file system that a path is on when all is mounted; None for the root's own."""
    best: Entry | None = None
    for entry in entries(root):
        above = entry.mountpoint.rstrip("/") + "/"
        if entry.mountpoint != "/" and f"{path}/".startswith(above):
            best = max(best, entry, key=lambda one: len(one.mountpoint)) if best else entry
    return best
