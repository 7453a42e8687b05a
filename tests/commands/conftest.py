"""The commands run as a user runs them: as processes, with their exit status and messages."""

import contextlib
import os
import select
import shlex
import signal
import subprocess
import sys
import time
from typing import NamedTuple

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SECONDS = 120  # for a command to end: at the lowest priority, on a busy machine
# What nohup(1) and a shell's `&` have ignored, and how a shell in a terminal leaves it.
_ORDINARY = {
    signal.SIGHUP: signal.SIG_DFL,
    signal.SIGQUIT: signal.SIG_DFL,
    signal.SIGINT: signal.default_int_handler,
}


class Result(NamedTuple):
    """What a command left behind."""

    status: int
    out: str
    err: str


class Bench:
    """A directory to work in, with layers `lower`, `upper`, `work` and a mount point `mnt`."""

    def __init__(self, path):
        self.path = str(path)
        self.environment = {**os.environ, "PYTHONPATH": ROOT}
        for name in ("lower", "upper", "work", "mnt"):
            os.mkdir(self.at(name))
        self.write("lower/file", "lower\n")

    def at(self, name):
        return os.path.join(self.path, name)

    def write(self, name, text):
        with open(self.at(name), "w") as file:
            file.write(text)

    def read(self, name):
        with open(self.at(name)) as file:
            return file.read()

    def ls(self, name):
        return sorted(os.listdir(self.at(name)))

    def words(self, line):
        return [sys.executable, "-m", "unionfs.cli", *shlex.split(line.format(bench=self.path))]

    def unionfs(self, line, **kwargs):
        return self.run(self.words(line), **kwargs)

    def run(self, words, **kwargs):
        done = subprocess.run(
            words, cwd=self.path, env=self.environment, capture_output=True, text=True,
            errors="surrogateescape", timeout=SECONDS, check=False, **kwargs,
        )  # fmt: skip
        return Result(done.returncode, done.stdout, done.stderr)

    def start(self, line, **kwargs):
        return subprocess.Popen(
            self.words(line), cwd=self.path, env=self.environment, text=True, **kwargs
        )

    def mounts(self):
        with open("/proc/self/mounts") as lines:
            return [line.split() for line in lines if self.path in line]

    def processes(self):
        """The processes that were started in here, by their command lines."""
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/environ", "rb") as environ:
                if f"UNIONFS_TEST={self.path}\0".encode() in environ.read():
                    with open(f"/proc/{pid}/cmdline") as line:
                        found.append((int(pid), line.read().replace("\0", " ")))
        return found


def wait_for(claim, seconds=SECONDS):
    """Wait until *claim* holds: what other processes do is not there at once."""
    deadline = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < deadline, "did not come true"
        time.sleep(0.01)


def kill(pid):
    """Kill a process, and wait for its end: until then it holds what it has open."""
    process = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(process, signal.SIGKILL)
        assert select.select([process], [], [], SECONDS)[0]
    finally:
        os.close(process)


def stop(pid):
    """Stop a process, and wait until it stands."""
    os.kill(pid, signal.SIGSTOP)
    wait_for(lambda: _state(pid) == "T")


def _state(pid):
    """Return the state of a process: proc_pid_stat(5)."""
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0]


@pytest.fixture(autouse=True, scope="session")
def _ordinary_signals():
    """Have commands find signals as a user's shell leaves them, also where nohup(1) ran us."""
    before = {number: signal.signal(number, handler) for number, handler in _ORDINARY.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def plain(tmp_path):
    """A bench where nothing has to be mounted."""
    return Bench(tmp_path)


@pytest.fixture
def ground(tmp_path):
    """A directory on a tmpfs: the clean end of a mount syncs, and others keep the disk busy."""
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", tmp_path], check=True)
    path = tmp_path / "bench"
    path.mkdir()
    yield path
    subprocess.run(["umount", "-l", tmp_path], check=True)


@pytest.fixture
def bench(request):
    """A bench to mount on; afterwards nothing is left: no mount, no process."""
    if os.geteuid() != 0 or not os.path.exists("/dev/fuse"):
        pytest.skip("needs root and /dev/fuse")
    bench = Bench(request.getfixturevalue("ground"))
    bench.environment["UNIONFS_TEST"] = bench.path
    yield bench
    left = bench.mounts()
    for mount in reversed(left):
        subprocess.run(["umount", "-l", mount[1]], check=False)
    assert not left
    wait_for(lambda: not bench.processes())
