"""A mounted union, seen from outside: the process that serves it, and its layers.

The daemon answers for the attribute `trusted.unionfs.status` of the mount's
root with JSON (`describe` is its form); the layers' descriptors stand in it, so
that another process of root may open the very same directories through
/proc/PID/fd, wherever they are hidden by now.
"""

import dataclasses
import errno
import os
from typing import TYPE_CHECKING, Any, NamedTuple

from unionfs.fuse.rootattributes import STATUS, document
from unionfs.host import copies, mountinfo
from unionfs.layers.far import FarLayer
from unionfs.layers.layer import Layer, WritableLayer
from unionfs.layers.stack import Stack, State
from unionfs.mounting.options import Options, Refused

if TYPE_CHECKING:
    from unionfs.layers.persistence import Rules

# The errors of a mount whose daemon is dead.
_DEAD = frozenset({errno.ENOTCONN, errno.ECONNABORTED, errno.EIO})

# Options that are not in the status: they concern the command, or are shown with the layers.
_UNSHOWN = frozenset(
    {"flags", "remount", "lowers", "upper", "work", "state", "state_work", "planted", "disks"}
)

_UNSAID = (None, (), False)


class LiveMount(NamedTuple):
    """A mounted union."""

    mountpoint: str  # absolute, without symlinks
    status: dict[str, Any] | None  # None: its daemon is dead

    @property
    def pid(self) -> int | None:
        """Return the daemon's process, None where it is dead."""
        return int(self.status["pid"]) if self.status else None

    def open_stack(self) -> Stack:
        """Open the layers that the daemon has; the caller closes the stack."""
        if self.status is None:
            raise Refused(f"the daemon of '{self.mountpoint}' is dead: unmount it")
        layers = self.status["layers"]
        upper, work = self._writable(layers["upper"]), self._writable(layers["work"])
        state, state_work = map(self._writable, map(layers.get, ("state", "state_work")))
        lowers = layers["lowers"]
        return Stack(
            upper,
            work,
            tuple(
                Layer(self._open(layer), number=len(lowers) - index, name=layer["name"])
                for index, layer in enumerate(lowers)
            ),
            state=State(state, state_work, self.rules()) if state and state_work else None,
        )

    def rules(self) -> "Rules":
        """Return the rules for what persists, or would if there were a state side."""
        from unionfs.layers.persistence import Rules  # noqa: PLC0415 - few mounts have state

        return Rules.parse(self.status["options"].get("persist", ()) if self.status else ())

    def _writable(self, layer: dict[str, Any] | None) -> WritableLayer | None:
        return WritableLayer(self._open(layer), name=layer["name"]) if layer else None

    def _open(self, layer: dict[str, Any]) -> int:
        try:
            return os.open(f"/proc/{self.pid}/fd/{layer['fd']}", copies.DIRECTORY)
        except OSError as exc:  # the server of a far layer is gone
            raise Refused(f"layer '{layer['name']}' cannot be opened: {exc.strerror}") from None


def describe(stack: Stack, options: Options) -> dict[str, Any]:
    """Return what the status attribute says, as a JSON object; the mount adds to it."""
    return {
        "pid": os.getpid(),
        "layers": {
            "upper": _layer(stack.upper),
            "work": _layer(stack.work),
            "state": _layer(stack.state.upper if stack.state else None),
            "state_work": _layer(stack.state.work if stack.state else None),
            "lowers": [_lower(layer) for layer in stack.lowers],
        },
        "state_lost": stack.state_lost,
        "options": {
            key: value
            for key, value in dataclasses.asdict(options).items()
            if key not in _UNSHOWN and value not in _UNSAID
        },
    }


def _layer(layer: Layer | None) -> dict[str, Any] | None:
    return None if layer is None else {"name": layer.name, "fd": layer.fd}


def _lower(layer: Layer) -> dict[str, Any]:
    return {"name": layer.name, "fd": layer.fd, "far": isinstance(layer, FarLayer)}


def ask(path: str) -> dict[str, Any] | None:
    """Return what the daemon of the mount at *path* says, None where it is dead.

    OSError where that is no union, or not to be looked at.
    """
    try:
        attribute = os.getxattr(path, STATUS)
    except OSError as exc:
        if exc.errno in _DEAD:
            return None
        raise
    return document(attribute)


def find(mountpoint: str) -> LiveMount:
    """Return the union that is mounted at *mountpoint*, also one whose daemon is dead."""
    path = os.path.realpath(mountpoint)
    try:
        status = ask(path)
    except PermissionError:
        raise Refused(
            f"not permitted to look at '{mountpoint}': only root can (try sudo)"
        ) from None
    except FileNotFoundError:
        raise Refused(f"mount point '{mountpoint}' does not exist") from None
    except OSError:
        raise _no_union(mountpoint) from None
    top = mountinfo.top_at(path) if status is None else None
    if status is None and (top is None or not top.kind.startswith("fuse")):
        raise _no_union(mountpoint)
    return LiveMount(path, status)


def _no_union(mountpoint: str) -> Refused:
    return Refused(f"no union is mounted at '{mountpoint}'")
