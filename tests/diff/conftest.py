"""The commands as processes: see tests/command."""

from tests.command.conftest import bench, plain

__all__ = ["bench", "plain"]
