"""The last descriptor of a large deleted file is closed by a thread, any other at once."""

import os
import threading
from types import SimpleNamespace

import pytest

from unionfs.host import closing

LARGE = 64 << 20


@pytest.fixture
def closed(monkeypatch):
    """The descriptors that were closed, each with the thread that did it, and when that is done."""
    done, seen, close = threading.Event(), [], os.close

    def record(fd):
        close(fd)
        seen.append((fd, threading.current_thread()))
        done.set()

    monkeypatch.setattr(os, "close", record)
    return done, seen


def opened(path, size, *, deleted):
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    os.posix_fallocate(fd, 0, size)
    if deleted:
        path.unlink()
    return fd


def test_a_large_deleted_file_is_closed_by_a_thread(tmp_path, closed):
    done, seen = closed
    fd = opened(tmp_path / "f", LARGE, deleted=True)
    closing.close(fd)
    assert done.wait(60)
    assert seen[0][0] == fd
    assert seen[0][1] is not threading.main_thread()


@pytest.mark.parametrize(("size", "deleted"), [(LARGE, False), (LARGE - (1 << 20), True)])
def test_others_are_closed_at_once(tmp_path, closed, size, deleted):
    fd = opened(tmp_path / "f", size, deleted=deleted)
    closing.close(fd)
    assert closed[1] == [(fd, threading.main_thread())]


def test_where_little_room_is_left_it_is_closed_at_once(tmp_path, closed, monkeypatch):
    fd = opened(tmp_path / "f", LARGE, deleted=True)
    figures = SimpleNamespace(f_bavail=LARGE // 4096 - 1, f_frsize=4096)
    monkeypatch.setattr(os, "fstatvfs", lambda _fd: figures)
    closing.close(fd)
    assert closed[1] == [(fd, threading.main_thread())]


def test_where_no_thread_can_be_started_it_is_closed_all_the_same(tmp_path, closed, monkeypatch):
    def fail(_thread):
        raise RuntimeError("can't start new thread")

    fd = opened(tmp_path / "f", LARGE, deleted=True)
    monkeypatch.setattr(threading.Thread, "start", fail)
    closing.close(fd)
    assert closed[1] == [(fd, threading.main_thread())]


def test_an_error_of_the_thread_is_told(tmp_path, monkeypatch, caplog):
    done, close = threading.Event(), os.close
    others = set(threading.enumerate())

    def fail(fd):
        close(fd)
        done.set()
        raise OSError(5, os.strerror(5))

    fd = opened(tmp_path / "f", LARGE, deleted=True)
    with monkeypatch.context() as failing:
        failing.setattr(closing.os, "close", fail)
        closing.close(fd)
        assert done.wait(60)
        for thread in set(threading.enumerate()) - others:
            thread.join(60)
    assert "deleting a large file: Input/output error" in caplog.text
