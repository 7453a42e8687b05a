"""Which changes of a union a user means by naming paths."""

import os
from collections.abc import Iterable, Iterator

from unionfs.audit.comparison import Change
from unionfs.layers.persistence import Rules
from unionfs.mounting import live
from unionfs.mounting.options import Refused


def union_of(names: Iterable[str]) -> tuple[live.LiveMount, list[bytes]]:
    """Return the union that all the named paths lie in, and the paths in it."""
    found: dict[str, live.LiveMount] = {}
    wanted = []
    for name in names:
        path = os.path.join(os.path.realpath(os.path.dirname(name) or "."), os.path.basename(name))
        top = os.path.normpath(path)
        while not os.path.ismount(top):
            top = os.path.dirname(top)
        found.setdefault(top, live.find(top))
        wanted.append(os.fsencode(os.path.relpath(path, top)))
    if len(found) != 1:
        raise Refused(f"the paths lie in several unions: {', '.join(found)}; name those of one")
    return next(iter(found.values())), wanted


def _is_at_or_below(path: bytes, top: bytes) -> bool:
    return top in {b".", path} or path.startswith(top + b"/")


def chosen(found: list[Change], wanted: list[bytes], rules: Rules) -> Iterator[Change]:
    """Yield the changes that are wanted, and the new directories that lead to them."""
    persisted = [path for path in wanted if rules.at(path).persisted]
    named = [
        change
        for change in found
        if any(
            _is_at_or_below(change.path, path)
            for path in (persisted if rules.at(change.path).persisted else wanted)
        )
    ]
    for change in found:
        leads = change.kind != "deleted" and any(
            _is_at_or_below(other.path, change.path) for other in named if other.kind != "deleted"
        )
        if change in named or (leads and change.path):
            yield change
