"""The two sides that a configuration asks for, made ready: disks mounted, directories there.

State is a directory, or the root of a disk, as it is: files that were copied there by hand are its
content.  Scratch has `upper` and `work` in such a place.

Disks are mounted for the union, and unmounted with it (`ourdisks`).

This is for a running machine.  At boot the scripts do this work (boot/stage), as they have to wait
for disks and check them.
"""

import os
import re
from dataclasses import replace

from unionfs.mounting import ourdisks, readonlyroot
from unionfs.mounting.configuration import Configuration, Directory, Disk, Ram, Room
from unionfs.mounting.options import Options, Refused
from unionfs.mounting.ourdisks import Disks, Missing


def filled(options: Options, configuration: Configuration) -> tuple[Options, list[str]]:
    """Let the configuration decide what the options leave open; the options win.

    Also return messages about places that cannot be had.  The configuration's own options do not
    come in here: they have to be the base of the others already.
    """
    troubles: list[str] = []
    disks = Disks(troubles)
    try:
        return _filled(options, configuration, disks, troubles), troubles
    except BaseException:
        ourdisks.let_go(disks.mounted)
        raise


def _filled(
    options: Options, configuration: Configuration, disks: Disks, troubles: list[str]
) -> Options:
    planted = tuple((kind, path) for kind, path in configuration.planted)
    options = replace(options, lowers=options.lowers or configuration.lowers, planted=planted)
    options = _with_state(options, configuration, disks, troubles)
    if options.upper is None and options.ram is None:
        options = _with_scratch(options, configuration, disks, troubles)
    options = replace(options, disks=tuple(disks.mounted))
    return replace(options, wipe="on") if options.upper else options


def _with_scratch(
    options: Options, configuration: Configuration, disks: Disks, troubles: list[str]
) -> Options:
    for room in configuration.scratch:
        if isinstance(room, Ram):
            return replace(options, ram=_size(room))
        try:
            upper, work = (_made(room, name, disks) for name in ("upper", "work"))
        except Missing as exc:
            if not isinstance(room, Disk) or room.awaited:
                troubles.append(str(exc))
            continue
        return replace(options, upper=upper, work=work)
    raise Refused(f"there is no scratch: {'; '.join(troubles)}")


def _with_state(
    options: Options, configuration: Configuration, disks: Disks, troubles: list[str]
) -> Options:
    """Add the state side, and the rules; where no state can be had, name the one missing."""
    rooms = () if options.state else configuration.state
    state = options.state or next((_name(room) for room in rooms), None)
    for room in rooms:
        try:
            state = _directory(room, disks)
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
    """Return a name for a missing place; no directory has that name."""
    return room.device if isinstance(room, Disk) else str(getattr(room, "path", room))


def _size(room: Ram) -> str:
    found = re.search(r"(?:^|,)size=([^,]+)", room.options)
    return found[1] if found else ""


def _made(room: Disk | Directory, name: str, disks: Disks) -> str:
    """Return a directory in a place, which is made where it is missing."""
    path = os.path.join(_directory(room, disks), name)
    try:
        if not os.path.isdir(path):
            os.mkdir(path, 0o700)
    except OSError as exc:
        raise Missing(f"{room}: {path}: {exc.strerror}") from None
    return path


def _directory(room: Room, disks: Disks) -> str:
    """Return the directory of a place, after mounting it if need be."""
    if isinstance(room, Directory):
        if not os.path.isdir(room.path):
            raise Missing(f"{room} is not there")
        return room.path
    if isinstance(room, Disk):
        return disks.place(room)
    raise Missing(f"{room} has no name")
