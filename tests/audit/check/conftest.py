"""Uppers with something wrong, checked in-process; the command as a process: see tests/commands."""

import os
from typing import NamedTuple

import pytest

from tests.commands.conftest import bench, ground, plain
from tests.trees import plant
from unionfs.audit.examination import Examination
from unionfs.commands.check import repair
from unionfs.layers.layer import Layer, WritableLayer
from unionfs.layers.stack import Stack

__all__ = ["bench", "ground", "plain"]

PREFIX = "trusted.overlay."


class Patient(NamedTuple):
    """An upper, its work directory and its lowers."""

    path: os.PathLike

    def stack(self):
        lowers = sorted(self.path.glob("lower*"))
        return Stack(
            WritableLayer(opened(self.path / "upper"), name="upper"),
            WritableLayer(opened(self.path / "work"), name="work"),
            tuple(
                Layer(opened(path), number=len(lowers) - index, name=path.name)
                for index, path in enumerate(lowers)
            ),
        )

    def check(self, *, mend=False, whiteout="overlay", lowers=True, work=True):
        """Return the lines of what is wrong; `+` marks what is repaired or can be."""
        stack = self.stack()
        examination = Examination(
            stack.upper, stack.work if work else None, stack.lowers if lowers else (), whiteout
        )
        problems = examination.run()
        if mend:
            repair(problems)
        stack.close()
        return [
            f"{'+' if problem.mended or (problem.mend and not mend) else '-'} "
            f"{problem.where}/{os.fsdecode(problem.path)}: {problem.words}"
            for problem in problems
        ]


def opened(path):
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY)


def mark(path, **attributes):
    """Set overlayfs attributes; `unionfs_ino` is unionfs.ino."""
    for name, value in attributes.items():
        os.setxattr(path, PREFIX + name.replace("_", "."), value, follow_symlinks=False)


@pytest.fixture
def patient(tmp_path):
    """Plant upper and lowers; work has what a mount makes in it."""
    cwd = os.getcwd()

    def build(upper, *lowers):
        plant(tmp_path / "upper", upper)
        plant(tmp_path / "work", {"work": {}, "unionfs": {"links": {}}})
        for index, lower in enumerate(lowers):
            plant(tmp_path / f"lower{index}", lower)
        return Patient(tmp_path)

    yield build
    os.chdir(cwd)
