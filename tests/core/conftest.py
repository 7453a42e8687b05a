"""A union on temporary directories, without a mount; its invariants hold after every test."""

import os

import pytest

from tests.core.driver import Driver
from tests.core.invariants import check
from tests.layers import opened
from tests.trees import harvest, plant
from unionfs.host import syscalls
from unionfs.layers.layer import Layer, WritableLayer
from unionfs.layers.stack import Stack
from unionfs.view.union import Features


@pytest.fixture
def union(tmp_path):
    """Build a `Driver` of the union of *upper* (None: read-only) over *lowers*."""
    drivers = []
    cwd, umask = os.getcwd(), os.umask(0o22)

    def build(upper, *lowers, **features):
        for index, tree in enumerate(lowers):
            plant(tmp_path / f"lower{index}", tree)
        if upper is not None:
            plant(tmp_path / "upper", upper)
            (tmp_path / "work").mkdir()
        return remount(**features)

    def remount(**features):
        lowers = sorted(tmp_path.glob("lower*"))
        upper = work = None
        if (tmp_path / "upper").exists():
            fds = opened(tmp_path / "upper", tmp_path / "work")
            upper, work = WritableLayer(fds[0], name="upper"), WritableLayer(fds[1], name="work")
        stack = Stack(
            upper,
            work,
            tuple(
                Layer(*opened(path), number=len(lowers) - index, name=str(path))
                for index, path in enumerate(lowers)
            ),
        )
        features = {"fsync": "off", **features}  # what reaches the disk is for tests/crash
        driver = Driver(stack, Features(**features), tmp_path)
        driver.remount = lambda: remount(**features)
        drivers.append(driver)
        return driver

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
