"""The wait for requests: fair under a flood, patient within bounds, idle when idle."""

import signal
import subprocess
import sys
import time

import pytest

from unionfs.fuse.session.patience import SPIN_SECONDS, Patience

FLOOD = """
import os, sys
name = sys.argv[1]
while True:
    os.close(os.open(name, os.O_RDONLY))
"""


def flood(served):
    return subprocess.Popen([sys.executable, "-c", FLOOD, served.point + "/f"])


def until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end


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
            until(lambda: served.ask()["ticks"] > 50)
            until(lambda: served.ask()["thread_rounds"] > 50)
            until(lambda: served.counts("open")[0] - before["counts"]["open"] > 1000)
            after = served.ask()
        finally:
            one.kill()
            two.kill()
    assert after["worst_tick"] < 2  # seconds; 2 ms are aimed at, the machine may be busy


def test_under_a_flood_it_can_be_stopped(mirror):
    served = mirror({"f": ""})
    with flood(served) as client:
        until(lambda: served.counts("open")[0] > 100)
        served.ask("stop")
        assert served.wait()[0] == 0
        client.wait()  # its file system is gone
    served.process.returncode = None
    served.process.wait()


def test_idle_it_takes_no_time(mirror):
    served = mirror({"f": ""})
    with open(served.point + "/f", encoding="ascii"):
        pass
    before = served.ask()["cpu"]
    time.sleep(1)  # to be idle is what is tested
    assert served.ask()["cpu"] - before < 0.02


@pytest.mark.parametrize("loop", [True, False])
def test_a_handler_that_waits_keeps_nobody_waiting(mirror, loop):
    files = {"slow": "slow:0.80", "f": "text"}
    served = mirror(files, switches={"loop": loop, "passthrough": False})
    with subprocess.Popen(["cat", served.point + "/slow"], stdout=subprocess.PIPE) as slow:
        until(lambda: served.counts("read") == [1])
        before = time.monotonic()
        with open(served.point + "/f", encoding="ascii") as file:
            assert file.read() == "text"
        assert slow.poll() is None
        assert time.monotonic() - before < 0.5
        assert slow.communicate()[0] == b"slow:0.80"


def test_many_handlers_may_wait_at_once(mirror):
    files = {f"slow{number}": "slow:0.50" for number in range(20)}
    served = mirror(files, switches={"passthrough": False})
    before = time.monotonic()
    readers = [
        subprocess.Popen(["cat", f"{served.point}/{name}"], stdout=subprocess.PIPE)
        for name in files
    ]
    assert [reader.communicate()[0] for reader in readers] == [b"slow:0.50"] * 20
    assert time.monotonic() - before < 0.5 * 20 / 2
    assert served.counts("read")[0] >= 20


def test_patience_is_whole_as_long_as_requests_come_in_time():
    patience = Patience()
    patience.missed()
    patience.hit()
    assert patience.seconds == SPIN_SECONDS


def misses_until_tired(patience):
    count = 0
    while patience.seconds:
        patience.missed()
        count += 1
    return count


def test_patience_ends_after_some_misses_and_costs_a_bounded_time():
    patience = Patience()
    assert misses_until_tired(patience) < 6
    patience.slept(1.0)
    assert patience.seconds == 0


def test_patience_comes_back_with_short_sleeps_each_time_harder():
    patience = Patience()
    asked = []
    for _ in range(8):
        misses_until_tired(patience)
        sleeps = 0
        while not patience.seconds:
            patience.slept(10e-6)
            sleeps += 1
        asked.append(sleeps)
    assert asked == [2, 4, 8, 16, 32, 64, 64, 64]
