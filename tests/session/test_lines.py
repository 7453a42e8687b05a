"""The threads of a far layer."""

import os
import threading

import pytest
import trio

from tests.layers import opened
from unionfs.fuse.session import lines
from unionfs.fuse.session.lines import Line, can_ask
from unionfs.host import clients
from unionfs.layers.far import Ask, FarLayer

pytestmark = pytest.mark.trio


@pytest.fixture
def layer(tmp_path):
    (tmp_path / "f").write_text("text")
    made = FarLayer(*opened(tmp_path), number=1, name="lower")
    made.ask_from_now_on(-1)
    yield made
    made.close()


class Calls:
    """Calls that wait until they are let go on."""

    def __init__(self, layer):
        self.layer = layer
        self.going = threading.Event()
        self.begun = []

    def ask(self, name, *, kept=True):
        def find(_near):
            self.begun.append(name)
            assert self.going.wait(30)
            return name

        return Ask(self.layer, (name,), find, kept=kept)


async def _until(claim):
    with trio.fail_after(30):
        while not claim():  # noqa: ASYNC110 - other threads make it come true
            await trio.sleep(0.001)


@pytest.fixture
async def line(layer):
    woken = []
    made = Line(layer, lambda: woken.append(1))
    made.woken = woken
    yield made
    made.close()


async def test_as_many_calls_are_under_way_as_there_are_threads_and_others_wait(layer, line):
    calls, answers = Calls(layer), []

    async def ask(number):
        answers.append((await line.answer(calls.ask(number))).value)

    async with trio.open_nursery() as nursery:
        for number in range(40):
            nursery.start_soon(ask, number)
        await _until(lambda: len(calls.begun) == lines._MOST)  # noqa: SLF001
        await trio.sleep(0.05)
        assert len(calls.begun) == lines._MOST  # noqa: SLF001
        calls.going.set()
    assert sorted(answers) == list(range(40))
    await _until(lambda: len(line.woken) == 80)  # a thread wakes the loop after it has told


async def test_those_who_ask_the_same_wait_for_one_call(layer, line):
    calls, answers = Calls(layer), []

    async def ask():
        answers.append((await line.answer(calls.ask("one"))).value)

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(ask)
        await _until(lambda: calls.begun)
        calls.going.set()
    assert (calls.begun, answers) == (["one"], ["one"] * 10)


async def test_what_nobody_waits_for_any_more_is_not_begun(layer, line):
    calls = Calls(layer)
    async with trio.open_nursery() as nursery:
        for number in range(lines._MOST):  # noqa: SLF001
            nursery.start_soon(line.answer, calls.ask(number))
        await _until(lambda: len(calls.begun) == lines._MOST)  # noqa: SLF001
        with trio.move_on_after(0.05):
            await line.answer(calls.ask("late"))
        calls.going.set()
    assert (await line.answer(calls.ask("last"))).value == "last"
    assert "late" not in calls.begun


async def test_an_answer_that_nobody_waited_for_is_kept(layer, line):
    calls = Calls(layer)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(line.answer, calls.ask("slow"))
        await _until(lambda: calls.begun)  # else it would not be, now that nobody waits
        nursery.cancel_scope.cancel()
    calls.going.set()

    def known():
        try:
            return layer.learned(("slow",), lambda _near: "asked")
        except Ask:
            return ""

    await _until(known)
    assert known() == "slow"


async def test_a_thread_stands_for_root_and_has_a_directory_of_its_own(layer, line, tmp_path):
    before = os.getcwd()

    def find(near):
        near.attributes(b"f")  # enters the layer
        with open("/proc/thread-self/status", encoding="ascii") as lines_:
            ids = next(line.split()[1:] for line in lines_ if line.startswith("Uid:"))
        return os.stat(".").st_ino, ids[3]

    answer = await line.answer(Ask(layer, ("who",), find, kept=False))
    assert answer.value == (tmp_path.stat().st_ino, "0")
    assert os.getcwd() == before


async def test_threads_can_ask_here():
    assert can_ask()


async def test_where_threads_cannot_have_a_directory_that_is_said(monkeypatch, caplog):
    def refuse():
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(lines.syscalls, "leave_common_directory", refuse)
    assert not can_ask()
    assert "keeps all waiting: Operation not permitted" in caplog.text


@pytest.mark.parametrize(
    ("thread", "ends"),
    [(0, False), (1 << 22, True), (os.getpid(), False)],
    ids=["not known", "gone", "there"],
)
async def test_who_is_gone_ends(thread, ends):
    assert clients.is_ending(thread) == ends


async def test_without_a_proc_of_ours_nobody_is_said_to_end(monkeypatch):
    monkeypatch.setattr(os, "readlink", lambda _path: "77")
    assert not clients.is_ending(1 << 22)
