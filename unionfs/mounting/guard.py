"""The guards of an upper: they warn in time when upper fills up, and when its disk fails.

A line goes to the log when a level of `usage.LEVELS` is reached, and again only after
usage has fallen some percent below the level.  Users see the same words at login
(`motd`) until then.
"""

import logging
import os

import trio

from unionfs.audit import paths, usage
from unionfs.mounting import health
from unionfs.mounting.motd import Motd

log = logging.getLogger(__name__)

_SECONDS = 10.0  # between two checks, of a microsecond each
_LEFT = 5  # percent below a level at which it is left


class Watch:
    """A warning about a union, which stands as long as it holds."""

    def __init__(self, about: str, motd: Motd | None) -> None:
        """Take what the warning is about; *motd* None: users who log in do not see the union."""
        self._about = about
        self._motd = motd
        self._wanted = ""  # in the message of the day
        self._said: str | None = None  # None: a daemon before this one may have left something

    async def watch(self) -> None:
        """Check now and then, for ever."""
        while True:
            await trio.sleep(_SECONDS)
            self.look()

    def look(self) -> None:
        """Check, and put the warning that holds now into the message of the day."""
        self._announce()

    def leave(self) -> None:
        """Take back what was said."""
        self._wanted = ""
        self._announce()

    def _announce(self) -> None:
        if self._motd is None or self._wanted == self._said:
            return
        if self._motd.say(self._about, self._wanted):
            self._said = self._wanted


class Guard(Watch):
    """The guard of one upper, which is called its *role*."""

    def __init__(self, fd: int, mountpoint: str, motd: Motd | None, role: str = "upper") -> None:
        """Watch the file system of *fd*."""
        self._name = _shown(mountpoint)
        super().__init__(self._name if role == "upper" else f"{self._name} ({role})", motd)
        self._fd = fd
        self._role = role
        self._level = 0

    def look(self) -> None:
        """Say so if a level was reached or left since the last check."""
        try:
            self._judge(usage.room(self._fd))
        except OSError as exc:  # a failing disk is no reason for a daemon to end
            log.debug("%s does not tell how full it is: %s", self._about, exc.strerror)
        self._announce()

    def _judge(self, room: usage.Room) -> None:
        level = room.level
        if level < self._level and room.percent > self._level - _LEFT:
            return
        trouble = room.trouble(self._role)
        words = f"{trouble}: 'unionfs status {self._name}' lists what takes most"
        if level > self._level:
            log.warning("%s: %s", self._name, words)
        if level != self._level:
            self._level = level
            self._wanted = words if level else ""


class Nurse(Watch):
    """The warning that the disk of an upper, called its *role*, takes no changes any more.

    A program that makes a change gets the disk's error in any case, and nothing goes elsewhere
    instead.
    """

    def __init__(self, fd: int, mountpoint: str, motd: Motd | None, role: str) -> None:
        """Watch the file system of *fd*; before there is a mount."""
        self._name = _shown(mountpoint)
        super().__init__(f"{self._name} (disk of {role})", motd)
        self._fd = fd
        self._role = role
        self._mounts = health.mounts()

    def look(self) -> None:
        """Say so if the disk's state has changed since the last check."""
        before, trouble = self._wanted, health.trouble(self._fd, self._mounts)
        self._wanted = trouble and f"{self._role} TAKES NO CHANGES: its file system {trouble}"
        if self._wanted and self._wanted != before:
            log.error("%s: %s", self._name, self._wanted)
        elif before and not self._wanted:
            log.warning("%s: %s takes changes again", self._name, self._role)
        self._announce()

    def leave(self) -> None:
        """Take back what was said."""
        super().leave()
        os.close(self._mounts)


class Loss(Watch):
    """The warning that nothing persists, as state is lost."""

    def __init__(self, why: str, mountpoint: str, motd: Motd | None) -> None:
        super().__init__(f"{_shown(mountpoint)} (state)", motd)
        self._wanted = f"NOTHING PERSISTS, what is changed now is lost at the next boot: {why}"

    async def watch(self) -> None:
        """Put the warning into the message of the day, and try until that has succeeded."""
        self.look()
        await super().watch()


def _shown(mountpoint: str) -> str:
    return paths.shown(os.fsencode(mountpoint).lstrip(b"/"))
