"""Directories that no path reaches: who walks there step by step does there what he does nearby."""

import contextlib
import errno
import os
import stat

import pytest

from tests.mounted import disks
from tests.mounted.mount import Mount
from tests.mounted.witness import failure
from unionfs.host import syscalls

STEPS = [b"n" * 250] * 20  # 5,000 bytes


def walk(top, steps, *, make=False):
    """Walk down from a directory, and return a descriptor of the last step."""
    at = os.open(top, os.O_RDONLY)
    for step in steps:
        if make:
            os.mkdir(step, dir_fd=at)
        below = os.open(step, os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    return at


def fill(directory):
    """Fill a directory with something of each kind."""
    os.fchdir(directory)
    for name, text in {"f": "text", "g": "other", "big": "x" * 300_000}.items():
        with open(name, "w", encoding="utf-8") as file:
            file.write(text)
    os.link("g", "h")
    os.symlink("f", "l")
    os.mkfifo("p")
    os.makedirs("d/e")
    os.mkdir("empty")
    os.setxattr("f", "user.a", b"1")


def look(top):
    """Describe all that is in the working directory, and below."""
    seen = {}
    for at, directories, files in os.walk(top):
        for name in sorted(directories + files):
            path = f"{at}/{name}"
            st = os.lstat(path)
            features = [st.st_mode, st.st_uid, st.st_size * (not stat.S_ISDIR(st.st_mode))]
            if stat.S_ISREG(st.st_mode):
                features += [st.st_nlink, os.listxattr(path)]
                with open(path, "rb") as file:
                    features.append(hash(file.read()))
            seen[path] = features
    return seen


def _write(name, text, mode="w"):
    with open(name, mode, encoding="utf-8") as file:
        file.write(text)


def _sync(name):
    with open(name, "rb") as file:
        os.fsync(file)


def _exchange(one, other):
    syscalls.renameat2(-100, one, -100, other, syscalls.RENAME_EXCHANGE)


# What programs do in such a directory, one after the other.
DEEDS = [
    lambda: os.stat("f").st_size,
    lambda: os.readlink("l"),
    lambda: sorted(os.listdir(".")),
    lambda: _write("f", "more", "a"),
    lambda: _write("new", "new"),
    lambda: _write("h", "again"),
    lambda: os.chmod("big", 0o600),
    lambda: os.chown("p", 1, 2),
    lambda: os.utime("d", (1, 2)),
    lambda: os.truncate("big", 200_000),
    lambda: os.getxattr("f", "user.a"),
    lambda: os.setxattr("f", "user.b", b"2"),
    lambda: os.removexattr("f", "user.a"),
    lambda: os.listxattr("f"),
    lambda: os.rename("f", "f2"),
    lambda: os.rename("d", "d2"),
    lambda: os.rename("d2/e", "e"),
    lambda: os.rename("new", "l"),
    lambda: os.link("big", "big2"),
    lambda: os.mkdir("d"),
    lambda: os.mkdir("d"),
    lambda: os.mkfifo("p"),
    lambda: os.symlink("x", "s"),
    lambda: os.rmdir("empty"),
    lambda: os.rmdir("d2"),
    lambda: os.unlink("p"),
    lambda: os.unlink("none"),
    lambda: _exchange(b"f2", b"e"),
    lambda: _sync("big2"),
    lambda: os.stat("x" * 256),
    lambda: os.mkdir("x" * 255),
]


def outcome(deed):
    try:
        result = deed()
    except OSError as exc:
        return errno.errorcode[exc.errno]
    return result


@pytest.fixture
def at_home():
    """Return to the working directory at the end."""
    home = os.open(".", os.O_RDONLY)
    yield
    os.fchdir(home)
    os.close(home)


@pytest.mark.parametrize("options", ["", "direct=off", "noopen=on", "passthrough=all"])
@pytest.mark.parametrize("layer", ["upper", "lower1"])
@pytest.mark.usefixtures("at_home")
def test_programs_do_far_away_what_they_do_nearby(mounted, layer, options):
    def plant(base):
        (base / "plain").mkdir()
        for place in (base / layer, base / "plain"):
            directory = walk(place, STEPS, make=True)
            fill(directory)
            os.close(directory)

    union = mounted({}, {}, options=tuple(filter(None, [options])), prepare=plant)
    far, plain = walk(union.path, STEPS), walk(union.base / "plain", STEPS)
    for number, deed in enumerate(DEEDS):
        outcomes = []
        for directory in (far, plain):
            os.fchdir(directory)
            outcomes.append(outcome(deed))
        assert outcomes[0] == outcomes[1], number
    _same(far, plain)
    for directory in (far, plain):
        os.close(directory)
    os.chdir("/")
    union.remount()
    far, plain = walk(union.path, STEPS), walk(union.base / "plain", STEPS)
    _same(far, plain)
    for directory in (far, plain):
        os.close(directory)
    os.chdir("/")


def _same(far, plain):
    os.fchdir(plain)
    expected = look(".")
    os.fchdir(far)
    assert look(".") == expected


# Redirects that upper has no room for


@contextlib.contextmanager
def _over_ext4(base):
    """Mount a union over a deep lower, with an upper that takes attributes of a block at most."""
    (base / "lower").mkdir()
    directory = walk(base / "lower", STEPS, make=True)
    fill(directory)
    os.close(directory)
    with disks.writable("ext4", base) as root:
        for name in ("upper", "work"):
            (root / name).mkdir()
        mount = Mount(base, lowers=[base / "lower"], upper=root / "upper", work=root / "work")
        try:
            yield mount.start()
            mount.stop()
        finally:
            os.chdir("/")
            mount.kill()


@pytest.mark.usefixtures("at_home")
def test_what_no_redirect_leads_to_is_copied_up(base):
    with _over_ext4(base) as union:
        far = walk(union.path, STEPS)
        os.fchdir(far)
        os.chmod("big", 0o600)
        os.rename("d", union.path / "d")
        os.rename("g", union.path / "g")
        os.link("f", union.path / "f")
        assert failure(os.stat, "d") == "ENOENT"
        shown = look(".")
        os.close(far)
        os.chdir("/")
        union.remount()
        far = walk(union.path, STEPS)
        os.fchdir(far)
        assert look(".") == shown
        os.close(far)
        os.chdir("/")
        assert os.listdir(union.path / "d") == ["e"]
        assert (union.path / "g").read_text() == "other"
        assert (union.path / "f").stat().st_nlink == 2
