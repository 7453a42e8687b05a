"""Programs run in the trees of tests/mounted, and in a union of the machine's own root."""

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.mounted.conftest import (  # noqa: F401 (fixtures and hooks, by their names)
    base,
    ground,
    mounted,
    pytest_configure,
    pytest_generate_tests,
    shared_below,
    tree,
)
from tests.mounted.mount import EXTRA, ROOT

shared = shared_below(Path(__file__).parent)


class Done(NamedTuple):
    """What a script printed, and its exit status."""

    status: int
    out: str
    err: str


@pytest.fixture
def inside():
    """Run a shell script in a union root over this machine's /; everything is thrown away."""

    def run(script):
        options = ["-o", ",".join(EXTRA)] if EXTRA else []
        done = subprocess.run(
            [sys.executable, "-m", "unionfs.cli", "run", "--quiet", *options, "--",
             "/bin/sh", "-euc", f"export PATH=/usr/sbin:/usr/bin:/sbin:/bin\ncd /\n{script}"],
            cwd=ROOT, capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        return Done(done.returncode, done.stdout, done.stderr)

    return run
