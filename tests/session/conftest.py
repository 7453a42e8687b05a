"""The fixture `mirror`: a directory mirrored by a process of its own, and an orderly end."""

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import time

import pytest

from tests.session.kernel import reply
from unionfs.fuse.session.device import Device

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# What a mirror says last, when it has let go of everything.
CLEAN = {"left": 0, "threads": 1, "mounts": 0}
PATIENCE = 60  # seconds for what another process does, on a busy machine
SERVER = [sys.executable, "-W", "error", "-m", "tests.session.mirror"]


class Mirror:
    """A served mirror of `source` at `point`."""

    def __init__(self, directory, files=(), command=(), **settings):
        self.source, self.point = f"{directory}/source", f"{directory}/point"
        os.makedirs(self.source)
        os.makedirs(self.point)
        for name, text in dict(files).items():
            with open(f"{self.source}/{name}", "w", encoding="ascii") as file:
                file.write(text)
        settings = {"source": self.source, "mountpoint": self.point, **settings}
        self.errors_path = f"{directory}/errors"
        with open(self.errors_path, "wb") as errors:
            self.process = subprocess.Popen(
                [*command, *SERVER, json.dumps(settings)],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self.greeting = self.process.stdout.readline()

    def ask(self, question="state"):
        self.process.stdin.write(question + "\n")
        self.process.stdin.flush()
        # pyfuse3 and libfuse read a device that blocks: where a client was killed just before, its
        # request is gone, and they wait for the next one.
        while not select.select([self.process.stdout], [], [], 5)[0]:
            with contextlib.suppress(OSError):
                os.statvfs(self.point)
        return json.loads(self.process.stdout.readline())

    def counts(self, *names):
        counts = self.ask()["counts"]
        return [counts.get(name, 0) for name in names]

    def errors(self):
        with open(self.errors_path, encoding="utf-8") as file:
            return file.read()

    def wait(self):
        """Wait for the process to end; return its exit status and what it said last."""
        self.process.stdin.close()
        said = self.process.stdout.readlines() or [self.greeting]
        status = self.process.wait(timeout=PATIENCE)
        assert said[-1].startswith("{"), self.errors()
        return status, json.loads(said[-1])

    def end(self):
        if self.process.returncode is None:
            with contextlib.suppress(BrokenPipeError):
                self.ask("stop")
            assert (*self.wait(), self.errors()) == (0, CLEAN, "")
        assert self.errors() == ""
        assert not mounts_at(self.point)


def until(claim):
    """Wait until *claim* holds: what another process does is not done at once."""
    end = time.monotonic() + PATIENCE
    while not claim():
        assert time.monotonic() < end, "did not come true"


def mounts_at(point):
    """Return (type, source, options) of the mounts at *point*."""
    found = []
    with open("/proc/self/mounts", errors="surrogateescape", encoding="utf-8") as lines:
        for line in lines:
            source, path, kind, options, *_ = line.split(" ")
            if path == point:
                found.append((kind, source, options))
    return found


@pytest.fixture
def mirror(tmp_path):
    """Return a builder of served mirrors; in the end each must have left nothing behind."""
    served = []

    def build(files=(), **settings):
        directory = tmp_path / str(len(served))
        directory.mkdir()
        one = Mirror(str(directory), files, **settings)
        served.append(one)
        return one

    try:
        yield build
        for one in served:
            one.end()
    finally:
        for one in served:
            one.process.kill()
            one.process.wait()
            one.process.stdin.close()
            one.process.stdout.close()
            while mounts_at(one.point):
                subprocess.run(["umount", "-l", one.point], check=True)


@pytest.fixture
def kernel():
    """Return a device past INIT, and the socket on which the kernel would sit."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    device = Device("/dev/null")
    os.dup2(theirs.fileno(), device.device)
    theirs.close()
    ours.send(reply(1))  # any request will do for the introduction, then any answer
    device.introduce()
    os.read(device.fd, 100)
    os.write(device.fd, reply(1))
    device.answer(None)
    assert ours.recv(100) == reply(1)
    yield device, ours
    device.close()
    os.close(device.fd)
    ours.close()
