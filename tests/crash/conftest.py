"""Where the crash tests try things, and how much of it they do.

UNIONFS_CRASH_SHARE=1 makes one case in one; the default is what CI has time
for, chosen by UNIONFS_CRASH_SEED (printed in the header of the run).
UNIONFS_CRASH_DIR puts layers on another file system than the tmpfs /dev/shm.
"""

import os
import random
import shutil
import tempfile

import pytest

SEED = int(os.environ.get("UNIONFS_CRASH_SEED", random.SystemRandom().randrange(1 << 20)))


def pytest_report_header():
    return f"crash tests: UNIONFS_CRASH_SEED={SEED}"


@pytest.fixture
def directory():
    top = tempfile.mkdtemp(prefix="unionfs-crash-", dir=os.environ.get("UNIONFS_CRASH_DIR", "/dev/shm"))
    yield top
    shutil.rmtree(top)
