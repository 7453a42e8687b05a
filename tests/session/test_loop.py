"""The wait for requests: fair under a flood, polled within bounds, idle when idle."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import trio

from tests.session.conftest import PATIENCE, until
from unionfs.fuse.session import loop
from unionfs.fuse.session.loop import FastLoop
from unionfs.fuse.session.polling import SPIN_SECONDS, Polling

FLOOD = """
import os, sys
name = sys.argv[1]
while True:
    os.close(os.open(name, os.O_RDONLY))
"""


def flood(served):
    return subprocess.Popen([sys.executable, "-c", FLOOD, served.point + "/f"])


@pytest.mark.parametrize("switches", [{}, {"handshake": False}], ids=str)
def test_under_a_flood_timers_threads_and_signals_make_progress(mirror, switches):
    served = mirror({"f": ""}, switches=switches)
    with flood(served) as one, flood(served) as two:
        try:
            until(lambda: served.counts("open")[0] > 100)
            before = served.ask("witness")
            for number in range(1, 6):
                served.process.send_signal(signal.SIGUSR1)
                until(lambda number=number: served.ask()["signals"] == number)
            until(lambda: served.ask()["ticks"] > 10)
            until(lambda: served.ask()["thread_rounds"] > 10)
            until(lambda: served.counts("open")[0] - before["counts"]["open"] > 1000)
            after = served.ask()
        finally:
            one.kill()
            two.kill()
    assert after["worst_tick"] < PATIENCE  # seconds; 2 ms are aimed at, the machine may be busy


def test_under_a_flood_it_can_be_stopped(mirror):
    served = mirror({"f": ""})
    with flood(served) as client:
        until(lambda: served.counts("open")[0] > 100)
        served.ask("stop")
        assert served.wait()[0] == 0
        client.wait()  # its file system is gone
    served.process.returncode = None
    served.process.wait()


class Clock(trio.abc.Instrument):
    """A clock that every look moves on by 10 us, and every pass through trio by 3 ms."""

    def __init__(self):
        self.now = 0.0
        self.passes = 0

    def perf_counter(self):
        self.now += 10e-6
        return self.now

    def before_io_wait(self, _timeout):
        self.now += 3e-3
        self.passes += 1


def slow_passes(seconds, clock):
    """Return how many passes a loop makes that always has a request."""
    reading, writing = os.pipe()
    os.write(writing, b"request")

    async def life():
        fast = FastLoop(SimpleNamespace(diverted=None))
        fast.watch(reading)
        while clock.now < seconds:
            await fast.wait_readable(-1)

    with contextlib.closing(open(reading, "rb")), contextlib.closing(open(writing, "wb")):
        trio.run(life, instruments=[clock])
    return clock.passes


def test_where_a_pass_through_trio_is_slow_most_time_is_left_for_requests(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(loop, "time", clock)
    assert 3 < slow_passes(0.5, clock) < 40


def test_idle_it_takes_no_time(mirror):
    served = mirror({"f": ""})
    with open(served.point + "/f", encoding="ascii"):
        pass

    def is_idle():
        before = served.ask()["cpu"]
        time.sleep(1)  # to be idle is what is tested
        return served.ask()["cpu"] - before < 0.02

    assert any(is_idle() for _ in range(3))  # an interrupt of the machine's may be counted, once


@pytest.mark.parametrize("loop", [True, False])
def test_a_handler_that_waits_keeps_nobody_waiting(mirror, loop):
    files = {"held": "held:x", "f": "text"}
    served = mirror(files, switches={"loop": loop, "passthrough": False})
    with subprocess.Popen(["cat", served.point + "/held"], stdout=subprocess.PIPE) as held:
        until(lambda: served.counts("read") == [1])
        with open(served.point + "/f", encoding="ascii") as file:
            assert file.read() == "text"
        assert held.poll() is None
        served.ask("go")
        assert held.communicate()[0] == b"held:x"


def test_many_handlers_may_wait_at_once(mirror):
    files = {f"held{number}": "held:x" for number in range(20)}
    served = mirror(files, switches={"passthrough": False})
    readers = [
        subprocess.Popen(["cat", f"{served.point}/{name}"], stdout=subprocess.PIPE)
        for name in files
    ]
    until(lambda: served.counts("read")[0] >= 20)
    served.ask("go")
    assert [reader.communicate()[0] for reader in readers] == [b"held:x"] * 20


def test_the_time_to_poll_is_whole_as_long_as_requests_come_in_time():
    polling = Polling()
    polling.missed()
    polling.hit()
    assert polling.seconds == SPIN_SECONDS


def misses_until_tired(polling):
    count = 0
    while polling.seconds:
        polling.missed()
        count += 1
    return count


def test_polling_ends_after_some_misses_and_costs_a_bounded_time():
    polling = Polling()
    assert misses_until_tired(polling) < 6
    polling.slept(1.0)
    assert polling.seconds == 0


def test_polling_comes_back_with_short_sleeps_each_time_harder():
    polling = Polling()
    asked = []
    for _ in range(8):
        misses_until_tired(polling)
        sleeps = 0
        while not polling.seconds:
            polling.slept(10e-6)
            sleeps += 1
        asked.append(sleeps)
    assert asked == [2, 4, 8, 16, 32, 64, 64, 64]
