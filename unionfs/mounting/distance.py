"""Which lowers are far: those that may keep one waiting, on a server or behind another daemon.

The type of the file system tells (statfs(2)), and the user may say otherwise (`far=`,
`near=`).  A kernel overlay is as far as the farthest of its layers.

Before a far lower is opened, another process tries whether it answers at all.  A process that
waits for a server in a system call cannot always be ended: a daemon that is starting must not be
that process.
"""

import contextlib
import logging
import os
import select
import signal
import time
from collections.abc import Iterator, Sequence

from unionfs.host import mountinfo
from unionfs.host.mountinfo import MountInfo
from unionfs.host.syscalls import filesystem_type
from unionfs.layers.far import FarLayer, Memo
from unionfs.layers.layer import Layer
from unionfs.mounting.options import Options, Refused

log = logging.getLogger(__name__)

# include/uapi/linux/magic.h: NFS, SMB (CIFS, SMB2, the old one), FUSE, 9p, Ceph, AFS (two), Coda.
_FAR = frozenset({
    0x6969, 0xFF534D42, 0xFE534D42, 0x517B, 0x65735546, 0x01021997, 0x00C36400, 0x5346414F,
    0x6B414653, 0x73757245,
})  # fmt: skip
_OVERLAY = 0x794C7630

# The same in the mount table; what has a subtype is `fuse.sshfs`.
_FAR_NAMES = frozenset({
    "nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse", "fuseblk", "9p", "ceph", "afs", "coda",
})  # fmt: skip

# Seconds after which a message says what is waited for, and seconds after which waiting ends.
SILENCE = 3.0
PATIENCE = 60.0


def opened(fd: int, number: int, name: str, options: Options, memo: Memo) -> Layer:
    """Return a lower layer that has been opened; a far one keeps its answers in *memo*."""
    place = len(options.lowers) - number + 1
    if _says(options.near, place) or not (_says(options.far, place) or _is_far(fd)):
        return Layer(fd, number=number, name=name)
    return FarLayer(fd, number=number, name=name, memo=memo)


def _says(option: str | None, place: int) -> bool:
    """Tell whether an option names the lower at *place*, counted from 1, in the command."""
    return option is not None and (option == "all" or str(place) in option.split(":"))


def _is_far(fd: int) -> bool:
    kind = filesystem_type(fd)
    if kind != _OVERLAY:
        return kind in _FAR
    device = os.fstat(fd).st_dev
    return any(map(_looks_far, _layers_of(f"{os.major(device)}:{os.minor(device)}")))


def _layers_of(device: str) -> Iterator[str]:
    """Yield the directories that a kernel overlay was made of, as far as it tells."""
    for mount in mountinfo.mounts():
        if mount.device == device and mount.kind == "overlay":
            yield from mount.options.get("lowerdir", "").split(":")
            yield mount.options.get("upperdir", "")


def _looks_far(name: str, mounts: Sequence[MountInfo] = ()) -> bool:
    """Tell whether a directory lies on a far file system; it is not touched.

    A symlink on the way may lead elsewhere.
    """
    mount = _mount_of(os.path.abspath(name), mounts or list(mountinfo.mounts()))
    return mount is not None and _is_far_name(mount)


def _is_far_name(mount: MountInfo) -> bool:
    return mount.kind.partition(".")[0] in _FAR_NAMES


def _mount_of(path: str, mounts: Sequence[MountInfo]) -> MountInfo | None:
    found = None
    for mount in mounts:  # later ones lie on top
        target = mount.target.rstrip("/")
        if (path == target or path.startswith(target + "/")) and (
            found is None or len(target) >= len(found.target.rstrip("/"))
        ):
            found = mount
    return found


def await_answers(names: Sequence[str]) -> None:
    """Wait until all directories that look far answer; Refused where one does not."""
    mounts = list(mountinfo.mounts())
    if not any(map(_is_far_name, mounts)):
        return
    names = [name for name in names if _looks_far(name, mounts)]
    if not names:
        return
    process, answers = _questioner(names)
    deadline = time.monotonic() + PATIENCE
    with open(answers, "rb", buffering=0) as pipe:
        for name in names:
            _await(pipe.fileno(), name, process, deadline)
            if not pipe.read(1):  # it was ended: then the opening itself will tell
                break
    os.waitpid(process, 0)


def _await(pipe: int, name: str, process: int, deadline: float) -> None:
    """Wait for one answer."""
    if select.select([pipe], [], [], SILENCE)[0]:
        return
    log.warning("lower '%s' does not answer: waiting for up to %d s", name, PATIENCE)
    if select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))[0]:
        return
    os.kill(process, signal.SIGKILL)  # it ends when the kernel lets go of it
    raise Refused(f"lower '{name}' has not answered for {PATIENCE:.0f} s: see to its server")


def _questioner(names: Sequence[str]) -> tuple[int, int]:
    """Start a process that asks one directory after the other; return it, and its answers' pipe."""
    answers, sender = os.pipe()
    process = os.fork()
    if process:
        os.close(sender)
        return process, answers
    try:
        _ask(names, sender)
    finally:
        os._exit(0)


def _ask(names: Sequence[str], sender: int) -> None:
    """Write a byte for each directory that has answered, with an error or without."""
    null = os.open(os.devnull, os.O_RDWR)
    for fd in range(3):
        os.dup2(null, fd)
    os.closerange(3, sender)  # a command that waits for the daemon must not wait for this
    os.closerange(sender + 1, os.sysconf("SC_OPEN_MAX"))
    for name in names:
        with contextlib.suppress(OSError):
            os.stat(name)
            os.statvfs(name)
        os.write(sender, b"1")
