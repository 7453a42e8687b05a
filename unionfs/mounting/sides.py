"""The two sides that a configuration asks for, made ready: disks mounted, directories there.

State is a directory, or the root of a disk, as it is: files that were copied there by hand are its
content.  Scratch has `upper` and `work` in such a place.

A disk is mounted where its configuration says or, without a word, below /run/unionfs/disks, where
only root can go; one that is mounted already is taken where it is.  It stays mounted when the union
is gone.

This is for a machine that runs; at boot the scripts do it (boot/stage), as the disks are to be
waited for and checked there.
"""

import os
import re
import subprocess
from dataclasses import replace

from unionfs.host import mountinfo
from unionfs.mounting import readonlyroot
from unionfs.mounting.configuration import Configuration, Directory, Disk, Ram, Room
from unionfs.mounting.options import Options, Refused

_DISKS = "/run/unionfs/disks"


class Missing(Exception):  # noqa: N818 - it says what is the matter with a place
    """A place that cannot be had, and why."""


def filled(options: Options, configuration: Configuration) -> tuple[Options, list[str]]:
    """Add what the configuration says to what the options, which win, leave open.

    Return what is to be said of places that cannot be had, too.  Of the configuration's own
    options it is not so that others win: they are to be the others' base.
    """
    troubles: list[str] = []
    planted = tuple((kind, path) for kind, path in configuration.planted)
    options = replace(options, lowers=options.lowers or configuration.lowers, planted=planted)
    options = _with_state(options, configuration, troubles)
    if options.upper is None and options.ram is None:
        options = _with_scratch(options, configuration, troubles)
    return (replace(options, wipe="on") if options.upper else options), troubles


def _with_scratch(options: Options, configuration: Configuration, troubles: list[str]) -> Options:
    for room in configuration.scratch:
        if isinstance(room, Ram):
            return replace(options, ram=_size(room))
        try:
            upper, work = (_made(room, name) for name in ("upper", "work"))
        except Missing as exc:
            if not isinstance(room, Disk) or room.awaited:
                troubles.append(str(exc))
            continue
        return replace(options, upper=upper, work=work)
    raise Refused(f"there is no scratch: {'; '.join(troubles)}")


def _with_state(options: Options, configuration: Configuration, troubles: list[str]) -> Options:
    """Add the state side, and the rules; where none can be had, name the one that is missing."""
    rooms = () if options.state else configuration.state
    state = options.state or next((_name(room) for room in rooms), None)
    for room in rooms:
        try:
            state = directory(room)
        except Missing as exc:
            troubles.append(str(exc))
        else:
            break
    rules = configuration.persist
    if state is not None and configuration.state_adds_rules and os.path.isdir(state):
        rules = tuple(rule.text for rule in readonlyroot.rules_on(state))
    persist = (*rules, *options.persist)
    if not persist:
        return replace(options, state=None)
    required = options.state_required or configuration.state_required
    return replace(options, state=state, persist=persist, state_required=required)


def _name(room: Room) -> str:
    """Return what a place is called where it is missing; no directory has that name."""
    return room.device if isinstance(room, Disk) else str(getattr(room, "path", room))


def _size(room: Ram) -> str:
    found = re.search(r"(?:^|,)size=([^,]+)", room.options)
    return found[1] if found else ""


def _made(room: Disk | Directory, name: str) -> str:
    """Return a directory in a place, which is made where it is missing."""
    path = os.path.join(directory(room), name)
    try:
        if not os.path.isdir(path):
            os.mkdir(path, 0o700)
    except OSError as exc:
        raise Missing(f"{room}: {path}: {exc.strerror}") from None
    return path


def directory(room: Room) -> str:
    """Return where a place is, after mounting it if need be."""
    if isinstance(room, Directory):
        if not os.path.isdir(room.path):
            raise Missing(f"{room} is not there")
        return room.path
    if isinstance(room, Disk):
        return _mounted(room)
    raise Missing(f"{room} has no name")


def _mounted(disk: Disk) -> str:
    device = _device(disk)
    there = _place_of(device)
    if there is not None:
        return there
    place = disk.mountpoint or os.path.join(_DISKS, disk.device.replace("/", "-").strip("-"))
    made = not os.path.isdir(place)
    try:
        os.makedirs(place, 0o700, exist_ok=True)
        if not disk.mountpoint:
            os.chmod(_DISKS, 0o700)  # users could change files behind the union's back
        _mount(device, place, disk)
    except (OSError, Missing) as exc:
        if made and os.path.isdir(place):
            os.rmdir(place)  # what is written there would not be on the disk
        raise Missing(str(exc)) from None
    return place


def _mount(device: str, place: str, disk: Disk) -> None:
    words = ["mount", "-t", disk.kind, "-o", disk.options or "defaults", device, place]
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    if done.returncode:
        raise Missing(f"{disk} cannot be mounted: {done.stderr.strip()}")


def _device(disk: Disk) -> str:
    if "=" not in disk.device:
        return os.path.realpath(disk.device)
    done = subprocess.run(["findfs", disk.device], check=False, capture_output=True, text=True)
    if done.returncode:
        raise Missing(f"{disk} is not there")
    return done.stdout.strip()


def _place_of(device: str) -> str | None:
    """Return where a device is mounted as a whole, None where it is not."""
    try:
        number = os.stat(device).st_rdev
    except OSError:
        return None
    wanted = f"{os.major(number)}:{os.minor(number)}"
    for mount in mountinfo.mounts():
        if mount.device == wanted and mount.root == "/":
            return mount.target
    return None
