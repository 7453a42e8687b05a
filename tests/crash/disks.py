"""Disks in files: made once, mounted over loop devices, recorded, cloned.

Everything here is a context manager or leaves nothing behind.  Only one image
of a kind is mounted at a time, since btrfs and xfs know a file system by its
UUID and all the clones share one.
"""

import contextlib
import ctypes
import errno
import os
import subprocess
import sys
import time
from collections.abc import Iterator

MIB = 1 << 20
_MNT_DETACH = 2
_CLONE_NEWNS = 0x20000
_libc = ctypes.CDLL(None, use_errno=True)

# Size (bytes) and mkfs command.  xfs refuses less than 300 MiB, btrfs less than 109 MiB.
# No discards: FUSE has no fallocate in pyfuse3, and mkfs would complain.
# A sector is what reaches a disk whole or not at all.  With sectors of 512 bytes the superblocks
# of ext4 (1 KiB) and btrfs (4 KiB) can be torn, and the host's file system itself is lost.
SECTOR = 4096
KINDS = {
    "ext4": (
        64 * MIB,
        ["mkfs.ext4", "-q", "-E", "nodiscard,lazy_itable_init=0", "-b", "4096", "-J", "size=4"],
    ),
    "xfs": (300 * MIB, ["mkfs.xfs", "-q", "-K", "-s", "size=4096"]),
    "btrfs": (128 * MIB, ["mkfs.btrfs", "-q", "-K", "-m", "single", "-s", "4096"]),
}
_OPTIONS = {"ext4": "noatime", "xfs": "noatime", "btrfs": "noatime,nodiscard"}


def run(*command: str) -> str:
    """Run *command* and return what it printed; its complaints are in the exception."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(f"{' '.join(command)}: {done.returncode}: {done.stderr.strip()}")
    return done.stdout.strip()


def seclude() -> None:
    """Move this process to a mount namespace of its own, for the rest of its life.

    Whoever makes one from the common one takes copies of our mounts along: a disk that we
    unmounted and rebuilt would still be mounted, and written, there.
    """
    if _libc.unshare(_CLONE_NEWNS) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "unshare")
    run("mount", "--make-rprivate", "/")


def make(kind: str, path: str) -> None:
    """Make an empty file system of *kind* in the new sparse file *path*."""
    size, command = KINDS[kind]
    with open(path, "wb") as image:
        image.truncate(size)
    run(*command, path)


@contextlib.contextmanager
def loop(path: str, *options: str) -> Iterator[str]:
    """Attach *path* to a loop device and yield the device."""
    device = run("losetup", "--find", "--show", "--sector-size", str(SECTOR), *options, path)
    try:
        yield device
    finally:
        run("losetup", "--detach", device)


@contextlib.contextmanager
def mounted(kind: str, image: str, mountpoint: str, *options: str) -> Iterator[None]:
    """Mount the file system of *kind* in *image* at *mountpoint*."""
    with loop(image, *options) as device:
        run("mount", "-t", kind, "-o", _OPTIONS[kind], device, mountpoint)
        try:
            yield
        finally:
            unmount(mountpoint)
            if kind == "btrfs":  # else the next clone is taken for a stale copy of this one
                subprocess.run(
                    ["btrfs", "device", "scan", "--forget", device],
                    capture_output=True,
                    check=False,
                )


def unmount(mountpoint: str, patience: float = 120) -> None:
    """Unmount, waiting *patience* seconds for the last user to go.

    umount(8) first looks a mount up in /proc/self/mountinfo, and misses it now
    and then when others mount at the same time; umount2(2) does not.
    """
    end = time.monotonic() + patience
    while _libc.umount2(os.fsencode(mountpoint), 0) != 0:
        number = ctypes.get_errno()
        if number != errno.EBUSY or time.monotonic() > end:
            raise OSError(number, os.strerror(number), mountpoint)
        time.sleep(0.005)


def detach(mountpoint: str) -> None:
    """Unmount even what is dead or busy: umount2(2), MNT_DETACH."""
    if _libc.umount2(os.fsencode(mountpoint), _MNT_DETACH) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), mountpoint)


@contextlib.contextmanager
def recorded(log: str, directory: str, *images: str) -> Iterator[str]:
    """Serve *images* as recording disks; yield the directory with `disk` ... and `ledger`."""
    script = os.path.join(os.path.dirname(__file__), "recorder.py")
    os.mkdir(directory)
    with subprocess.Popen([sys.executable, script, directory, log, *images]) as process:
        try:
            while not os.path.exists(f"{directory}/disk"):
                if process.poll() is not None:
                    raise OSError("the recorder ended early")
                time.sleep(0.02)
            yield directory
        finally:
            if process.poll() is None:
                unmount(directory)


def clone(source: str, target: str) -> None:
    """Copy a sparse file, holes kept: milliseconds on tmpfs."""
    with open(source, "rb") as old, open(target, "wb") as new:
        size = os.fstat(old.fileno()).st_size
        new.truncate(size)
        end = 0
        while (start := _data_after(old.fileno(), end)) < size:
            end = os.lseek(old.fileno(), start, os.SEEK_HOLE)
            _copy_range(old.fileno(), new.fileno(), start, end)


def _data_after(fd: int, offset: int) -> int:
    try:
        return os.lseek(fd, offset, os.SEEK_DATA)
    except OSError:  # ENXIO: only a hole is left
        return os.fstat(fd).st_size


def _copy_range(source: int, target: int, start: int, end: int) -> None:
    while start < end:
        data = os.pread(source, min(end - start, MIB), start)
        os.pwrite(target, data, start)
        start += len(data)
