"""Where the oracle tests play; the examples are drawn from UNIONFS_ORACLE_SEED."""

import pytest

from . import stages
from .examples import SEED


def pytest_report_header():
    return f"oracle tests: UNIONFS_ORACLE_SEED={SEED}"


@pytest.fixture
def place():
    with stages.place() as made:
        yield made
