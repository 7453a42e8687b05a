"""What a machine's configuration asks for: a union with a scratch side and a state side.

There are two kinds of files: Fedora's (`readonlyroot`) and one of our own (`tomlfile`).  Both
become a `Configuration`, and mounting, the boot and `unionfs config` know only that.
Nothing here looks at a device or a layer.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple


@dataclass(frozen=True, slots=True)
class Ram:
    """Room in RAM."""

    options: str = ""  # as tmpfs(5) has them: size=50%

    def __str__(self) -> str:
        return f"RAM ({self.options})" if self.options else "RAM"


@dataclass(frozen=True, slots=True)
class Disk:
    """Room on a file system that is to be mounted first."""

    device: str  # as mount(8) takes it: LABEL=..., UUID=..., /dev/...
    mountpoint: str = ""  # where it is to be mounted; "": nowhere in particular
    kind: str = "auto"
    options: str = ""  # as mount(8) takes them
    awaited: bool = True  # wait for a device that is not there yet?

    def __str__(self) -> str:
        return f"the disk {self.device}" + (f" ({self.options})" if self.options else "")


@dataclass(frozen=True, slots=True)
class Directory:
    """Room in a directory that is there."""

    path: str

    def __str__(self) -> str:
        return f"the directory {self.path}"


Room = Ram | Disk | Directory


class Planted(NamedTuple):
    """A directory that begins in scratch with less content than the lowers have."""

    kind: Literal["empty", "dirs"]  # nothing in it; its tree of directories, without files
    path: str


class Rule(NamedTuple):
    """A path that persists, or, with ! before it, does not."""

    text: str
    where: str  # the file and line that say so, for messages


@dataclass(frozen=True, slots=True)
class Configuration:
    """A machine's whole configuration."""

    source: str  # the file that was read first
    lowers: tuple[str, ...] = ("/",)  # top first
    scratch: tuple[Room, ...] = (Ram(),)  # the first that can be had
    state: tuple[Room, ...] = ()  # the first that can be had; (): nothing is to persist
    state_required: bool = False  # mount nothing without it?
    state_adds_rules: bool = False  # may state itself have rules, as readonly-root's?
    rules: tuple[Rule, ...] = ()
    planted: tuple[Planted, ...] = ()
    options: tuple[str, ...] = ()  # strings as -o takes them
    notes: tuple[str, ...] = ()  # settings that mean nothing here, and why

    @property
    def persist(self) -> tuple[str, ...]:
        """Return the rules as `Rules.parse` takes them."""
        return tuple(rule.text for rule in self.rules)
