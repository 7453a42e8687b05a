"""What is remembered of a lower's file, and whether another has its content."""

import os

import pytest

from tests.layers import opened
from tests.trees import Link, plant
from unionfs.layers import firsts
from unionfs.layers.layer import Layer, WritableLayer


@pytest.fixture
def layers(tmp_path):
    """A lower and a work directory, with the index that each work has."""
    cwd = os.getcwd()
    plant(tmp_path / "lower", {"file": "text", "link": Link("target"), "dir": {}, "large": ""})
    os.truncate(tmp_path / "lower/large", firsts.MOST_READ + 1)
    plant(tmp_path / "work", {"unionfs": {}})
    lower_fd, work_fd = (opened(tmp_path / name)[0] for name in ("lower", "work"))
    yield Layer(lower_fd, name="lower"), WritableLayer(work_fd, name="work")
    os.chdir(cwd)
    for fd in (lower_fd, work_fd):
        os.close(fd)


def has_content(layers, name):
    lower, work = layers
    return firsts.find(work, b"etc/x").has_content_of(lower, name, lower.stat(name))


@pytest.mark.parametrize("name", ["file", "link"])
def test_a_file_made_anew_has_the_content_if_it_is_the_same(layers, tmp_path, name):
    lower, work = layers
    firsts.note(work, b"etc/x", lower, name.encode())
    first = firsts.find(work, b"etc/x")
    assert first.is_the_same_inode(lower.stat(name.encode()))
    assert has_content(layers, name.encode())
    plant(tmp_path / "lower", {"same": {"file": "text", "link": Link("target")}})
    plant(tmp_path / "lower", {"other": {"file": "TEXT", "link": Link("TARGET")}})
    assert has_content(layers, f"same/{name}".encode())
    assert not first.is_the_same_inode(lower.stat(f"same/{name}".encode()))
    assert not has_content(layers, f"other/{name}".encode())


def test_of_a_large_file_size_and_time_have_to_do(layers, tmp_path):
    lower, work = layers
    firsts.note(work, b"etc/x", lower, b"large")
    assert firsts.find(work, b"etc/x").digest == b""
    st = os.stat(tmp_path / "lower/large")
    plant(tmp_path / "lower", {"again": ""})
    os.truncate(tmp_path / "lower/again", st.st_size)
    assert not has_content(layers, b"again")
    os.utime(tmp_path / "lower/again", ns=(0, st.st_mtime_ns))
    assert has_content(layers, b"again")
    os.truncate(tmp_path / "lower/again", st.st_size + 1)
    os.utime(tmp_path / "lower/again", ns=(0, st.st_mtime_ns))
    assert not has_content(layers, b"again")


def test_the_last_note_counts_and_paths_are_kept_apart(layers):
    lower, work = layers
    firsts.note(work, b"etc/x", lower, b"link")
    firsts.note(work, b"etc/x", lower, b"file")
    firsts.note(work, b"etc/y", lower, b"link")
    assert firsts.find(work, b"etc/x").size == 4
    assert firsts.find(work, b"etc/y").size == 6
    assert firsts.find(work, b"etc/z") is None


def test_of_a_directory_nothing_is_remembered(layers):
    lower, work = layers
    firsts.note(work, b"etc/x", lower, b"dir")
    assert firsts.find(work, b"etc/x") is None


@pytest.mark.parametrize("target", ["", "1:", "1:x:0:0:0:", "2:1:1:1:1:ab", "1:1:1:1:1:AB"])
def test_what_is_damaged_is_not_known(layers, tmp_path, target):
    lower, work = layers
    firsts.note(work, b"etc/x", lower, b"file")
    path = tmp_path / "work" / os.fsdecode(firsts.key(b"etc/x"))
    path.unlink()
    path.symlink_to(target) if target else path.write_text("")
    assert firsts.find(work, b"etc/x") is None


def test_times_before_1970_are_kept(layers, tmp_path):
    lower, work = layers
    os.utime(tmp_path / "lower/file", ns=(-5, -7))
    firsts.note(work, b"etc/x", lower, b"file")
    assert firsts.find(work, b"etc/x").mtime_ns == -7
