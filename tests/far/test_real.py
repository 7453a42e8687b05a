"""Lowers on real servers: sshfs over a loopback sshd in a network namespace of its own, bindfs."""

import contextlib
import os
import shutil
import signal
import subprocess
import time

import pytest

from tests.far.conftest import ANSWER, hangs, soon
from tests.mounted.mount import Mount, wait_until
from tests.trees import plant

TREE = {"f": "text", "d": {"x": "in d"}}
PORT = 2222


def needs(*programs):
    missing = [name for name in programs if shutil.which(name, path="/usr/sbin:/usr/bin") is None]
    return pytest.mark.skipif(bool(missing), reason=f"not there: {', '.join(missing)}")


def _run(*words):
    subprocess.run([*map(str, words)], check=True, capture_output=True)


def _signal_family(pid, number):
    """Send a signal to a process and to all that it has started: an sshd, and its sessions."""
    with contextlib.suppress(OSError):
        os.kill(pid, number)
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            children = file.read().split()
        for child in children:
            _signal_family(int(child), number)


class Served:
    """A directory on a server that can be stopped and started again."""

    def __init__(self, point):
        self.point = point
        self.processes = []

    def stop(self):
        for process in self.processes:
            _signal_family(process.pid, signal.SIGSTOP)

    def go_on(self):
        for process in self.processes:
            _signal_family(process.pid, signal.SIGCONT)

    def end(self):
        self.go_on()
        subprocess.run(["umount", "-l", self.point], check=False, stderr=subprocess.DEVNULL)
        for process in self.processes:
            process.kill()
            process.wait()


@contextlib.contextmanager
def _bindfs(base):
    served = Served(base / "far")
    served.processes.append(subprocess.Popen(["bindfs", "-f", base / "lower", served.point]))
    try:
        wait_until(lambda: os.path.ismount(served.point), ANSWER)
        yield served
    finally:
        served.end()


def _namespace():
    """Return the words that run a program in a new network namespace, which has a loopback."""
    holder = subprocess.Popen(["unshare", "-n", "sleep", "3600"])
    wait_until(
        lambda: os.readlink(f"/proc/{holder.pid}/ns/net") != os.readlink("/proc/self/ns/net"),
        ANSWER,
    )
    inside = ["nsenter", f"--net=/proc/{holder.pid}/ns/net"]
    _run(*inside, "ip", "link", "set", "lo", "up")
    return holder, inside


@contextlib.contextmanager
def _sshfs(base):
    """Serve by an sshd that knows one key, in a network namespace of its own."""
    keys = base / "keys"
    keys.mkdir(mode=0o700)
    for name in ("host", "user"):
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", keys / name)
    shutil.copy(keys / "user.pub", keys / "authorized")
    os.makedirs("/run/sshd", exist_ok=True)
    holder, inside = _namespace()
    served = Served(base / "far")
    try:
        server = subprocess.Popen([
            *inside, "/usr/sbin/sshd", "-D", "-f", "/dev/null", "-h", keys / "host",
            "-o", f"Port={PORT}", "-o", "ListenAddress=127.0.0.1", "-o", "StrictModes=no",
            "-o", f"AuthorizedKeysFile={keys / 'authorized'}", "-o", "PermitRootLogin=yes",
            "-o", "PidFile=none", "-o", "UsePAM=no", "-o", "Subsystem=sftp internal-sftp",
        ], stderr=subprocess.DEVNULL)  # fmt: skip
        served.processes.append(server)
        deadline = time.monotonic() + ANSWER
        while not os.path.ismount(served.point):
            assert time.monotonic() < deadline
            client = subprocess.run([
                *inside, "sshfs", f"root@127.0.0.1:{base / 'lower'}", served.point, "-p", str(PORT),
                "-o", f"IdentityFile={keys / 'user'}", "-o", "StrictHostKeyChecking=no",
                "-o", "UserKnownHostsFile=/dev/null", "-o", "reconnect,ServerAliveInterval=60",
                "-o", "dir_cache=no,attr_timeout=0,entry_timeout=0",
            ], check=False, capture_output=True)  # fmt: skip
            time.sleep(0.1 if client.returncode else 0)
        yield served
    finally:
        subprocess.run(["umount", "-l", served.point], check=False, stderr=subprocess.DEVNULL)
        served.end()
        holder.kill()
        holder.wait()


SERVERS = {"bindfs": _bindfs, "sshfs": _sshfs}


@pytest.fixture(
    params=[
        pytest.param("bindfs", marks=needs("bindfs")),
        pytest.param("sshfs", marks=needs("sshfs", "sshd", "ip")),
    ]
)
def served(request, base):
    """The tree on a real server, and the union over it."""
    plant(base / "lower", TREE)
    for name in ("far", "upper", "work"):
        (base / name).mkdir()
    with SERVERS[request.param](base) as server:
        mount = Mount(base, lowers=[server.point], upper=base / "upper", work=base / "work")
        try:
            mount.start()
            yield mount, server
            mount.stop()
        finally:
            server.go_on()
            mount.kill()


def test_a_real_server_is_far(served):
    mount, _server = served
    (lower,) = mount.status["layers"]["lowers"]
    assert lower["far"]


def test_what_a_real_server_holds_shows_and_is_changed_in_upper(served):
    mount, server = served
    assert (mount.path / "f").read_text() == "text"
    assert os.listdir(mount.path / "d") == ["x"]
    with (mount.path / "f").open("a") as file:
        file.write(" and more")
    os.rename(mount.path / "d", mount.path / "e")
    os.unlink(mount.path / "e/x")
    assert (mount.path / "f").read_text() == "text and more"
    assert (server.point / "f").read_text() == "text"
    assert sorted(os.listdir(mount.path)) == ["e", "f"]
    assert os.listdir(mount.path / "e") == []


def test_while_a_real_server_stands_still_others_go_on(served, clients):
    mount, server = served
    (mount.path / "own").mkdir()
    server.stop()
    asking = clients.start("cat", "d/x", cwd=mount.path)
    try:
        assert hangs(asking)
        with soon():
            (mount.path / "own/b").write_text("b")
            os.unlink(mount.path / "own/b")
    finally:
        server.go_on()
    assert asking.communicate(timeout=ANSWER)[0] == "in d"
