"""How the directories that a user named become the layers of a union.

Lowers are opened in detached, read-only copies of their mounts, upper and work
in a writable one (`copies`, `uppers`); where the kernel has none, before Linux
5.12, plain descriptors serve.  Whatever is known to fail later is refused here,
before anything is mounted, with a message that names the directory and says
what to do.
"""

import contextlib
import fcntl
import logging
import os

from unionfs.host import copies
from unionfs.layers import incomplete
from unionfs.layers.far import Memo
from unionfs.layers.layer import Layer, WritableLayer
from unionfs.layers.stack import Stack, State
from unionfs.mounting import distance, places, stateside, uppers
from unionfs.mounting.options import Options, Refused
from unionfs.mounting.places import Place

log = logging.getLogger(__name__)

LOWERS_MAX = 500  # as overlayfs: fs/overlayfs/params.c, OVL_MAX_STACK

# Bits of capabilities(7).  Without the others, some changes by some users would fail later.
_CAP_SYS_ADMIN = 21
_CAPABILITIES = {
    "CAP_CHOWN": 0,
    "CAP_DAC_OVERRIDE": 1,
    "CAP_FOWNER": 3,
    "CAP_FSETID": 4,
    "CAP_SETGID": 6,
    "CAP_SETUID": 7,
    "CAP_SETFCAP": 31,
}


def require_privileges() -> None:
    """Refuse where this process cannot mount, or the kernel has no FUSE."""
    if os.geteuid() != 0:
        raise Refused("not permitted: only root can mount a union (try sudo)")
    with open("/proc/self/status", encoding="ascii", errors="replace") as lines:
        effective = next(int(line.split()[1], 16) for line in lines if line.startswith("CapEff:"))
    if not effective >> _CAP_SYS_ADMIN & 1:
        raise Refused(
            "not permitted: mounting needs CAP_SYS_ADMIN (in a container: --privileged,"
            " or --cap-add SYS_ADMIN --device /dev/fuse)"
        )
    missing = [name for name, bit in _CAPABILITIES.items() if not effective >> bit & 1]
    if missing:
        raise Refused(f"not permitted: a union also needs {', '.join(missing)}")
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC))
    except OSError as exc:
        raise Refused(
            f"/dev/fuse: {exc.strerror}: load the module (modprobe fuse),"
            " or pass the device into the container (--device /dev/fuse)"
        ) from None


def open_stack(options: Options, mountpoint: str | None = None) -> Stack:
    """Open and check all layers; nothing has changed when this refuses."""
    if not options.lowers:
        raise Refused("no lower layer: give --lower DIR (or -o lowerdir=DIR)")
    if len(options.lowers) > LOWERS_MAX:
        raise Refused(f"{len(options.lowers)} lower layers: at most {LOWERS_MAX} are possible")
    distance.await_answers(options.lowers)
    with contextlib.ExitStack() as held, contextlib.ExitStack() as undo:
        named = _Named(options, mountpoint, held)
        attached: list[Place] = []
        lowers = _open_lowers(options, named.lowers, attached, undo)
        if named.upper is not None and options.copyup == "blocks":
            uppers.require_holes(named.upper)
        upper, work, copy = _open_writable(options, named, lowers[0].fd, attached)
        for layer in filter(None, (upper, work)):
            undo.callback(os.close, layer.fd)
        if copy >= 0:
            undo.callback(os.close, copy)
        state, lost = named.open_state(options, attached)
        if state is not None:
            undo.callback(state.close)
        named.check_mountpoint(attached)
        emptied = options.state or options.wipe == "on"
        if emptied and options.upper and upper is not None and work is not None:
            stateside.empty_scratch(upper, work, lowers[0].fd)
        undo.pop_all()
        return Stack(upper, work, lowers, named.within(upper, lowers, state), copy, state, lost)


class _Named:
    """The directories that the options name, held open until the layers are."""

    def __init__(
        self, options: Options, mountpoint: str | None, held: contextlib.ExitStack
    ) -> None:
        def find(role: str, name: str) -> Place:
            place = places.find(role, name)
            held.callback(os.close, place.fd)
            return place

        self.lowers = [find("lower", name) for name in options.lowers]
        self.upper = find("upper", options.upper) if options.upper else None
        self.work = find("work", options.work) if options.work else None
        places.check_layers(self.upper, self.work, self.lowers)
        self.state: list[Place] = []  # state and its work; empty where state is lost
        self._lost = ""
        if options.state:
            self._find_state(options, held)
        self.mountpoint = find("mount point", mountpoint) if mountpoint else None

    def _find_state(self, options: Options, held: contextlib.ExitStack) -> None:
        try:
            self.state = stateside.find(options, held)
        except stateside.Lost as exc:
            self._lost = stateside.told(options, exc)
            return
        places.check_layers(self.state[0], self.state[1], self.lowers)
        places.check_sides([*filter(None, (self.upper, self.work))], self.state)

    def open_state(self, options: Options, attached: list[Place]) -> tuple[State | None, str]:
        """Open state, if one was named; return it, or why it is lost."""
        if not self.state:
            return None, self._lost
        try:
            return self._open_state(options, attached), ""
        except stateside.Lost as exc:
            self.state = []
            return None, stateside.told(options, exc)

    def _open_state(self, options: Options, attached: list[Place]) -> State:
        state = stateside.open_state(options, self.state, attached)
        if incomplete.is_said(state.upper):
            state.close()
            raise stateside.Lost(_in_part(self.state[0]))
        return state

    def within(
        self, upper: Layer | None, lowers: tuple[Layer, ...], state: State | None
    ) -> frozenset[Layer]:
        """Return the layers that lie within another one; an upper stands for its work, too."""
        opened = dict(zip(self.lowers, lowers, strict=True))
        if upper is not None and self.upper is not None and self.work is not None:
            opened |= {self.upper: upper, self.work: upper}
        if state is not None:
            opened[self.state[0]] = state.upper
        return frozenset(opened[place] for place in places.within_another(list(opened)))

    def check_mountpoint(self, attached: list[Place]) -> None:
        """Check where the union is to be mounted; *attached* layers are no detached copies."""
        if self.mountpoint is not None:
            layers = [*self.lowers, *filter(None, (self.upper, self.work)), *self.state]
            places.check_mountpoint(self.mountpoint, layers, attached)


def _open_lowers(
    options: Options, found: list[Place], attached: list[Place], undo: contextlib.ExitStack
) -> tuple[Layer, ...]:
    layers, memo = [], Memo()
    for number, place in zip(range(len(found), 0, -1), found, strict=True):
        fd = _open_lower(place, attached)
        undo.callback(os.close, fd)
        _refuse_incomplete(fd, place)
        layers.append(distance.opened(fd, number, place.name, options, memo))
        _warn_if_in_use(layers[-1])
    return tuple(layers)


def _refuse_incomplete(fd: int, place: Place) -> None:
    """Refuse as a lower an upper that has files in part: their missing blocks would be zeros."""
    if incomplete.is_said(Layer(fd, name=place.name)):
        raise Refused(_in_part(place))


def _in_part(place: Place) -> str:
    return (
        f"{place.label} is an upper that has files in part (copyup=blocks):"
        f" unmount its union, or make them whole with 'unionfs settle {place.name}'"
    )


def _open_lower(place: Place, attached: list[Place]) -> int:
    try:
        return copies.open_read_only(place.fd)
    except OSError as exc:
        if exc.errno not in copies.UNAVAILABLE:
            raise Refused(f"{place.label} cannot be opened: {os.strerror(exc.errno or 0)}") from exc
    attached.append(place)
    try:
        return os.open(".", copies.DIRECTORY, dir_fd=place.fd)
    except OSError as exc:
        raise Refused(f"{place.label} cannot be opened: {exc.strerror}") from None


def _warn_if_in_use(lower: Layer) -> None:
    """Say so when a lower is the upper of a live union, which holds a lock on it (`uppers`)."""
    try:
        fcntl.flock(lower.fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fcntl.flock(lower.fd, fcntl.LOCK_UN)
    except BlockingIOError:
        log.warning("lower '%s' is the upper of a live union: do not change it there", lower.name)
    except OSError:
        log.debug("lower '%s' is on a file system without locks, so it is no upper", lower.name)


def _open_writable(
    options: Options, named: _Named, like: int, attached: list[Place]
) -> tuple[WritableLayer | None, WritableLayer | None, int]:
    if options.ram is not None:
        return uppers.open_ram(options.ram, like)
    if named.upper is not None and named.work is not None:
        return uppers.open_upper(named.upper, named.work, attached, options.whiteout)
    return None, None, -1
