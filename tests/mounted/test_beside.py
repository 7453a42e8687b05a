"""Layers that somebody changes beside the mount: nobody is led astray, and nobody waits for it.

What the changes look like through the mount is not promised; that they do no harm is.
"""

import contextlib
import fcntl
import os
import signal
import time

import pytest

from tests.mounted.witness import NOBODY, as_user, failure
from tests.trees import harvest

OPTIONS = ["", "direct=off", "noopen=on", "passthrough=all"]


@pytest.fixture(params=OPTIONS)
def union_of(mounted, request):
    """Mount a union; *prepare* as `mounted`."""

    def build(upper, lower, prepare=None):
        options = tuple(filter(None, [request.param]))
        return mounted(upper, lower, options=options, prepare=prepare)

    return build


def _own(*paths):
    for path in paths:
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)


# A directory that became a symlink


SECRETS = {"secret": "s", "d": {}}


def _plant_home(base):
    for layer in ("upper", "lower1"):
        for path, directories, files in os.walk(base / layer / "home"):
            _own(path, *(os.path.join(path, name) for name in directories + files))
    victim = base / "victim"
    victim.mkdir()
    (victim / "secret").write_text("s")
    (victim / "secret").chmod(0o600)
    (victim / "d").mkdir()


def _swap(directory, target):
    """Put a symlink in the place of a directory, as its owner."""
    as_user(os.rename, directory, f"{directory}.away")
    as_user(os.symlink, target, directory)


# What the owner of the directory may do in it, and what comes of it.
ATTEMPTS = {
    "create": lambda d: (d / "evil").write_text("x"),
    "mkdir": lambda d: (d / "evil").mkdir(),
    "mkfifo": lambda d: os.mkfifo(d / "evil"),
    "symlink": lambda d: (d / "evil").symlink_to("x"),
    "link": lambda d: (d / "evil").hardlink_to(d.parent / "own"),
    "rename": lambda d: (d.parent / "own").rename(d / "evil"),
    "rename over": lambda d: (d.parent / "own").rename(d / "secret"),
    "read": lambda d: (d / "secret").read_text(),
    "write": lambda d: (d / "secret").write_text("x"),
    "truncate": lambda d: os.truncate(d / "secret", 0),
    "chmod": lambda d: (d / "secret").chmod(0o666),
    "utime": lambda d: os.utime(d / "secret", (1, 1)),
    "setxattr": lambda d: os.setxattr(d / "secret", "user.a", b"1"),
    "unlink": lambda d: (d / "secret").unlink(),
    "rmdir": lambda d: (d / "d").rmdir(),
    "list": lambda d: [path.name for path in d.iterdir()],
}


def _all_of(path):
    """Describe a directory and what is in it."""
    places = [path, *sorted(path.iterdir())]
    return [(place.name, place.lstat()[:9], os.listxattr(place)) for place in places]


@pytest.mark.parametrize("layer", ["upper", "lower1"])
def test_the_owner_of_a_directory_gets_nowhere_by_a_symlink_in_its_place(union_of, layer):
    tree = {"home": {"own": "o", "d": {"secret": "mine", "d": {}}}}
    union = union_of(*((tree, {}) if layer == "upper" else ({}, tree)), prepare=_plant_home)
    victim = union.base / "victim"
    victim.chmod(0o700)
    directory = union.path / "home/d"
    assert as_user(os.listdir, directory)  # the kernel knows all of them
    as_user(os.stat, directory / "secret")
    before = _all_of(victim)
    _swap(union.base / layer / "home/d", victim)
    for name, attempt in ATTEMPTS.items():
        with contextlib.suppress(OSError):
            assert as_user(attempt, directory) != "s", name
        assert _all_of(victim) == before, name
    assert sorted(os.listdir(victim)) == ["d", "secret"]
    assert (victim / "secret").read_text() == "s"


def test_who_meets_a_symlink_in_the_place_of_a_directory_follows_it_himself(union_of):
    tree = {"home": {"d": {}, "e": {}, "other": {}}, "etc": {}}
    union = union_of(tree, {}, prepare=_plant_home)
    for name in ("d", "e"):
        as_user((union.path / "home" / name / "f").write_text, "1")
    _swap(union.upper / "home/d", "other")
    _swap(union.upper / "home/e", "../etc")
    as_user((union.path / "home/d/f").write_text, "2")
    assert failure(as_user, (union.path / "home/e/new").write_text, "2") == "EACCES"
    home = harvest(union.upper)["home"]
    assert (home["other"], home["d.away"], home["e.away"]) == ({"f": "2"}, {"f": "1"}, {"f": "1"})
    assert harvest(union.upper)["etc"] == {}


def test_in_a_directory_that_is_gone_from_there_nothing_can_be_made(union_of):
    union = union_of({"home": {"d": {}}}, {}, prepare=_plant_home)
    directory = os.open(union.path / "home/d", os.O_RDONLY)
    try:
        _swap(union.upper / "home/d", union.base / "victim")
        assert failure(os.mkdir, "evil", dir_fd=directory) == "ESTALE"
    finally:
        os.close(directory)
    assert not (union.base / "victim/evil").exists()


# A file that became something else


def _serves(union):
    """See that the mount answers, however long the machine takes."""
    (union.path / "witness").write_text("w")
    (union.path / "witness").unlink()
    return True


def _become_fifo(path):
    path.unlink()
    os.mkfifo(path)


def _become_socket(path):
    path.unlink()
    os.mknod(path, 0o140644)


def _become_device(path):
    path.unlink()
    os.mknod(path, 0o20644, os.makedev(5, 0))  # the terminal of whoever opens it


KINDS = {"fifo": _become_fifo, "socket": _become_socket, "device": _become_device}
USES = {
    "read": lambda path: path.read_bytes(),
    "write": lambda path: os.close(os.open(path, os.O_WRONLY)),
    "append": lambda path: os.close(os.open(path, os.O_WRONLY | os.O_APPEND)),
    "empty": lambda path: os.truncate(path, 0),
    "change": lambda path: path.chmod(0o600),
}


@pytest.mark.parametrize("layer", ["upper", "lower1"])
def test_what_lies_in_the_place_of_a_file_keeps_nobody_waiting(union_of, layer):
    tree = {f"{kind} {use}": "x" * 200_000 for kind in KINDS for use in USES}
    union = union_of(*((tree, {}) if layer == "upper" else ({}, tree)))
    for name in tree:
        (union.path / name).stat()
        KINDS[name.split()[0]](union.base / layer / name)
    users = []
    try:
        for name in tree:
            users.append(_user(USES[name.split()[1]], union.path / name))
            assert _serves(union)
    finally:
        for user in users:
            os.kill(user, signal.SIGKILL)
            os.waitpid(user, 0)
    union.take_log()


def _user(use, path):
    """Use a file in a process of its own, which may wait as long as it likes."""
    child = os.fork()
    if not child:
        with contextlib.suppress(OSError):
            use(path)
        os._exit(0)
    return child


def test_who_opens_a_file_that_became_a_fifo_opens_the_fifo(mounted):
    union = mounted({"f": "x"}, {})
    (union.path / "f").stat()
    _become_fifo(union.upper / "f")
    fd = os.open(union.path / "f", os.O_RDWR)
    try:
        os.write(fd, b"through")
        assert os.read(fd, 9) == b"through"
    finally:
        os.close(fd)


def test_a_lower_file_that_became_a_fifo_is_not_copied_up_as_an_empty_one(union_of):
    union = union_of({}, {"f": "text"})
    (union.path / "f").stat()
    _become_fifo(union.lowers[0] / "f")
    fd = os.open(union.path / "f", os.O_RDWR | os.O_NONBLOCK)
    os.close(fd)
    assert "f" not in os.listdir(union.upper) or union.on_upper()["f"] != ""


# Leases


@contextlib.contextmanager
def leased(path):
    """Have another process hold a lease on a file, until it is to let go of it."""
    ready, ready_end = os.pipe()
    let_go, let_go_end = os.pipe()
    child = os.fork()
    if not child:
        try:
            signal.signal(signal.SIGIO, signal.SIG_IGN)
            fd = os.open(path, os.O_RDONLY)
            fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            os.write(ready_end, b"1")
            os.close(let_go_end)
            os.read(let_go, 1)
            fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        finally:
            os._exit(0)
    try:
        assert os.read(ready, 1) == b"1"
        yield lambda: os.write(let_go_end, b"1")
    finally:
        for fd in (ready, ready_end, let_go, let_go_end):
            os.close(fd)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _ended(user):
    return os.waitpid(user, os.WNOHANG)[0] != 0


# What breaks a lease that nobody else may have the file open at all.
BREAKING = {
    "read": lambda path: path.read_bytes(),
    "write": lambda path: path.write_text("new"),
    "append": lambda path: path.open("a").write("new"),
    "truncate": lambda path: os.truncate(path, 2),
}


@pytest.mark.parametrize("layer", ["upper", "lower1"])
def test_who_needs_a_leased_file_waits_for_it_alone(union_of, layer):
    tree = dict.fromkeys(BREAKING, "text")
    union = union_of(*((tree, {}) if layer == "upper" else ({}, tree)))
    with contextlib.ExitStack() as stack:
        holders = [stack.enter_context(leased(union.base / layer / use)) for use in BREAKING]
        users = [_user(BREAKING[use], union.path / use) for use in BREAKING]
        began = time.monotonic()
        while time.monotonic() < began + 0.3:
            assert _serves(union)
        assert not any(map(_ended, users))
        for let_go in holders:
            let_go()
        for user in users:
            os.waitpid(user, 0)
    after = {use: (union.path / use).read_text() for use in BREAKING}
    assert after == {"read": "text", "write": "new", "append": "textnew", "truncate": "te"}


@pytest.mark.parametrize("options", ["", "direct=off"])
def test_who_would_not_wait_for_a_lease_is_told(mounted, options):
    union = mounted({"f": "text"}, {}, options=tuple(filter(None, [options])))
    with leased(union.upper / "f"):
        assert failure(os.open, union.path / "f", os.O_RDWR | os.O_NONBLOCK) == "EAGAIN"
