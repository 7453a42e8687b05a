"""Mounts for tests.

`tree` gives a test the same literal tree in a plain directory (which proves the
test), in upper and in a lower layer, under several sets of options: a test that
uses it states a law of file systems, not of ours.  All those trees of a run are
planted before one mount per variant.  `mounted` builds a union for one test.
"""

import contextlib
import os
import random
import re
import shutil
import signal
import stat
import tempfile
import threading
from pathlib import Path

import pytest

from tests.mounted import disks
from tests.mounted.mount import EXTRA, Mount
from tests.mounted.witness import portrait
from tests.trees import plant

# Where the tree lies, and options.  `plain` is no union at all.
VARIANTS = {
    "plain": ("", ()),
    "upper": ("upper", ()),
    "lower": ("lower1", ()),
    "passthrough=all": ("lower1", ("passthrough=all",)),
    "passthrough=off": ("lower1", ("passthrough=off",)),
    "noopen=on": ("lower1", ("noopen=on",)),
    "direct=off": ("lower1", ("direct=off",)),
    "loop=off": ("lower1", ("loop=off",)),
    "handshake=off": ("lower1", ("handshake=off",)),
    "metacopy=off": ("lower1", ("metacopy=off",)),
    "whiteout=aufs": ("lower1", ("whiteout=aufs",)),
    "far=all": ("lower1", ("far=all",)),
}

_GROUND = os.environ.get("UNIONFS_TEST_GROUND")
_LARGE = 4 << 20  # bytes; what is smaller may stay till the end
_STUCK = 300  # seconds after which a test's daemon is killed, so that its system calls return


def pytest_configure(config):
    config.addinivalue_line("markers", "tree(literal, prepare=None): the tree that `tree` shows")
    config.addinivalue_line("markers", "unions_only: a law that is ours, not of all file systems")
    config.addinivalue_line("markers", "without(*variants): where the law does not hold, and why")


def pytest_generate_tests(metafunc):
    if "tree" in metafunc.fixturenames:
        without = {"plain"} if metafunc.definition.get_closest_marker("unions_only") else set()
        for mark in metafunc.definition.iter_markers("without"):
            without.update(mark.args)
        names = [name for name in VARIANTS if name not in without]
        if without.intersection(EXTRA):  # no union of this run keeps that law
            names = ["plain"]
        metafunc.parametrize("variant", names, scope="session")


def pytest_runtest_setup(item):
    """Skip what no union of this run keeps, where it is not for a plain directory either."""
    without = {name for mark in item.iter_markers("without") for name in mark.args}
    if "tree" not in item.fixturenames and without.intersection(EXTRA):
        pytest.skip(f"not with {', '.join(without.intersection(EXTRA))}")


@pytest.fixture(scope="session")
def ground():
    """A directory that other users may enter, unlike pytest's own, on a tmpfs of its own.

    So the host's disk, which a clean end of a mount syncs, does not decide how long the
    tests take; UNIONFS_TEST_GROUND=DIR has them run in DIR all the same.  It is so large that
    no daemon warns of it: a test has 2 GiB there at most.
    """
    path = Path(tempfile.mkdtemp(prefix="unionfs-mounted-", dir=_GROUND))
    with contextlib.ExitStack() as stack:
        if _GROUND is None:
            stack.enter_context(disks.mounted(path, "-t", "tmpfs", "-o", "size=6g", "tmpfs"))
        path.chmod(0o755)
        yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def aside(ground):
    """Make a directory for what tests of one module share; in parallel a module comes up again."""

    def make(name):
        path = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=ground))
        path.chmod(0o755)
        return path

    return make


@pytest.fixture
def base(ground, request):
    """A directory for one test, below `ground`."""
    path = Path(tempfile.mkdtemp(prefix=f"{request.node.originalname[:40]}-", dir=ground))
    path.chmod(0o755)
    yield path
    _give_room_back(path)


def _give_room_back(path):
    """Remove large files, but none of a file system that is still mounted there."""
    device = path.stat().st_dev
    for _, names, files, fd in os.fwalk(path):  # by descriptors: paths may be very long
        names[:] = [name for name in names if os.lstat(name, dir_fd=fd).st_dev == device]
        for name in files:
            st = os.lstat(name, dir_fd=fd)
            if st.st_dev == device and stat.S_ISREG(st.st_mode) and st.st_blocks * 512 > _LARGE:
                with contextlib.suppress(PermissionError):  # it is immutable
                    os.unlink(name, dir_fd=fd)


@contextlib.contextmanager
def _watched(mounts):
    """Kill the daemons of a test that hangs in a system call."""

    def give_up():
        for mount in mounts():
            if mount.process is not None:
                os.kill(mount.process.pid, signal.SIGKILL)

    timer = threading.Timer(_STUCK, give_up)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@pytest.fixture
def mounted(base):
    """Mount the union of *upper* (None: read-only) over *lowers*, all literals.

    *prepare* is called with the directory of `upper`, `lower1`, ... before.
    """
    made = []

    def build(upper, *lowers, options=(), prepare=None):
        directory = base / str(len(made))
        directory.mkdir()
        made.append(Mount.planted(directory, upper, *lowers, options=options))
        if prepare is not None:
            prepare(directory)
        return made[-1].start()

    with _watched(lambda: made):
        yield build
    try:
        for mount in made:
            if mount.process is not None:
                mount.stop()
            assert mount.remains() == []
    finally:
        for mount in made:
            mount.kill()


@pytest.fixture
def disk(base):
    """Mount an ext4 of 64 MiB."""
    image = base / "image"
    with image.open("wb") as file:
        file.truncate(64 << 20)
    disks.run("mkfs.ext4", "-q", image)
    with disks.mounted(base / "ext4", "-o", "loop", image) as path:
        yield path


@pytest.fixture
def on_disk(base, disk):
    """Mount a union over *names*, files of *size* random bytes, with its upper on the disk."""
    made = []

    def build(*names, size, options, kind=Mount):
        (base / "lower1").mkdir()
        for name in names:
            (base / "lower1" / name).write_bytes(random.Random(name).randbytes(size))
        for name in ("upper", "work"):
            (disk / name).mkdir()
        layers = {"upper": disk / "upper", "work": disk / "work"}
        made.append(kind(base, lowers=[base / "lower1"], options=options, **layers))
        return made[-1].start()

    with _watched(lambda: made):
        yield build
    for mount in made:
        mount.kill()


class Shared:
    """The mount of one variant, for all tests that use `tree`."""

    def __init__(self, base, variant, items):
        self.layer, options = VARIANTS[variant]
        self.base = base
        self.mount = None
        self.used = set()  # names of the trees whose tests this process has run
        for item in items:
            self._plant(item)
        if self.layer:
            upper = base / "upper"
            upper.mkdir(exist_ok=True)
            (base / "work").mkdir()
            (base / "lower1").mkdir(exist_ok=True)
            self.mount = Mount(
                base, lowers=[base / "lower1"], upper=upper, work=base / "work", options=options
            )
            self.mount.start()

    def _plant(self, item):
        mark = item.get_closest_marker("tree")
        literal = mark.args[0] if mark else {}
        top = self.base / (self.layer or "mnt")
        top.mkdir(exist_ok=True)
        plant(top / place(item), literal)
        if mark and "prepare" in mark.kwargs:
            mark.kwargs["prepare"](top / place(item))

    @property
    def serves(self):
        return self.mount is None or self.mount.serves

    def end(self):
        """Unmount; what the tests left looks the same after a remount."""
        if self.mount is None:
            return
        before = self._portraits()
        self.mount.remount()
        assert self._portraits() == before
        self.mount.stop()

    def _portraits(self):
        """Return what there is, and what the trees of the tests that ran here look like."""
        used = {name: portrait(self.mount.path / name) for name in self.used}
        return sorted(os.listdir(self.mount.path)), used


def place(item):
    """Return the name of a test's own directory in the shared mounts."""
    return re.sub(r"[^\w.=-]", "_", f"{item.path.stem}.{item.name}")[:200]


def shared_below(directory):
    """Make the fixture `shared` of the tests in *directory*."""

    @pytest.fixture(scope="session")
    def shared(ground, request):
        """Return the mount of a variant; a new one where a test has broken the last."""
        made = {}

        def of(variant):
            if variant not in made or not made[variant].serves:
                base = Path(tempfile.mkdtemp(prefix=f"{variant}-", dir=ground))
                base.chmod(0o755)
                items = [
                    item
                    for item in request.session.items
                    if directory in item.path.parents and _variant_of(item) == variant
                ]
                made[variant] = Shared(base, variant, items)
            return made[variant]

        yield of
        try:
            for one in made.values():
                one.end()
        finally:
            for one in made.values():
                if one.mount is not None:
                    one.mount.kill()

    return shared


def _variant_of(item):
    return item.callspec.params.get("variant") if hasattr(item, "callspec") else None


shared = shared_below(Path(__file__).parent)


@pytest.fixture
def tree(shared, variant, request):
    """A directory that holds what the test's mark `tree` says; lower layers stay as they are."""
    one = shared(variant)
    name = place(request.node)
    one.used.add(name)
    path = one.base / "mnt" / name
    lower = one.base / "lower1" / name
    before = portrait(lower)
    with _watched(lambda: [one.mount] if one.mount else []):
        yield path
    assert portrait(lower) == before
    if one.mount is not None:
        one.mount.check()
