import pytest

from tests.probe import filesystems


@pytest.fixture
def base(tmp_path_factory):
    """A tmpfs for layers, which other users may enter."""
    directory = tmp_path_factory.mktemp("base")
    for above in (directory, directory.parent):
        above.chmod(0o755)
    with filesystems.tmpfs(directory / "layers") as mounted:
        yield mounted
