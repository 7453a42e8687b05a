"""An upper directory that is looked at without being mounted: `diff` and `check`.

A union records on upper's root which lowers and which work directory it was
mounted with (`markers.set_layers`); uppers of kernel overlayfs and unpacked
container layers know nothing of theirs, so they can be named.
"""

import argparse
import os

from unionfs.commands.arguments import add_lowers
from unionfs.host import copies
from unionfs.layers import mount_record
from unionfs.layers.layer import Layer
from unionfs.mounting import opening, places
from unionfs.mounting.options import Options, Refused
from unionfs.mounting.places import Place


def require_root() -> None:
    """Refuse a user who cannot see trusted attributes, and so the markers: xattr(7)."""
    if os.geteuid() != 0:
        raise Refused("not permitted: only root sees what an upper says (try sudo)")


def add_layers(parser: argparse.ArgumentParser) -> None:
    """Add the options that name the layers that an upper directory was mounted with."""
    add_lowers(
        parser,
        "a lower layer of the upper; may be repeated, the first is on top"
        " [those of the last mount]",
    )
    parser.add_argument(
        "--whiteout",
        choices=("overlay", "aufs"),
        help="how the upper says 'deleted': as overlayfs does, or by names .wh.* [overlay]",
    )


def find_upper(name: str) -> Place:
    """Hold the directory *name* open; refuse what is none."""
    return places.find("upper", name)


def open_to_read(place: Place) -> int:
    """Open a directory, without what is mounted below it where the kernel can do that."""
    try:
        return copies.open_read_only(place.fd)
    except OSError as exc:
        if exc.errno not in copies.UNAVAILABLE:
            raise Refused(f"{place.label} cannot be opened: {exc.strerror}") from None
    return os.open(".", copies.DIRECTORY, dir_fd=place.fd)


def recorded(upper: Place) -> tuple[list[str], str]:
    """Return the lowers and the work directory that upper was last mounted with, as recorded."""
    fd = open_to_read(upper)
    here = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        layer = Layer(fd, name=upper.name)
        return mount_record.lowers(layer), mount_record.work(layer)
    finally:
        os.fchdir(here)  # reading attributes has entered the layer; names are relative to here
        os.close(here)
        os.close(fd)


def open_lowers(names: list[str]) -> tuple[Layer, ...]:
    """Open lowers, top first."""
    try:
        return opening.open_stack(Options(lowers=tuple(names))).lowers
    except Refused as exc:
        raise Refused(f"{exc} (or say with --lower which lower layers there are)") from None
