"""Replies that are a part of a file: whole, or not at all."""

import os

import pytest

from unionfs.fuse.session.pipe import Pipe

PAGE = os.sysconf("SC_PAGE_SIZE")
HEAD = b"sixteen bytes..."


@pytest.fixture
def pipe():
    made = Pipe()
    yield made
    made.close()


@pytest.fixture
def content(tmp_path):
    """A file of 2 MiB, its descriptor and its bytes."""
    data = os.urandom(2 << 20)
    path = tmp_path / "file"
    path.write_bytes(data)
    fd = os.open(path, os.O_RDONLY)
    yield fd, data
    os.close(fd)


@pytest.fixture
def device(tmp_path):
    """Stands for the device: it takes what it is sent, and is read again."""
    fd = os.open(tmp_path / "device", os.O_RDWR | os.O_CREAT, 0o600)
    yield fd
    os.close(fd)


def sent(device):
    return os.pread(device, 4 << 20, 0)


@pytest.mark.parametrize("offset", [0, 1, PAGE - 1, PAGE, 123_457])
@pytest.mark.parametrize("count", [1, PAGE, PAGE + 1, 512 << 10])
def test_a_part_of_a_file_is_sent_behind_the_head(pipe, content, device, offset, count):
    fd, data = content
    assert pipe.send(device, HEAD, [(fd, offset, count)])
    assert sent(device) == HEAD + data[offset : offset + count]
    assert os.lseek(fd, 0, os.SEEK_CUR) == 0


@pytest.mark.parametrize(("offset", "count"), [(0, 1 << 20), (1, (1 << 20) - PAGE)])
def test_what_does_not_fit_into_the_pipe_is_not_sent(pipe, content, device, offset, count):
    assert not pipe.send(device, HEAD, [(content[0], offset, count)])
    assert sent(device) == b""


def test_parts_of_several_files_are_sent_one_behind_the_other(pipe, content, device, tmp_path):
    fd, data = content
    (tmp_path / "other").write_bytes(b"o" * 3 * PAGE)
    other = os.open(tmp_path / "other", os.O_RDONLY)
    pieces = [(fd, 7, 9 * PAGE), (other, PAGE - 1, 5), (fd, 3 * PAGE, 1)]
    assert pipe.send(device, HEAD, pieces)
    assert sent(device) == HEAD + data[7 : 7 + 9 * PAGE] + b"ooooo" + data[3 * PAGE : 3 * PAGE + 1]
    assert not pipe.send(device, HEAD, [(fd, 0, PAGE), (other, 0, 4 * PAGE)])
    os.close(other)


def test_the_most_that_fits_is_sent(pipe, content, device):
    fd, data = content
    count = (1 << 20) - PAGE
    assert pipe.send(device, HEAD, [(fd, 0, count)])
    assert sent(device) == HEAD + data[:count]


def test_a_file_that_became_shorter_is_not_sent_and_leaves_nothing_behind(pipe, content, device):
    fd, data = content
    assert not pipe.send(device, HEAD, [(fd, len(data) - PAGE, 2 * PAGE)])
    assert sent(device) == b""
    assert pipe.send(device, HEAD, [(fd, 0, PAGE)])
    assert sent(device) == HEAD + data[:PAGE]


def test_what_the_kernel_does_not_take_leaves_nothing_behind(pipe, content, device, tmp_path):
    fd, data = content
    unwritable = os.open(tmp_path, os.O_RDONLY)  # a directory: EBADF
    try:
        assert not pipe.send(unwritable, HEAD, [(fd, 0, PAGE)])
    finally:
        os.close(unwritable)
    assert pipe.send(device, HEAD, [(fd, PAGE, PAGE)])
    assert sent(device) == HEAD + data[PAGE : 2 * PAGE]


def test_without_room_for_descriptors_nothing_is_sent(content, device, monkeypatch):
    def full(*_arguments):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "pipe2", full)
    assert not Pipe().send(device, HEAD, [(content[0], 0, PAGE)])
