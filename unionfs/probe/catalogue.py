"""All checks, in the order of the table."""

from collections.abc import Iterator
from types import ModuleType

from unionfs.probe import extensions, identity, limits, names, people, programs, races
from unionfs.probe.model import Check

_REQUIRED = (
    ("Names", names),
    ("The file behind the name", identity),
    ("Other users", people),
    ("Atomicity, readers beside a writer", races),
    ("Programs", programs),
)

Group = tuple[str, tuple[Check, ...]]


def groups() -> Iterator[Group]:
    """Yield what POSIX requires, by subject, then what lies beyond it, and the limits of both."""
    for title, module in _REQUIRED:
        yield title, tuple(check for check in _checks(module) if check.required)
    modules = (extensions, *(module for _, module in _REQUIRED))
    beyond = (check for module in modules for check in _checks(module) if not check.required)
    yield "Beyond POSIX", tuple(beyond)
    yield "Limits", tuple(_checks(limits))


def _checks(module: ModuleType) -> Iterator[Check]:
    return (value for value in vars(module).values() if isinstance(value, Check))
