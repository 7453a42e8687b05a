"""What holds after every operation: the invariants stated in `node`, `sides` and architecture."""

import os
import stat

from unionfs.view.sides import TwoSided


def check(driver):
    union = driver.union
    if isinstance(union, TwoSided):
        _check_sides(driver, union)
        return
    for node in union.nodes.values():
        _check_node(union, node)
    if not union.upper:
        return
    staged = set(os.listdir(driver.work / "work")) - {"incompat"}  # which stays until all is whole
    assert staged == set(), "work is empty when nothing is under way"
    _check_whiteouts(driver, union.root, driver.upper)


def _check_sides(driver, union):
    for side, directory, work in (
        (union.scratch, driver.upper, driver.work),
        (union.state, driver.state, driver.state_work),
    ):
        for node in side.nodes.values():
            assert node.persisted == side.persisted
            _check_node(union, node)
        assert os.listdir(work / "work") == [], "work is empty when nothing is under way"
        _check_tree(driver, side, union.root, driver.stack.state.rules.root, directory)
    for number in set(union.scratch.nodes) & set(union.state.nodes):
        file = union.twins.file(union.scratch.nodes[number])
        assert file is union.state.nodes[number], "one number for two nodes"


def _check_tree(driver, side, parent, rule, directory):
    """An upper holds what belongs to it, and the directories that lead there; whiteouts hide."""
    union = driver.union
    for entry in os.scandir(os.fsencode(directory)):
        st, here = entry.stat(follow_symlinks=False), rule.child(entry.name)
        is_directory = entry.is_dir(follow_symlinks=False)
        own = here.persisted == side.persisted
        assert own or (is_directory and here.leads), f"{entry.path!r} is on the wrong side"
        if stat.S_ISCHR(st.st_mode) and st.st_rdev == 0:
            is_of_use = driver.upgraded or union.lookup.shows_below(parent, entry.name)
            assert is_of_use, f"useless whiteout {entry.path!r}"
        elif is_directory:
            found = union.lookup.node(parent, entry.name)
            # It is gone, or a file has its name, and it tells what of it does not persist.
            if found is None or not found[0].is_directory:
                assert not own
                continue
            found[0].lookups += 1
            _check_tree(driver, side, found[0], here, entry.path)


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
