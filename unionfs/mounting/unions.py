"""All unions on this machine, also those of other mount namespaces, and those that are dead.

Any FUSE mount may be a union: type and source are as the user chose them.  Mounts that
only root can have made, with our options, are asked for their status, each by a
process of its own.  A daemon that is stopped, or another file system's server that
is gone, answers nobody, and a process that has asked it cannot always be ended.
"""

import contextlib
import functools
import json
import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from unionfs.host import mountinfo
from unionfs.host.mountinfo import MountInfo
from unionfs.mounting import live
from unionfs.mounting.options import Refused

# Seconds that all daemons together have to answer.
_PATIENCE = 2.0

# The default names of a union: a union that does not answer is recognized by them alone.
_NAMES = frozenset({"unionfs", "pyunionfs"})
_OUR_OPTIONS = {"user_id": "0", "default_permissions": "", "allow_other": ""}


class Union(NamedTuple):
    """One union: where it is mounted, and what its daemon says."""

    mountpoint: str
    namespace: int | None  # a process in the mount namespace, None: it is the one of this process
    state: str  # serving, dead, silent
    status: dict[str, Any] | None  # `live.describe`, where it is serving

    @property
    def root(self) -> str:
        """Return the path from here to the root of its mount namespace."""
        return _root_of(self.namespace)


def all_unions() -> list[Union]:
    """Return all unions; each once, though it may be mounted in many places."""
    asked = [
        (mount, pid, _Question(functools.partial(_ask, _root_of(pid) + mount.target)))
        for mount, pid in _candidates()
    ]
    deadline = time.monotonic() + _PATIENCE
    answers = [(mount, pid, question.answer(deadline)) for mount, pid, question in asked]
    return [
        Union(mount.target, pid, state, status)
        for mount, pid, (state, status) in answers
        if status is not None or (state and _is_named_as_ours(mount))
    ]


def find(mountpoint: str) -> Union:
    """Return the union that is mounted at *mountpoint*; Refused where none is.

    It does as `live.find`, but does not wait for a daemon that is stopped.
    """
    path = os.path.abspath(mountpoint)  # fails where it is relative to a directory that is gone
    question = _Question(functools.partial(_find, mountpoint))
    state, found = question.answer(time.monotonic() + _PATIENCE)
    if state == "refused":
        raise Refused(found)
    if state == "silent":
        return Union(path, None, state, None)
    return Union(found["mountpoint"], None, state, found["status"])


def _root_of(pid: int | None) -> str:
    return "" if pid is None else f"/proc/{pid}/root"


def _candidates() -> Iterator[tuple[MountInfo, int | None]]:
    seen = set()
    for pid in (None, *_namespaces()):
        try:
            mounts = list(mountinfo.mounts(pid))
        except OSError:  # the process has ended
            continue
        for mount in {mount.target: mount for mount in mounts}.values():  # those on top
            if mount.device not in seen and _may_be_ours(mount):
                seen.add(mount.device)
                yield mount, pid


def _may_be_ours(mount: MountInfo) -> bool:
    kind = mount.kind.partition(".")[0]
    return kind == "fuse" and mount.options.items() >= _OUR_OPTIONS.items()


def _is_named_as_ours(mount: MountInfo) -> bool:
    return not _NAMES.isdisjoint((mount.source, mount.kind.partition(".")[2]))


def _namespaces() -> list[int]:
    """Return one process in each other mount namespace, if possible one without a chroot."""
    found: dict[str, int] = {}
    own = os.readlink("/proc/self/ns/mnt")
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
        with contextlib.suppress(OSError):  # it has ended, or is the kernel's
            namespace = os.readlink(f"/proc/{pid}/ns/mnt")
            if namespace != own and os.readlink(f"/proc/{pid}/root") == "/":
                found.setdefault(namespace, pid)
    return list(found.values())


# A daemon's answer: its state, "" for no union, and its status.
_Answer = tuple[str, Any]


class _Question:
    """A process that asks one mount."""

    def __init__(self, ask: Callable[[], _Answer]) -> None:
        self._answer, sender = os.pipe()
        self._pid = os.fork()
        if not self._pid:
            try:
                _tell(ask, sender)
            finally:
                os._exit(0)
        os.close(sender)

    def answer(self, deadline: float) -> _Answer:
        """Return the answer; wait until *deadline* at most, after which the state is silent."""
        text = b""
        with open(self._answer, "rb", buffering=0) as pipe:
            while select.select([pipe], [], [], max(0, deadline - time.monotonic()))[0]:
                part = pipe.read(1 << 16)
                if not part:
                    os.waitpid(self._pid, 0)
                    state, found = json.loads(text or b'["", null]')
                    return state, found
                text += part
        os.kill(self._pid, signal.SIGKILL)  # it ends when the kernel lets go of it
        return "silent", None


def _tell(ask: Callable[[], _Answer], sender: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for fd in range(3):  # readers of our output must not wait for this process
        os.dup2(null, fd)
    with open(sender, "wb") as pipe, contextlib.suppress(OSError):  # no answer: it is no union
        pipe.write(json.dumps(ask()).encode())


def _ask(path: str) -> _Answer:
    status = live.ask(path)
    return "serving" if status else "dead", status


def _find(mountpoint: str) -> _Answer:
    try:
        mounted = live.find(mountpoint)
    except Refused as exc:
        return "refused", str(exc)
    return "serving" if mounted.status else "dead", mounted._asdict()
