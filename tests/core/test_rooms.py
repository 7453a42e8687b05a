"""The rooms of the package: imports go down between them, never up (docs/architecture.md).

And what keeps a room readable: how long its modules and functions are at most.
"""

import ast
import functools
from pathlib import Path

import unionfs

ROOT = Path(unionfs.__file__).parent

# From the top down.
ROOMS = (
    "commands", "probe", "mounting", "fuse", "changes", "audit", "view", "layers", "host",
)  # fmt: skip
KNOW_FUSE = {"fuse", "mounting"}  # pyfuse3 and trio


@functools.cache
def _imported(path):
    """Return the modules that a file names in its imports, anywhere in it."""
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return names


def _room(module):
    """Return the room of a module of ours, or None."""
    package, _, rest = module.partition(".")
    room = rest.partition(".")[0]
    return room if package == "unionfs" and room in ROOMS else None


def test_all_modules_are_in_a_room():
    outside = {path.name for path in ROOT.glob("*.py")}
    assert outside == {"__init__.py", "cli.py"}
    assert {path.parent.name for path in ROOT.glob("*/__init__.py")} == set(ROOMS)


def test_imports_go_down():
    upwards = set()
    for path in ROOT.rglob("*.py"):
        own = _room(".".join(("unionfs", *path.relative_to(ROOT).parts)))
        if own is not None:
            upwards |= {
                (str(path.relative_to(ROOT)), other)
                for other in map(_room, _imported(path))
                if other is not None and ROOMS.index(other) < ROOMS.index(own)
            }
    assert upwards == set()


def test_only_two_rooms_know_pyfuse3_and_trio():
    knowing = {
        path.relative_to(ROOT).parts[0]
        for path in ROOT.rglob("*.py")
        if {"pyfuse3", "trio"} & {name.partition(".")[0] for name in _imported(path)}
    }
    assert knowing <= KNOW_FUSE


MOST_LINES = 400  # of a module
MOST_OF_A_FUNCTION = 40


def test_no_module_is_long():
    lines = {str(path.relative_to(ROOT)): _lines(path) for path in ROOT.rglob("*.py")}
    assert {path: count for path, count in lines.items() if count > MOST_LINES} == {}


def _lines(path):
    return len(path.read_text().splitlines())


def test_no_function_is_long():
    long = {
        f"{path.relative_to(ROOT)}:{node.name}": length
        for path in ROOT.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := node.end_lineno - node.lineno + 1) > MOST_OF_A_FUNCTION
    }
    assert long == {}
