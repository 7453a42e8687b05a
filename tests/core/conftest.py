"""A union on temporary directories, without a mount; its invariants hold after every test."""

import os
import shutil

import pytest

from tests.core.driver import Driver, stack_in
from tests.core.invariants import check
from tests.trees import harvest, plant
from unionfs.changes import scaffolds
from unionfs.host import syscalls
from unionfs.view.union import Features


def _nothing():
    pass


@pytest.fixture
def union(tmp_path):
    """Build a `Driver` of the union of *upper* (None: read-only) over *lowers*."""
    drivers = []
    cwd, umask = os.getcwd(), os.umask(0o22)

    def build(upper, *lowers, state=None, rules=(), **features):
        for index, tree in enumerate(lowers):
            plant(tmp_path / f"lower{index}", tree)
        if upper is not None:
            plant(tmp_path / "upper", upper)
            (tmp_path / "work").mkdir()
        if rules:
            plant(tmp_path / "state", state or {})
            (tmp_path / "state-work").mkdir()
        return remount(rules, **features)

    def remount(rules, **features):
        stack = stack_in(tmp_path, rules)
        features = {"fsync": "off", **features}  # what reaches the disk is for tests/crash
        driver = Driver(stack, Features(**features), tmp_path)
        driver.remount = lambda: remount(rules, **features)
        driver.reboot = lambda between=_nothing: reboot(driver, between, rules, **features)
        drivers.append(driver)
        return driver

    def reboot(driver, between, rules, **features):
        """Mount again with an empty scratch; *between* something happens to the lowers."""
        check(driver)
        driver.close()
        drivers.remove(driver)
        between()
        for name in ("upper", "work"):
            shutil.rmtree(tmp_path / name)
            (tmp_path / name).mkdir()
        again = remount(rules, **features)
        again.upgraded = between is not _nothing
        scaffolds.make_again(again.union, again.changes)
        return again

    yield build
    before = [harvest(path) for path in sorted(tmp_path.glob("lower*"))]
    for driver in drivers:
        check(driver)
        driver.close()
    assert [harvest(path) for path in sorted(tmp_path.glob("lower*"))] == before
    os.chdir(cwd)
    os.umask(umask)
    syscalls.set_filesystem_ids(0, 0)
    syscalls.drop_capabilities_with_setfsuid()
