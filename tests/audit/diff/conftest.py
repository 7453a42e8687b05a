"""The commands as processes: see tests/commands."""

from tests.commands.conftest import bench, plain

__all__ = ["bench", "plain"]
