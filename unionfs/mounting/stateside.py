"""The second writable side of a union, opened: state, or the reason why it is lost.

A machine must boot even without its state disk.  If state is missing, read-only, damaged or in use,
the union is made without it, all changes go to scratch, and that is reported loudly
(`Stack.state_lost`).  `--state-required` refuses instead.  Directories that are state and scratch
at once are always refused, as scratch is emptied.

Scratch on disk is emptied here, before each mount.  A directory without the mark that we set when
it was empty is refused.
"""

import contextlib
import logging
import os
from typing import TYPE_CHECKING

from unionfs.layers import inheritance, links, markers
from unionfs.layers.layer import Layer, WritableLayer, join
from unionfs.layers.stack import OWN_WORK, State
from unionfs.layers.staging import Staging
from unionfs.layers.whiteouts import is_whiteout
from unionfs.mounting import places, uppers
from unionfs.mounting.options import Options, Refused
from unionfs.mounting.places import Place

if TYPE_CHECKING:
    from unionfs.layers.persistence import RuleNode

log = logging.getLogger(__name__)


class Lost(Exception):  # noqa: N818 - it says what has become of state
    """State cannot be had: says why."""


def told(options: Options, why: Lost) -> str:
    """Log that state is lost, and return why; refuse where state is required."""
    if options.state_required:
        raise Refused(str(why)) from None
    log.error("%s; NOTHING PERSISTS, all goes to scratch", why)
    return str(why)


def find(options: Options, held: contextlib.ExitStack) -> list[Place]:
    """Hold state and its work open; `Lost` where one is missing."""
    name = options.state or ""
    try:
        state = places.find("state", name)
        held.callback(os.close, state.fd)
        if not options.state_work:
            with contextlib.suppress(FileExistsError):
                os.mkdir(OWN_WORK, 0o700, dir_fd=state.fd)
        work = places.find("state work", options.state_work or os.path.join(state.name, OWN_WORK))
        held.callback(os.close, work.fd)
    except Refused as exc:
        raise Lost(str(exc)) from None
    except OSError as exc:
        raise Lost(f"state '{name}' cannot be written to: {exc.strerror}") from None
    return [state, work]


def open_state(options: Options, found: list[Place], attached: list[Place]) -> State:
    """Open, claim and try state; `Lost` where it cannot be used."""
    from unionfs.layers.persistence import Rules  # noqa: PLC0415 - few mounts have state

    place, work_place = found
    try:
        upper, work, copy = uppers.open_upper(place, work_place, attached)
    except Refused as exc:
        raise Lost(str(exc)) from None
    except OSError as exc:
        raise Lost(f"{place.label} cannot be opened: {exc.strerror}") from None
    own = os.path.basename(work_place.name) == OWN_WORK and not options.state_work
    rules = Rules.parse((*options.persist, *([f"!/{OWN_WORK}"] if own else ())))
    state = State(upper, work, rules, copy)
    try:
        inheritance.prepare(work, upper)
        _require_ways(place, upper, b".", rules.root)
    except OSError as exc:
        state.close()
        raise Lost(f"{place.label} is damaged or full: {exc.strerror}") from None
    except BaseException:
        state.close()
        raise
    return state


def _require_ways(place: Place, state: Layer, directory: bytes, rule: "RuleNode") -> None:
    """Raise `Lost` for a file in the place of a directory that the rules lead through."""
    for entry in state.scan(directory):
        here, path = rule.child(entry.name), join(directory, entry.name)
        if not here.leads:
            continue
        if entry.is_dir(follow_symlinks=False):
            _require_ways(place, state, path, here)
        elif not here.persisted and not is_whiteout(state.stat(path)):
            name = os.fsdecode(path)
            raise Lost(f"{place.label} has a file '/{name}' where rules want a directory: move it")


def empty_scratch(upper: WritableLayer, work: WritableLayer, like: int) -> None:
    """Remove all that the last mount has left in a scratch directory; refuse one that is not ours.

    Its root then resembles the directory *like*, as that of a new scratch in RAM does.
    """
    entries = list(upper.scan(b"."))
    if entries and upper.find_attribute(b".", markers.SCRATCH) is None:
        raise Refused(
            f"upper '{upper.name}' is not empty, and no scratch of a former mount: all in it would"
            " be deleted; empty it, or choose another directory"
        )
    upper.set_attribute(b".", markers.SCRATCH, b"y")
    inheritance.prepare(work, upper)
    staging = Staging(work)
    for entry in entries:
        staged = staging.name()
        upper.move(entry.name, work, staged)
        staging.discard(staged)
    for entry in work.scan(links.DIRECTORY):
        work.unlink(join(links.DIRECTORY, entry.name))
    for name in upper.attributes(b"."):
        if name != markers.SCRATCH and not name.startswith("security."):
            upper.remove_attribute(b".", name)
    uppers.resemble(upper.fd, like)
