"""The probe on our union: all holds, wherever sources and targets come from."""

import pytest

from tests.probe.filesystems import CASES, UNIONFS, prepared, verdicts

LACKING = {
    "whiteout-over-file",  # renameat2(2)'s WHITEOUT; kernel overlayfs lacks it as well
    "whiteout-directory",
}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_all_holds_on_a_union(case, base):
    if UNIONFS.missing:
        pytest.skip(UNIONFS.missing)
    with prepared(UNIONFS, base / "stack", case) as directory:
        report = verdicts(directory, case, rounds=100)
        assert list(directory.iterdir()) == []
    assert report["stderr"] == ""
    assert report["file_system"] == "fuse.unionfs"
    differing = {
        check["name"]: (check["verdict"], check["seen"])
        for check in report["checks"]
        if check["verdict"] != "holds" and check["name"] not in LACKING
    }
    assert differing == {}
