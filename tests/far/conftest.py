"""Unions over a server that is slow or hangs."""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests.mounted import disks
from tests.mounted.mount import ROOT, Mount
from tests.trees import plant

ANSWER = 60.0  # seconds within which what does not wait is done, on a busy machine


class Slow:
    """A directory served by `bench.slow`."""

    def __init__(self, source, point, seconds):
        self.point = point
        point.mkdir()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bench.slow", source, point, str(seconds)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout.readline() == "serving\n"

    def tell(self, order):
        self.process.stdin.write(order + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().rstrip("\n")

    def end(self):
        with contextlib.suppress(BrokenPipeError, ValueError):
            self.tell("go")
        subprocess.run(["umount", "-l", self.point], check=False, stderr=subprocess.DEVNULL)
        self.process.kill()
        self.process.communicate()


class Clients:
    """Programs that a test starts, and that may hang."""

    def __init__(self):
        self.started = []

    def start(self, *words, **settings):
        """Start a program that signals end, also where nohup(1) or a shell's `&` ran us."""
        self.started.append(
            subprocess.Popen(
                ["env", "--default-signal=HUP,INT,QUIT", *map(str, words)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                **settings,
            )
        )
        return self.started[-1]

    def end(self):
        for process in self.started:
            process.kill()  # all of them first: one may wait for another in the kernel
        for process in self.started:
            process.communicate()


@pytest.fixture
def base():
    """A directory on a tmpfs: the host's disk may be busy, or so full that daemons warn of it.

    UNIONFS_TEST_GROUND=DIR has it in DIR all the same.
    """
    ground = os.environ.get("UNIONFS_TEST_GROUND")
    path = Path(tempfile.mkdtemp(prefix="unionfs-far-", dir=ground))
    with contextlib.ExitStack() as stack:
        if ground is None:
            stack.enter_context(disks.mounted(path, "-t", "tmpfs", "tmpfs"))
        yield path
    subprocess.run(["rm", "-rf", path], check=True)


@pytest.fixture
def clients():
    made = Clients()
    yield made
    made.end()


@pytest.fixture
def far(base):
    """Mount the union of an empty upper over *lower*, a literal, that a slow server serves."""
    made = []

    def build(lower, seconds=0.0, *, upper=True, options=(), place=base):
        plant(base / "lower", lower)
        server = Slow(base / "lower", base / "far", seconds)
        places = {}
        if upper:
            places = {"upper": place / "upper", "work": place / "work"}
            for path in places.values():
                path.mkdir()
        mount = Mount(base, lowers=[server.point], options=options, **places)
        made.append((mount, server))
        return mount.start(), server

    yield build
    for mount, server in made:
        server.end()
        try:
            if mount.process is not None:
                mount.stop()
        finally:
            mount.kill()


def hangs(process, seconds=0.5):
    """Tell whether a program is still waiting after a while."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return True
    return False


@contextlib.contextmanager
def soon(seconds=ANSWER):
    """See that what is done in here has not waited for the server."""
    begun = time.monotonic()
    yield
    assert time.monotonic() - begun < seconds
