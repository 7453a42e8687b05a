"""An upper is one union's: who comes next waits for one that ends, and not for one that serves."""

import fcntl
import os
import re
import signal
import subprocess
import time

import pytest

from tests.commands.conftest import SECONDS, stop, wait_for
from unionfs.host import mountcalls
from unionfs.mounting import claims, places
from unionfs.mounting.options import Refused

MOUNT = "mount --lower lower --upper upper --work work"


def status_of(pid):
    with open(f"/proc/{pid}/status") as file:
        return file.read()


def start_next(bench):
    """Mount the same upper, and return when that waits."""
    following = bench.start(f"{MOUNT} mnt", stderr=subprocess.PIPE)
    said = following.stderr.readline()
    assert re.fullmatch(
        f"unionfs: warning: upper '{bench.at('upper')}': waiting for the end of its last union"
        r" \(process [0-9]+\)\n",
        said,
    )
    assert following.poll() is None
    return following


def test_a_daemon_that_ends_is_waited_for(bench):
    """Stopped before umount(8), it ends no sooner than it goes on."""
    assert bench.unionfs(f"{MOUNT} mnt").status == 0
    bench.write("mnt/new", "new\n")
    daemon = bench.processes()[0][0]
    stop(daemon)
    mountcalls.umount(bench.at("mnt"))  # umount(8) asks the daemon before
    following = start_next(bench)
    os.kill(daemon, signal.SIGCONT)
    assert following.communicate(timeout=SECONDS) == (None, "")
    assert following.returncode == 0
    assert bench.read("mnt/new") == "new\n"
    assert bench.unionfs("umount mnt").status == 0


def test_a_daemon_that_syncs_is_not_waited_for(bench):
    """It changes nothing any more, and may take long."""
    assert bench.unionfs(f"{MOUNT} mnt").status == 0
    daemon = bench.processes()[0][0]
    slow = ["strace", "-qf", "-e", "trace=syncfs", "-e", f"inject=syncfs:delay_enter={SECONDS}s"]
    tracer = subprocess.Popen([*slow, "-o", bench.at("trace"), "-p", str(daemon)])
    wait_for(lambda: "TracerPid:\t0\n" not in status_of(daemon))
    subprocess.run(["umount", bench.at("mnt")], check=True)
    assert bench.unionfs(f"{MOUNT} mnt").status == 0
    assert daemon in [pid for pid, _ in bench.processes()]
    bench.write("mnt/new", "")
    tracer.terminate()
    tracer.wait(SECONDS)
    assert bench.unionfs("umount mnt").status == 0


def test_a_union_that_serves_is_not_waited_for(bench):
    """Neither when it is unmounted lazily, and in use."""
    assert bench.unionfs(f"{MOUNT} mnt").status == 0
    os.mkdir(bench.at("other"))
    with open(bench.at("mnt/file")):
        assert bench.unionfs("umount -l mnt").status == 0
        result = bench.unionfs(f"{MOUNT} other")
    assert result.status == 2
    assert re.match(r"unionfs: upper '.*' is in use by another union \(process ", result.err)
    assert "waiting" not in result.err


def test_a_run_is_not_waited_for(bench):
    words = "run -q --keep kept -- sh -c 'echo ready; exec cat'"
    run = bench.start(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert run.stdout.readline() == "ready\n"
    result = bench.unionfs("run -q --keep kept -- true")
    assert result.status == 2
    assert "is in use by another union" in result.err
    assert "waiting" not in result.err
    run.communicate(timeout=SECONDS)
    assert run.returncode == 0


def test_what_a_killed_run_leaves_is_waited_for(bench):
    """Its daemon first ends the other processes."""
    script = "trap '' TERM; sleep 100 & echo ready; wait"
    run = bench.start(f'run -q --keep kept -- sh -c "{script}"', stdout=subprocess.PIPE)
    assert run.stdout.readline() == "ready\n"
    run.kill()
    run.wait()
    run.stdout.close()
    result = bench.unionfs("run -q --keep kept -- echo done")
    assert (result.status, result.out) == (0, "done\n")


def test_the_wait_has_an_end(bench, monkeypatch):
    monkeypatch.setattr(claims, "_PATIENCE", 0.1)
    assert bench.unionfs(f"{MOUNT} mnt").status == 0
    daemon = bench.processes()[0][0]
    stop(daemon)
    mountcalls.umount(bench.at("mnt"))  # umount(8) asks the daemon before
    place = places.find("upper", bench.at("upper"))
    fd = os.open(bench.at("upper"), os.O_RDONLY)
    start = time.monotonic()
    with pytest.raises(Refused, match=rf"is in use by another union \(process {daemon}\)"):
        claims.claim(fd, place)
    assert time.monotonic() - start > 0.1
    os.kill(daemon, signal.SIGCONT)
    monkeypatch.undo()
    claims.claim(fd, place)
    os.close(fd)
    os.close(place.fd)


def test_who_locks_it_without_a_union_is_waited_for_for_a_moment(bench, monkeypatch):
    monkeypatch.setattr(claims, "_MOMENT", 0.1)
    place = places.find("upper", bench.at("upper"))
    holder = subprocess.Popen(["flock", bench.at("upper"), "cat"], stdin=subprocess.PIPE)
    fd = os.open(bench.at("upper"), os.O_RDONLY)
    wait_for(lambda: claims._owner(place) == holder.pid)  # noqa: SLF001
    with pytest.raises(Refused, match="is in use by another union"):
        claims.claim(fd, place)
    holder.communicate()
    claims.claim(fd, place)
    os.close(fd)
    os.close(place.fd)


@pytest.mark.parametrize("kind", ["tmpfs", "btrfs"])
def test_the_owner_is_of_this_very_directory(bench, kind):
    """Inode numbers are the same on two file systems, and a subvolume has its own device."""
    for number in range(2):
        mount = ["mount", "-t", kind, kind, bench.at(f"disk{number}")]
        os.mkdir(bench.at(f"disk{number}"))
        if kind == "btrfs":
            with open(bench.at(f"image{number}"), "wb") as file:
                file.truncate(120 << 20)
            subprocess.run(["mkfs.btrfs", "-q", bench.at(f"image{number}")], check=True)
            mount = ["mount", "-o", "loop", bench.at(f"image{number}"), bench.at(f"disk{number}")]
        subprocess.run(mount, check=True)
        upper = bench.at(f"disk{number}/upper")
        made = ["btrfs", "-q", "subvolume", "create"] if kind == "btrfs" else ["mkdir"]
        subprocess.run([*made, upper], check=True, stdout=subprocess.DEVNULL)
    ours, other = (places.find("upper", bench.at(f"disk{number}/upper")) for number in range(2))
    fds = [os.open(place.name, os.O_RDONLY) for place in (ours, other)]
    assert ours.chain[0][1] == other.chain[0][1]
    claims.claim(fds[1], other)
    assert claims._owner(other) == os.getpid()  # noqa: SLF001
    assert claims._owner(ours) is None  # noqa: SLF001
    for fd in (*fds, ours.fd, other.fd):
        os.close(fd)
    for number in range(2):
        subprocess.run(["umount", bench.at(f"disk{number}")], check=True)


def test_a_lock_that_ends_while_its_owner_is_looked_for_is_had(bench, monkeypatch):
    place = places.find("upper", bench.at("upper"))
    fds = [os.open(bench.at("upper"), os.O_RDONLY) for _ in range(2)]
    claims.claim(fds[0], place)

    def owner_of_another(_place):
        fcntl.flock(fds[0], fcntl.LOCK_UN)
        return os.getpid()

    monkeypatch.setattr(claims, "_owner", owner_of_another)
    monkeypatch.setattr(claims, "_patience_with", lambda _owner: 0)
    claims.claim(fds[1], place)
    for fd in (*fds, place.fd):
        os.close(fd)
