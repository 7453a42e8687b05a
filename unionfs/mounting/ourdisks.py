"""Disks that are mounted for a union, and unmounted with it.

A disk is checked first, as at boot (boot/stage).  It is mounted where its configuration says, or
else below /run/unionfs/disks, where only root can go.  Whatever is mounted there is ours, even if
the daemon of a former union was killed before it could unmount the disk.  A disk that is mounted
elsewhere already is used where it is, and stays.
"""

import contextlib
import errno
import logging
import os
import subprocess
from collections.abc import Iterable, Iterator

from unionfs.host import mountcalls, mountinfo
from unionfs.mounting.configuration import Disk

log = logging.getLogger(__name__)

_DISKS = "/run/unionfs/disks"

_CORRECTED, _ERRORS_LEFT = 1, 4  # fsck(8), exit status


class Missing(Exception):  # noqa: N818 - it says what is the matter with a place
    """A place that cannot be had, and why."""


class Disks:
    """The disks of one union."""

    def __init__(self, notes: list[str]) -> None:
        """Take the list for notes on what was found out about the disks."""
        self._notes = notes
        self.mounted: list[str] = []  # mount points of the disks that are unmounted with the union

    def place(self, disk: Disk) -> str:
        """Return a disk's mount point, after checking and mounting the disk if need be."""
        device = _device(disk)
        there = _place_of(device)
        if there is None:
            there = self._mounted(device, disk)
        elif os.path.dirname(there) != _DISKS:
            return there
        if there not in self.mounted:
            self.mounted.append(there)
        return there

    def _mounted(self, device: str, disk: Disk) -> str:
        place = disk.mountpoint or os.path.join(_DISKS, disk.device.replace("/", "-").strip("-"))
        made = not os.path.isdir(place)
        try:
            self._check(device, disk)
            os.makedirs(place, 0o700, exist_ok=True)
            if not disk.mountpoint:
                os.chmod(_DISKS, 0o700)  # else users could change files behind the union's back
            _mount(device, place, disk)
        except (OSError, Missing) as exc:
            if made and os.path.isdir(place):
                os.rmdir(place)  # else files could be written there, and not on the disk
            raise Missing(str(exc)) from None
        return place

    def _check(self, device: str, disk: Disk) -> None:
        try:
            done = subprocess.run(
                ["fsck", "-p", "-T", device], check=False, capture_output=True, text=True
            )
        except FileNotFoundError:
            self._notes.append(f"{disk} is not checked: there is no fsck")
            return
        if done.returncode & _ERRORS_LEFT:
            raise Missing(f"fsck left errors on {disk}: repair it by hand (fsck {device})")
        if done.returncode & _CORRECTED:
            self._notes.append(f"fsck has corrected {disk}: {' '.join(done.stdout.split())}")


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


@contextlib.contextmanager
def held(places: Iterable[str]) -> Iterator[None]:
    """Keep disks mounted, and let go of them at the end.

    A layer is open in a copy of the mount, which does not make the disk's own mount busy.
    """
    try:
        with contextlib.ExitStack() as busy:
            for place in places:
                fd = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
                busy.callback(os.close, fd)
            yield
    finally:
        let_go(places)


def let_go(places: Iterable[str]) -> None:
    """Unmount disks that are not needed any more; a disk that somebody else uses stays."""
    for place in places:
        try:
            mountcalls.umount(place)
            if os.path.dirname(place) == _DISKS:
                os.rmdir(place)
        except OSError as exc:
            if exc.errno != errno.EBUSY:
                log.warning("%s: %s", place, exc.strerror)
