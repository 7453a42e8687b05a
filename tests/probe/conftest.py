import tempfile
from pathlib import Path

import pytest

from tests.probe import filesystems


@pytest.fixture
def base():
    """A tmpfs for layers that other users may enter, unlike pytest's own directories."""
    with tempfile.TemporaryDirectory(prefix="unionfs-probe-test-") as directory:
        Path(directory).chmod(0o755)
        with filesystems.tmpfs(Path(directory) / "layers") as mounted:
            yield mounted
