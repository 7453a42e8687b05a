"""Machines for the tests; a failed test's console is kept in build/boot/failed."""

import os
import shutil

import pytest

from .guest import Guest
from .image import BUILD, Image, make_ext4

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="images are made by root")


@pytest.fixture(scope="session")
def image():
    return Image()


@pytest.fixture
def machine(image, tmp_path, request):
    """Make a machine; `upper` is the size of the disk that takes the changes."""

    def make(*, upper=None, **kwargs):
        disk = make_ext4(str(tmp_path / "upper.ext4"), "changes", upper) if upper else None
        return Guest(kwargs.pop("image", image), tmp_path, disk=disk, **kwargs)

    yield make
    report = request.node.stash.get(FAILED, None)
    if report:
        kept = os.path.join(BUILD, "failed", request.node.name)
        os.makedirs(kept, exist_ok=True)
        for entry in os.scandir(tmp_path):
            if entry.name.endswith((".console", ".report")):
                shutil.copy(entry.path, kept)


FAILED = pytest.StashKey()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(item):
    report = yield
    if report.when == "call" and report.failed:
        item.stash[FAILED] = True
    return report
