"""The guard of an upper: it says so in time when upper fills up.

A line in the log when a level of `usage.LEVELS` is reached, once until it is
left again by some; and the same words in `/run/unionfs/motd`, for who logs in
(pam_motd(8)).
"""

import contextlib
import logging
import os

import trio

from unionfs import usage

log = logging.getLogger(__name__)

_SECONDS = 10.0  # between two looks, of a microsecond each
_LEFT = 5  # percent below a level at which it is left

_DIRECTORY = "/run/unionfs"
_NAME = "motd-room"


class Guard:
    """The guard of one upper."""

    def __init__(self, fd: int, mountpoint: str, directory: str = _DIRECTORY) -> None:
        """Watch the file system of *fd*; the message goes to *directory*, where there is one.

        That is opened now: later, no path of the daemon's need lead there.
        """
        self._fd = fd
        self._mountpoint = mountpoint
        self._level = 0
        self._directory = -1
        with contextlib.suppress(OSError):
            self._directory = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    async def watch(self) -> None:
        """Look now and then, for ever."""
        while True:
            await trio.sleep(_SECONDS)
            self.look()

    def look(self) -> None:
        """Say so if a level was reached or left since the last look."""
        room = usage.room(self._fd)
        level = room.level
        if level < self._level and room.percent > self._level - _LEFT:
            return
        if level > self._level:
            log.warning("%s", self._words(room))
        if level != self._level:
            self._level = level
            self._write(self._words(room) + "\n" if level else "")

    def _words(self, room: usage.Room) -> str:
        return (
            f"{self._mountpoint}: upper is {room.percent} % full, {usage.shown(room.used)} of"
            f" {usage.shown(room.size)}: 'unionfs status {self._mountpoint}' lists what takes most"
        )

    def _write(self, text: str) -> None:
        """Replace the message; an empty one is removed."""
        if self._directory < 0:
            return
        try:
            if not text:
                os.unlink(_NAME, dir_fd=self._directory)
                return
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
            fd = os.open(_NAME, flags, 0o644, dir_fd=self._directory)
            try:
                os.write(fd, text.encode("utf-8", "surrogateescape"))
            finally:
                os.close(fd)
        except OSError as exc:
            log.warning("%s/%s: %s", _DIRECTORY, _NAME, exc.strerror)
