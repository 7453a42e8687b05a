"""What `unionfs status` finds out about a live union: where its layers are, how full, with what.

This completes the daemon's own description (`live.describe`), which becomes the document
of `--json`.
"""

import contextlib
import errno
import os
from typing import Any

from unionfs.audit import paths, usage
from unionfs.audit.usage import Contents, Room
from unionfs.host import copies
from unionfs.layers.layer import Layer
from unionfs.mounting import health, whereabouts


def complete(status: dict[str, Any], root: str = "") -> Room | None:
    """Add to each layer where it is now, and the room on its file system; return upper's.

    *root* is the path from here to the root of the union's mount namespace.  Each layer gets
    `place`, null where it is not known, `deleted`, `device` and `room`; upper and state get
    `trouble`, "" where their disks take changes; the whole gets `level`.
    """
    layers = status["layers"]
    mounts = health.mounts()
    try:
        for role in ("upper", "state"):
            if layers.get(role):
                layers[role]["trouble"] = _trouble(_link(status, layers[role]), mounts)
    finally:
        os.close(mounts)
    writable = (layers.get(key) for key in ("upper", "work", "state", "state_work"))
    for layer in filter(None, (*writable, *layers["lowers"])):
        layer.update(place=None, deleted=False, device=None, room=None)
        if layer.get("far"):  # its server may take as long as it likes
            layer["place"] = layer["name"]
            continue
        with contextlib.suppress(OSError):  # not permitted, or the daemon has just ended
            _complete_layer(layer, _link(status, layer), root)
    room = room_of(layers["upper"])
    rooms = filter(None, (room, room_of(layers.get("state"))))
    status["level"] = max((room.level for room in rooms), default=0)
    return room


def _trouble(link: str, mounts: int) -> str:
    try:
        fd = os.open(link, copies.DIRECTORY)
    except OSError as exc:
        return f"fails: {exc.strerror}" if exc.errno == errno.EIO else ""
    try:
        return health.trouble(fd, mounts)
    finally:
        os.close(fd)


def _complete_layer(layer: dict[str, Any], link: str, root: str) -> None:
    layer["place"], layer["deleted"] = whereabouts.find(link, layer["name"], root)
    device = os.stat(link).st_dev
    layer["device"] = f"{os.major(device)}:{os.minor(device)}"
    room = usage.room(link)
    layer["room"] = {**room._asdict(), "percent": room.percent}


def room_of(layer: dict[str, Any] | None) -> Room | None:
    """Return the room that was added to a layer."""
    room = layer and layer["room"]
    return Room(*(room[field] for field in Room._fields)) if room else None


def _link(status: dict[str, Any], layer: dict[str, Any]) -> str:
    return f"/proc/{status['pid']}/fd/{layer['fd']}"


def add_changes(status: dict[str, Any]) -> Contents | None:
    """Add the content of upper as `changes`, null where it is not known, and return it.

    The working directory of this process becomes the root.
    """
    found = None
    with contextlib.suppress(OSError):  # the daemon has just ended
        found = _contents(status)
    status["changes"] = found and {
        "size": found.size,
        "inodes": found.inodes,
        "largest": [
            {"path": paths.absolute(large.path), "size": large.size} for large in found.largest
        ],
    }
    return found


def _contents(status: dict[str, Any]) -> Contents | None:
    upper = status["layers"]["upper"]
    if upper is None:
        return None
    fd = os.open(_link(status, upper), copies.DIRECTORY)
    try:
        return usage.contents(Layer(fd, name=upper["name"]))
    finally:
        os.chdir("/")  # reading a layer enters it, and would keep it busy
        os.close(fd)
