"""The probe on a union with two writable sides: sources are on one, targets on the other.

In the probe's trees, names that begin with `target` are what is renamed onto.
"""

import pytest

from tests.probe.filesystems import FRESH, Case, FileSystem, prepared, unionfs_sides, verdicts
from tests.probe.test_union import LACKING

TARGETS = ("/unionfs-probe*/*/target*",)
SOURCES = ("/unionfs-probe*/*/*", "!/unionfs-probe*/*/target*")
SIDES = {
    "to state": FileSystem("to state", "", unionfs_sides(*TARGETS)),
    "to scratch": FileSystem("to scratch", "", unionfs_sides(*SOURCES)),
}
CASES = (FRESH, Case(("lower1",), ("lower1",)), Case(("lower1", "lower2"), ("lower2",)))

# What they do to directories, which do not cross: docs/limits.md.
OF_DIRECTORIES = (
    "across-directories", "current-directory", "directory-over-emptied", "directory-over-empty",
    "directory-over-full", "directory-to-nothing", "directory-while-replaced", "exchange-across",
    "exchange-directories", "exchange-mixed", "exchange-refused", "exchange-twice",
    "exchanged-while-watched", "inode-number", "listed-inode-number", "moved-directory-lives",
    "noreplace-to-nothing", "open-directory", "replaced-directory",
)  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("sides", SIDES)
def test_all_holds_across_the_sides_but_for_directories(sides, case, base):
    system = SIDES[sides]
    if system.missing:
        pytest.skip(system.missing)
    with prepared(system, base / "stack", case) as directory:
        report = verdicts(directory, case, rounds=100)
        assert list(directory.iterdir()) == []
    assert report["stderr"] == ""
    differing = {
        check["name"]: check["seen"]
        for check in report["checks"]
        if check["verdict"] != "holds" and check["name"] not in LACKING
    }
    assert {name: seen[:5] for name, seen in differing.items()} == dict.fromkeys(
        OF_DIRECTORIES, "EXDEV"
    )
