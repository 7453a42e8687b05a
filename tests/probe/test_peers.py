"""The same probe on other unions: what differs there, by name, so that we notice if it changes."""

import pytest

from tests.probe.filesystems import (
    FRESH,
    FUSE_OVERLAYFS,
    MERGERFS,
    OVERLAY,
    OVERLAY_ON,
    UNIONFS_FUSE,
    Case,
    prepared,
    verdicts,
)

LOWER = Case(("lower1",), ("lower1",))

DIRECTORIES = {  # EXDEV when a directory of a lower layer is renamed
    "directory-to-nothing",
    "directory-over-empty",
    "directory-over-emptied",
    "directory-over-full",
    "across-directories",
    "name-used-again",
    "there-and-back",
    "moved-directory-lives",
    "inode-number",
    "open-directory",
    "current-directory",
    "replaced-directory",
    "directory-while-replaced",
}
LINKS = {"onto-hard-link", "one-of-two-links"}
RACES = {
    "opened-while-replaced",
    "opened-while-replaced-across",
    "looked-up-while-replaced",
    "mapped-while-replaced",
    "first-replacement",
    "directory-while-replaced",
    "symlink-while-replaced",
}
FUSE_OVERLAYFS_DIFFERS = {"open-target", "symlink-while-replaced", "longest-names"}
UNIONFS_FUSE_DIFFERS = {
    *LINKS,
    "directory-while-replaced",  # the other races are lost often, but not every time
    "symlink-while-replaced",
    "open-target",
    "mapped-target",
    "replaced-directory",
    "longest-names",
}
MERGERFS_DIFFERS = {
    *LINKS,
    "directory-over-full",
    "open-directory",
    "replaced-directory",
    "longest-names",
}


@pytest.mark.parametrize(
    ("system", "case", "always", "sometimes"),
    [
        (OVERLAY, FRESH, set(), set()),
        (OVERLAY, LOWER, {*DIRECTORIES, *LINKS, "replaced-loses-link"}, set()),
        (OVERLAY_ON, FRESH, set(), set()),
        (OVERLAY_ON, LOWER, set(), set()),
        (FUSE_OVERLAYFS, FRESH, FUSE_OVERLAYFS_DIFFERS, set()),
        (FUSE_OVERLAYFS, LOWER, {*FUSE_OVERLAYFS_DIFFERS, *DIRECTORIES}, set()),
        (UNIONFS_FUSE, FRESH, UNIONFS_FUSE_DIFFERS, RACES),
        (
            UNIONFS_FUSE,
            LOWER,
            {
                *UNIONFS_FUSE_DIFFERS,
                "directory-over-emptied",
                "replaced-loses-link",
                "open-source-sees-writes",
            },
            RACES,
        ),
        (MERGERFS, FRESH, MERGERFS_DIFFERS, RACES),
        (MERGERFS, LOWER, MERGERFS_DIFFERS, RACES),
    ],
    ids=lambda value: getattr(value, "name", str(value) if isinstance(value, Case) else ""),
)
def test_a_peer_differs_where_it_is_known_to(system, case, always, sometimes, base):
    if system.missing:
        pytest.skip(system.missing)
    with prepared(system, base / "stack", case) as directory:
        report = verdicts(directory, case, rounds=300)
    differs = {
        check["name"]
        for check in report["checks"]
        if check["required"] and check["verdict"] == "differs"
    }
    assert always - differs == set()
    assert differs - always <= sometimes
