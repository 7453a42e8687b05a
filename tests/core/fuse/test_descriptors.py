"""Descriptors that are kept: what happens where closing one fails."""

import os

import pytest

from unionfs.fuse import descriptors as module
from unionfs.fuse.descriptors import Descriptors


class Layers:
    """Stands for the union, whose files are all one."""

    class Readers:
        def discard(self, fd):
            pass

    readers = Readers()

    def __init__(self):
        self.holders = []

    def open_to_read(self, _node):
        return os.open("/dev/null", os.O_RDONLY)


class File:
    def __init__(self, ino):
        self.ino = ino


@pytest.fixture
def descriptors():
    kept = Descriptors(Layers())
    yield kept
    for ino in range(10):
        kept.forget(ino)


def test_an_error_of_close_is_not_told_to_the_reader_of_another_file(
    descriptors, monkeypatch, caplog
):
    descriptors.keep(2)
    close = os.close

    def fail(fd):
        close(fd)
        raise OSError(5, os.strerror(5))

    with monkeypatch.context() as failing:
        failing.setattr(module.os, "close", fail)
        fds = [descriptors.to_read(File(ino)) for ino in (1, 2, 3)]
    assert "closing inode 1 failed: Input/output error" in caplog.text
    assert [descriptors.to_read(File(ino)) for ino in (2, 3)] == fds[1:]


def test_the_one_used_least_lately_is_closed(descriptors):
    descriptors.keep(2)
    first, second = descriptors.to_read(File(1)), descriptors.to_read(File(2))
    assert descriptors.to_read(File(1)) == first
    descriptors.to_read(File(3))
    os.fstat(first)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(second)
    descriptors.forget(3)
