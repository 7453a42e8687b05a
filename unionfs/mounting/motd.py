"""The unions' warnings to users who log in: `/run/unionfs/motd`, a line each, beside the boot's.

pam_motd(8) shows it, as Debian has set it up, by a link in `/run/motd.d`.

All names are made, and opened, before there is a mount: after that no path of a daemon's
may lead through its own union.  The thread may act for any user at that time (`Changes`),
so a new file gets its name only when it is root's.
"""

import contextlib
import fcntl
import logging
import os

log = logging.getLogger(__name__)

_RUN = "/run"
_NAME = "motd"
_NEW = ".motd.new"
_PREFIX = "unionfs: "  # boot/messages.sh has the same


def of_this_namespace() -> "Motd | None":
    """Return the file; None where users who log in do not see the mounts of this process."""
    with contextlib.suppress(OSError):
        if os.readlink("/proc/self/ns/mnt") != os.readlink("/proc/1/ns/mnt"):
            return None
    return Motd()


class Motd:
    """The file; this process changes only the lines about its own union."""

    def __init__(self, run: str = _RUN) -> None:
        """Make the file's directories in *run*; where that fails, nothing is ever said."""
        self._directory = self._lock = -1
        try:
            _make_directory(f"{run}/unionfs")
            self._directory = os.open(f"{run}/unionfs", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            self._lock = os.open("motd.lock", flags, 0o600, dir_fd=self._directory)
            _make_directory(f"{run}/motd.d")
            with contextlib.suppress(FileExistsError):
                os.symlink(f"{_RUN}/unionfs/{_NAME}", f"{run}/motd.d/unionfs")
        except OSError as exc:
            log.info("no message of the day: %s: %s", exc.filename, exc.strerror)

    def say(self, about: str, text: str) -> bool:
        """Have one line about *about* in the file, none where *text* is empty.

        Returns False where somebody else is writing: call again later.
        """
        if self._lock < 0:
            return True
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        try:
            self._change(f"{_PREFIX}{about}: ", text)
        except OSError as exc:
            log.warning("%s/unionfs/%s: %s", _RUN, _NAME, exc.strerror)
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)
        return True

    def _change(self, prefix: str, text: str) -> None:
        before = self._read()
        lines = [line for line in before if not line.startswith(prefix)]
        if text:
            lines.append(f"{prefix}{text}")
        if lines == before:
            return
        if lines:
            self._replace("".join(f"{line}\n" for line in lines))
        else:
            os.unlink(_NAME, dir_fd=self._directory)

    def _read(self) -> list[str]:
        try:
            fd = os.open(_NAME, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._directory)
        except FileNotFoundError:
            return []
        with open(fd, encoding="utf-8", errors="surrogateescape") as file:
            return file.read().splitlines()

    def _replace(self, text: str) -> None:
        flags = os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC
        fd = os.open(".", flags, 0o600, dir_fd=self._directory)
        try:
            os.fchown(fd, 0, 0)
            os.fchmod(fd, 0o644)
            os.write(fd, text.encode("utf-8", "surrogateescape"))
            with contextlib.suppress(FileNotFoundError):
                os.unlink(_NEW, dir_fd=self._directory)
            os.link(f"/proc/self/fd/{fd}", _NEW, dst_dir_fd=self._directory, follow_symlinks=True)
        finally:
            os.close(fd)
        os.rename(_NEW, _NAME, src_dir_fd=self._directory, dst_dir_fd=self._directory)


def _make_directory(path: str) -> None:
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o755)
