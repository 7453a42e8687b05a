"""Which lowers are far, and what is said where one does not answer at the mount."""

import errno
import logging
import os
import subprocess

import pytest

from tests.far.conftest import Slow
from tests.mounted import disks
from tests.trees import plant
from unionfs.layers.far import FarLayer, Memo
from unionfs.mounting import distance
from unionfs.mounting.options import Options, Refused, parse


def _opened(path, number=1, **said):
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    layer = distance.opened(fd, number, str(path), Options(**said), Memo())
    layer.close()
    return isinstance(layer, FarLayer)


@pytest.fixture
def slow(base):
    server = Slow(plant(base / "lower", {"f": "text", "d": {}}), base / "far", 0.0)
    yield server
    server.end()


@pytest.mark.parametrize(
    ("far", "near", "expected"),
    [
        (None, None, [False, False]),
        ("all", None, [True, True]),
        ("1", None, [True, False]),
        ("2", None, [False, True]),
        ("all", "2", [True, False]),
        ("1:2", None, [True, True]),
    ],
)
def test_the_user_says_which_lowers_are_far(base, far, near, expected):
    lowers = ("a", "b")
    said = {"lowers": lowers, "far": far, "near": near}
    assert [_opened(base, number, **said) for number in (2, 1)] == expected


def test_what_another_daemon_serves_is_far_unless_the_user_says_otherwise(slow):
    assert _opened(slow.point, lowers=("a",))
    assert not _opened(slow.point, lowers=("a",), near="all")


def test_a_kernel_overlay_is_as_far_as_its_layers(slow, base):
    (base / "other").mkdir()
    for name, lower in (("over far", slow.point), ("over near", base / "lower")):
        point = base / name
        point.mkdir()
        options = f"lowerdir={base}/other:{lower}/d"
        with disks.mounted(point, "-t", "overlay", "-o", options, "overlay"):
            assert _opened(point, lowers=("a",)) == (lower == slow.point)


def test_a_server_that_does_not_answer_is_told_and_then_given_up(slow, monkeypatch, caplog):
    monkeypatch.setattr(distance, "SILENCE", 0.2)
    monkeypatch.setattr(distance, "PATIENCE", 0.6)
    slow.tell("hang")
    with caplog.at_level(logging.WARNING), pytest.raises(Refused, match="has not answered"):
        distance.await_answers([str(slow.point)])
    assert f"lower '{slow.point}' does not answer" in caplog.text


def test_a_server_that_answers_late_is_waited_for(slow, monkeypatch, caplog):
    monkeypatch.setattr(distance, "SILENCE", 0.2)
    slow.tell("hang")
    waker = subprocess.Popen(["sleep", "0.5"])

    def woken(pipes, *rest):
        if waker.poll() is None and rest[-1] > 1:
            waker.wait()
            slow.tell("go")
        return real(pipes, *rest)

    real = distance.select.select
    monkeypatch.setattr(distance.select, "select", woken)
    with caplog.at_level(logging.WARNING):
        distance.await_answers([str(slow.point), str(slow.point / "nothing"), "/proc"])
    assert "does not answer" in caplog.text


def test_near_lowers_are_not_asked(monkeypatch):
    def fork():
        raise OSError(errno.EPERM, "no process is needed")

    monkeypatch.setattr(os, "fork", fork)
    distance.await_answers(["/proc", "/"])


@pytest.mark.parametrize("word", ["far", "far=", "far=0", "far=1:", "near=x", "near=1,2:"])
def test_places_are_numbers(word):
    with pytest.raises(Refused, match=r"say far=all|say near=all|unknown option"):
        parse([word], Options())
