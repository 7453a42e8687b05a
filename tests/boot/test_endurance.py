"""Again and again: shutdowns with everybody busy, and power cuts; none may hang or harm."""

import itertools
import random
from concurrent.futures import ThreadPoolExecutor

import pytest

from .guest import Disk, Guest
from .image import make_ext4
from .scripts import BARE, BUSY, CHECK, DISK, STATE, WRAPPER, WRITE
from .test_boot import is_clean

ROUNDS = 20


@pytest.fixture
def series(image, tmp_path):
    """Boot two machines at once, each with a disk of its own; return what became of them."""

    def run(words, script, rounds):
        def half(number):
            path = tmp_path / f"half{number}"
            path.mkdir()
            disk = make_ext4(str(path / "upper.ext4"), "changes", "512M")
            guest = Guest(image, path, disks=[Disk(disk, "upper")])
            for turn in range(rounds // 2):
                ended = guest.boot(f"{BARE} {words[turn % len(words)]}", script)
                yield ended, is_clean(disk)

        with ThreadPoolExecutor(2) as pool:
            return [*itertools.chain(*pool.map(lambda number: [*half(number)], (0, 1)))]

    return run


def test_twenty_shutdowns_in_a_row_with_all_processes_busy(series):
    words = ["unionfs=tmpfs", f"{WRAPPER} unionfs=LABEL=changes", f"{WRAPPER} unionfs=tmpfs"]
    words.append("unionfs=LABEL=changes")
    turns = series(words, BUSY, ROUNDS)
    assert [(ended.status, ended.down, clean) for ended, clean in turns] == [
        (0, "Power down", True)
    ] * ROUNDS
    assert all(int(ended.values()["busy"]) >= 4 for ended, _ in turns)


# Instead of systemd, as only every fourth boot needs all of that.
AT_ONCE = f"{WRAPPER} unionfs.init=/usr/lib/union-test/run"


def test_twenty_power_cuts_in_a_row_while_it_writes_and_all_that_was_synced_is_there(
    machine, upper
):
    guest = machine(upper=upper)
    chance = random.Random(0)
    synced, seen = 0, []
    for turn in range(ROUNDS):
        words = f"unionfs=LABEL=changes {BARE if turn % 4 == 0 else AT_ONCE}"
        guest.start(words, CHECK + WRITE)
        assert guest.wait_for("synced="), guest.report()
        guest.wait_for("never", chance.uniform(0, 15))
        guest.cut_power()
        values = guest.ended().values()
        seen.append((int(values["kept"]) >= synced, values.get("torn")))
        synced = int(values["synced"])
    assert seen == [(True, None)] * ROUNDS
    last = guest.boot("unionfs=LABEL=changes", STATE + CHECK)
    assert int(last.values().pop("kept")) >= synced
    assert {**last.values(), "kept": ""} == {**DISK, "kept": ""}
    assert last.down == "Power down"
    assert is_clean(upper)
