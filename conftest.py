"""What holds for all tests.

In CI a skipped test is a failure: there, everything that a test needs is installed.

Each process that runs tests has a mount namespace of its own.  Whoever unshares
mounts has copies of all that are there, and copies hold daemons up: so the tests of
one process must not see the mounts of another.
"""

import os
from collections.abc import Generator

import hypothesis
import pytest

from unionfs.host import mountcalls, syscalls

_CI = os.environ.get("CI") == "true"

# An example may take long on a busy machine; CI tries the same ones each time.
hypothesis.settings.register_profile(
    "unionfs",
    deadline=None,
    derandomize=_CI,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("unionfs")


def pytest_configure() -> None:
    """Leave the mounts of other processes."""
    if os.geteuid() == 0:
        mountcalls.unshare_mounts()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skip into a failure; an expected failure stays one."""
    report = yield
    if _CI and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which is a failure in CI: {report.longrepr}"
    return report


@pytest.fixture(autouse=True)
def _no_capabilities_kept() -> None:
    """Have what a test starts lose its capabilities by setuid(2), whatever ran before it.

    A union in the tests' own process keeps them across setfsuid(2): prctl(2), PR_SET_SECUREBITS.
    """
    if os.geteuid() == 0:
        syscalls.drop_capabilities_with_setfsuid()
