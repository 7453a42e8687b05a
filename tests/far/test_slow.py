"""A lower whose every call takes a while: who asks for it waits, others do not notice."""

import concurrent.futures
import os
import statistics
import subprocess
import sys
import time

import pytest

from tests.mounted.mount import ROOT

SECONDS = 0.2  # that each call of the server takes
CHANGES = 300
TURNS = 5  # of which one suffices: the machine may be busy with something else in the others
SLOWEST = 0.05  # seconds that a change in upper alone may take

_CHANGING = """
import os, sys, time
for turn in range(int(sys.argv[1])):
    begun = time.perf_counter()
    with open('file', 'w') as file:
        file.write('content')
    os.unlink('file')
    print(time.perf_counter() - begun)
"""


def _changes(directory):
    """Return how many seconds each of many changes took, made by another process."""
    words = [sys.executable, "-c", _CHANGING, str(CHANGES)]
    done = subprocess.run(words, cwd=directory, capture_output=True, text=True, check=True)
    return sorted(map(float, done.stdout.split()))


def _files(directories, files):
    return {f"d{d}": {f"f{n}": "" for n in range(files)} for d in range(directories)}


def _is_unnoticed(clients, directory, own):
    """Tell whether changes take as long while somebody walks a directory as they do alone."""
    walking = clients.start("find", directory, "-printf", "%s\n")
    beside = _changes(own)
    walked_on = walking.poll() is None
    walking.kill()
    walking.wait()
    alone = _changes(own)
    # A noisy machine keeps one waiting, too: the slowest of a hundred tell.
    return (
        walked_on
        and beside[-4] < max(SLOWEST, 2 * alone[-4])
        and statistics.median(beside) < 2 * statistics.median(alone)
    )


def test_who_works_in_upper_does_not_notice_who_walks_a_slow_lower(far, clients):
    mount, _server = far(_files(TURNS, 40), SECONDS)
    own = mount.path / "own"
    own.mkdir()
    _changes(own)
    assert any(_is_unnoticed(clients, mount.path / f"d{n}", own) for n in range(TURNS))


def _walk(path):
    """Look at all that is below a directory; return how many it is."""
    done = subprocess.run(
        ["find", path, "-printf", "%s\n"], capture_output=True, text=True, check=True
    )
    return len(done.stdout.splitlines())


def test_a_second_walk_asks_the_server_nothing(far):
    mount, server = far(_files(10, 100), 0.0)
    assert _walk(mount.path) == 1011
    before = [int(server.tell(f"count {name}")) for name in ("lookup", "getattr", "readdir")]
    assert _walk(mount.path) == 1011
    after = [int(server.tell(f"count {name}")) for name in ("lookup", "getattr", "readdir")]
    assert after == before


def _times_as_fast(names):
    """Return how many times as fast eight clients walk the first eight directories as one does."""
    for name in names:
        os.stat(name)
    begun = time.perf_counter()
    assert _walk(names[8]) == 7
    one = time.perf_counter() - begun
    begun = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert list(pool.map(_walk, names[:8])) == [7] * 8
    eight = time.perf_counter() - begun
    return 8 * one / eight


def test_eight_clients_walk_at_least_six_times_as_fast_as_one(far):
    mount, _server = far(_files(9 * TURNS, 6), SECONDS / 2)
    turns = [[str(mount.path / f"d{9 * turn + n}") for n in range(9)] for turn in range(TURNS)]
    assert any(_times_as_fast(names) >= 6 for names in turns)


@pytest.mark.parametrize("upper", [True, False])
def test_content_is_the_servers(far, upper):
    text = "".join(map(str, range(200_000)))
    mount, _server = far({"large": text, "small": "s", "empty": ""}, 0.01, upper=upper)
    for name, content in (("large", text), ("small", "s"), ("empty", "")):
        assert (mount.path / name).read_text() == content
    subprocess.run(["cp", mount.path / "large", mount.base / "copy"], check=True, cwd=ROOT)
    assert (mount.base / "copy").read_text() == text
