"""What holds after every operation: the invariants stated in `node` and architecture."""

import os
import stat


def check(driver):
    union = driver.union
    for node in union.nodes.values():
        _check_node(union, node)
    if not union.upper:
        return
    assert os.listdir(driver.work / "work") == [], "work is empty when nothing is under way"
    _check_whiteouts(driver, union.root, driver.upper)


def _check_node(union, node):
    assert node.lookups >= 0
    assert node.lookups or node.children or node is union.root, "an unknown node is outside"
    if node.upper and node.parent is not None and not node.orphan and not node.link:
        assert node.parent.upper, "if a node is on upper, so are its ancestors"
    if not node.upper:
        assert node.lowers
    if node.orphan and node.upper:
        assert node.pin >= 0 or node.link, "an orphan on upper is reached through a pin"
    if node.upper and not node.is_directory:
        assert len(node.lowers) <= 1


def _check_whiteouts(driver, parent, directory):
    """A whiteout exists exactly when something below would show."""
    union = driver.union
    for entry in os.scandir(os.fsencode(directory)):
        st = entry.stat(follow_symlinks=False)
        if stat.S_ISCHR(st.st_mode) and st.st_rdev == 0:
            assert union.lookup.shows_below(parent, entry.name), f"useless whiteout {entry.path!r}"
        elif entry.is_dir(follow_symlinks=False):
            child, _ = union.lookup.node(parent, entry.name)
            child.lookups += 1
            _check_whiteouts(driver, child, entry.path)
