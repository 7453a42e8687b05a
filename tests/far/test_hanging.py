"""A lower that does not answer keeps those waiting alone who ask for it."""

import errno
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.far.conftest import ANSWER, hangs, soon
from tests.mounted.mount import wait_until

TREE = {"f": "text", "g": "other", "d": {"x": "in d", "y": "more"}}

# What asks for the server, in each way: a name, attributes, a listing, content, a link's target.
ASKING = {
    "stat": ("stat", "f"),
    "read": ("cat", "f"),
    "list": ("ls", "d"),
    "append": ("sh", "-c", "echo more >>f"),
    "remove": ("rm", "f"),
    "rename": ("mv", "d", "e"),
    "create": ("touch", "d/new"),
    "room": ("stat", "-f", "d"),
}


def _ask(clients, mount, *words):
    return clients.start(*words, cwd=mount.path)


def _works_in_upper(path):
    """Do what a program does that has nothing to do with the lower."""
    (path / "own/b").write_text("b")
    assert (path / "own/b").read_text() == "b"
    os.rename(path / "own/b", path / "own/c")
    os.unlink(path / "own/c")


@pytest.mark.parametrize("words", ASKING.values(), ids=ASKING)
def test_others_go_on_and_who_waits_can_be_killed(far, clients, words):
    mount, server = far(TREE)
    (mount.path / "own").mkdir()
    server.tell("hang")
    asking = _ask(clients, mount, *words)
    if not hangs(asking):
        assert words[0] == "stat"  # room: upper's
        return
    with soon():
        _works_in_upper(mount.path)
        asking.kill()
        asking.communicate(timeout=ANSWER)
    server.tell("go")
    assert sorted(os.listdir(mount.path / "d")) == ["x", "y"]
    assert (mount.path / "f").read_text() == "text"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_who_waits_is_ended_by_signals_that_end_programs(far, clients, number):
    mount, server = far(TREE)
    server.tell("hang")
    code = "import signal, os; signal.signal(signal.SIGTERM, lambda *_: None); os.stat('f')"
    for words in (("stat", "f"), (sys.executable, "-c", code)):
        asking = _ask(clients, mount, *words)
        assert hangs(asking, 2)
        with soon():
            asking.send_signal(number)
            asking.communicate(timeout=ANSWER)
        assert asking.returncode != 0


def test_a_signal_that_ends_nothing_is_no_error(far, clients):
    mount, server = far(TREE)
    server.tell("hang")
    code = "import signal, os; signal.signal(signal.SIGCHLD, lambda *_: None); os.stat('f')"
    asking = _ask(clients, mount, sys.executable, "-c", code)
    assert hangs(asking, 2)
    for _ in range(5):
        asking.send_signal(signal.SIGCHLD)
        assert hangs(asking, 0.3)
    server.tell("go")
    assert asking.communicate(timeout=ANSWER) == ("", "")
    assert asking.returncode == 0


def test_a_server_that_comes_back_is_used_again(far, clients):
    mount, server = far(TREE)
    server.tell("hang")
    asking = [_ask(clients, mount, *words) for words in (("cat", "f"), ("ls", "d"))]
    assert all(map(hangs, asking))
    server.tell("go")
    assert [process.communicate(timeout=ANSWER)[0] for process in asking] == ["text", "x\ny\n"]


def test_ten_who_ask_for_one_thing_wait_for_one_call(far, clients):
    mount, server = far(TREE)
    server.tell("hang")
    before = int(server.tell("last lookup g"))
    asking = [_ask(clients, mount, "stat", "-c", "%s", "g") for _ in range(10)]
    assert all(hangs(process, 0.1) for process in asking)
    server.tell("go")
    assert {process.communicate(timeout=ANSWER)[0] for process in asking} == {"5\n"}
    assert int(server.tell("last lookup g")) - before <= 1


def test_many_who_are_killed_leave_room_for_others(far, clients):
    mount, server = far({"f": "text", "d": {f"n{n}": "" for n in range(60)}})
    os.stat(mount.path / "d")  # else the kernel lets one ask for it, and the others wait for that
    server.tell("hang")
    asking = [_ask(clients, mount, "stat", f"d/n{n}") for n in range(60)]
    assert hangs(asking[0])
    with soon():
        clients.end()
    server.tell("go")
    assert (mount.path / "f").read_text() == "text"


@pytest.mark.parametrize("words", [ASKING["stat"], ASKING["read"], ASKING["append"]])
def test_status_and_umount_do_not_wait(far, clients, words):
    mount, server = far(TREE)
    os.stat(mount.path / "f")  # so that opening it finds it
    server.tell("hang")
    asking = _ask(clients, mount, *words if words[0] != "stat" else ("stat", "g"))
    assert hangs(asking)
    with soon():
        told = subprocess.run(
            mount.command("status", mount.path), capture_output=True, text=True, check=True
        )
        assert "(far)" in told.stdout
        asking.kill()
        asking.communicate(timeout=ANSWER)
        subprocess.run(mount.command("umount", mount.path), check=True)
    server.tell("go")
    mount.process.wait(ANSWER)
    mount.process = None
    assert mount.take_log() == ""


def test_sigterm_ends_a_mount_whose_client_waits(far, clients):
    mount, server = far(TREE)
    server.tell("hang")
    asking = _ask(clients, mount, "stat", mount.path / "f")
    assert hangs(asking)
    mount.process.terminate()
    wait_until(lambda: mount.remains() == [], ANSWER)
    asking.kill()
    asking.communicate(timeout=ANSWER)
    server.tell("go")
    mount.process.wait(ANSWER)
    mount.process = None
    mount.take_log()


def test_a_server_that_is_gone_for_good_gives_its_error_and_upper_goes_on(far):
    mount, server = far(TREE)
    (mount.path / "own").mkdir()
    os.stat(mount.path / "f")
    server.process.kill()
    server.process.wait()
    for name in ("g", "g", "d"):
        with pytest.raises(OSError, match=os.strerror(errno.ENOTCONN)):
            os.stat(mount.path / name)
    _works_in_upper(mount.path)
    told = mount.take_log()
    assert told.count("Transport endpoint") == 1
    assert "lookup of '" in told


def test_a_copy_that_is_waited_for_is_made_whole(far, clients):
    mount, server = far({"f": "x" * 300_000})
    os.stat(mount.path / "f")
    server.tell("hang")
    asking = _ask(clients, mount, "sh", "-c", "echo more >>f")
    assert hangs(asking)
    assert os.listdir(mount.work / "work") == []
    server.tell("go")
    assert asking.communicate(timeout=ANSWER) == ("", "")
    assert (mount.upper / "f").read_text() == "x" * 300_000 + "more\n"


def test_a_copy_that_nobody_waits_for_any_more_is_not_made(far, clients):
    mount, server = far({"f": "x" * 300_000})
    os.stat(mount.path / "f")
    server.tell("hang")
    asking = _ask(clients, mount, "sh", "-c", "echo more >>f")
    assert hangs(asking)
    asking.kill()
    asking.communicate(timeout=ANSWER)
    server.tell("go")
    time.sleep(0.5)
    assert not (mount.upper / "f").exists()
    assert (mount.path / "f").read_text() == "x" * 300_000


@pytest.mark.parametrize("words", [("diff",), ("commit",), ("maintain", "--union")])
def test_commands_say_that_a_server_is_gone(far, words):
    mount, server = far(TREE)
    server.process.kill()
    server.process.wait()
    done = subprocess.run(
        mount.command(*words, mount.path), capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert str(server.point) in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_an_error_of_the_server_is_not_kept(far):
    mount, server = far(TREE)
    server.tell("fail lookup")
    for _ in range(2):
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            os.stat(mount.path / "g")
    server.tell("fail nothing")
    assert os.stat(mount.path / "g").st_size == len("other")
    assert mount.take_log().count(os.strerror(errno.EIO)) == 1
