"""Machines for the tests; a failed test's console is kept in build/boot/failed."""

import os
import shutil

import pytest

from .guest import Disk, Guest
from .image import BUILD, Image, make_ext4


def pytest_configure(config):
    config.addinivalue_line("markers", "quick: one boot and shutdown in QEMU")


@pytest.fixture(scope="session")
def image():
    return Image()


@pytest.fixture
def machine(image, tmp_path, request):
    """Make a machine; `upper` is a disk that takes the changes."""

    def make(*, upper=None, disks=(), path=tmp_path, **kwargs):
        upper = [Disk(upper, "upper")] if upper else []
        return Guest(kwargs.pop("image", None) or image, path, disks=[*upper, *disks], **kwargs)

    yield make
    report = request.node.stash.get(FAILED, None)
    if report:
        kept = os.path.join(BUILD, "failed", request.node.name.replace("/", "-"))
        os.makedirs(kept, exist_ok=True)
        for directory, _, names in os.walk(tmp_path):
            place = os.path.relpath(directory, tmp_path).replace("/", "-") + "-"
            place = "" if directory == str(tmp_path) else place
            for name in names:
                if name.endswith((".console", ".report")):
                    shutil.copy(os.path.join(directory, name), os.path.join(kept, place + name))


@pytest.fixture
def upper(tmp_path):
    """A disk that takes the changes."""
    return make_ext4(str(tmp_path / "upper.ext4"), "changes", "256M")


FAILED = pytest.StashKey()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(item):
    report = yield
    if report.when == "call" and report.failed:
        item.stash[FAILED] = True
    return report
