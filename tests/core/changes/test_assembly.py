"""The union of a stack: what is imported for it."""

import subprocess
import sys

# What alone a union of two sides needs; each is some milliseconds of a boot.
CHANGES = ("arrivals", "crossings", "remembering", "scaffolds", "sided_copyups", "sides")
VIEW = ("sides", "sidetables", "transfers", "twins")
FUSE = ("crossing_copies",)
OF_TWO_SIDES = {
    *(f"unionfs.changes.{name}" for name in CHANGES),
    *(f"unionfs.view.{name}" for name in VIEW),
    *(f"unionfs.fuse.{name}" for name in FUSE),
    "unionfs.layers.persistence",
}


def imported(script):
    """Return the modules that a Python has imported at the end of *script*."""
    script += "\nimport sys; print(*sys.modules)"
    return set(subprocess.check_output([sys.executable, "-c", script], text=True).split())


def test_a_union_of_one_side_imports_nothing_of_two():
    serving = imported(
        "from unionfs import cli\nfrom unionfs.mounting import daemon, guard\n"
        "from unionfs.fuse import direct, operations, session"
    )
    assert "unionfs.changes.assembly" in serving
    assert not OF_TWO_SIDES & serving


def test_what_a_union_of_two_sides_needs_is_named_rightly():
    script = (
        "from unionfs.changes import scaffolds, sides; from unionfs.fuse import crossing_copies"
    )
    assert imported(script) >= OF_TWO_SIDES
