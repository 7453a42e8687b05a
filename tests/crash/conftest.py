"""Where the crash tests try things.

UNIONFS_CRASH_DIR puts layers on another file system than the tmpfs /dev/shm.
"""

import faulthandler
import os
import shutil
import tempfile

import pytest

from . import disks
from .sample import SEED


def pytest_report_header():
    return f"crash tests: UNIONFS_CRASH_SEED={SEED}"


@pytest.fixture(autouse=True)
def _patience():
    """Let a test take more than a minute on a busy machine: it forks daemons, a dump would too."""
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture(scope="session", autouse=True)
def _seclusion():
    disks.seclude()


@pytest.fixture
def directory():
    top = tempfile.mkdtemp(
        prefix="unionfs-crash-", dir=os.environ.get("UNIONFS_CRASH_DIR", "/dev/shm")
    )
    yield top
    shutil.rmtree(top)


@pytest.fixture
def disk(directory):
    """Return a directory on ext4: on a tmpfs the union waits for no disk."""
    place = f"{directory}/disk"
    os.mkdir(place)
    disks.make("ext4", f"{directory}/image")
    with disks.mounted("ext4", f"{directory}/image", place):
        os.mkdir(f"{place}/top")
        yield f"{place}/top"
