"""The guard of an upper: it says so in time when upper fills up.

A line in the log when a level of `usage.LEVELS` is reached, once until it is
left again by some; and the same words for who logs in (`motd`), until it is
left.
"""

import logging
import os

import trio

from unionfs.audit import paths, usage
from unionfs.mounting.motd import Motd

log = logging.getLogger(__name__)

_SECONDS = 10.0  # between two looks, of a microsecond each
_LEFT = 5  # percent below a level at which it is left


class Guard:
    """The guard of one upper."""

    def __init__(self, fd: int, mountpoint: str, motd: Motd | None) -> None:
        """Watch the file system of *fd*; None: nobody who logs in would see the union."""
        self._fd = fd
        self._name = paths.shown(os.fsencode(mountpoint).lstrip(b"/"))
        self._motd = motd
        self._level = 0
        self._wanted = ""  # in the message of the day
        self._said: str | None = None  # None: a daemon before this one may have left something

    async def watch(self) -> None:
        """Look now and then, for ever."""
        while True:
            await trio.sleep(_SECONDS)
            self.look()

    def look(self) -> None:
        """Say so if a level was reached or left since the last look."""
        try:
            self._judge(usage.room(self._fd))
        except OSError as exc:  # a failing disk is no reason for a daemon to end
            log.debug("%s: upper does not tell how full it is: %s", self._name, exc.strerror)
        self._announce()

    def leave(self) -> None:
        """Take back what was said."""
        self._wanted = ""
        self._announce()

    def _judge(self, room: usage.Room) -> None:
        level = room.level
        if level < self._level and room.percent > self._level - _LEFT:
            return
        words = f"{room.trouble()}: 'unionfs status {self._name}' lists what takes most"
        if level > self._level:
            log.warning("%s: %s", self._name, words)
        if level != self._level:
            self._level = level
            self._wanted = words if level else ""

    def _announce(self) -> None:
        if self._motd is None or self._wanted == self._said:
            return
        if self._motd.say(self._name, self._wanted):
            self._said = self._wanted
