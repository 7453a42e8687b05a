"""The commands as processes: see tests/commands."""

from tests.commands.conftest import bench, ground, plain

__all__ = ["bench", "ground", "plain"]
