"""Uppers and middle layers with anything in their marks: nothing breaks, nothing leads outside.

The core answers every call with a result or an errno, shows no byte that is not
in a layer, and what is not damaged as ever.  `check` finds whatever makes the
core say EIO, and after one repair there is nothing left to repair.
"""

import contextlib
import errno
import logging
import os
import shutil
import stat
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.audit.check.conftest import PREFIX, Patient
from tests.core.driver import Driver
from tests.trees import WHITEOUT, Link, Same, plant
from unionfs.audit.comparison import changes
from unionfs.view.union import Features

SECRET = "outside of all layers"
GOOD = "good"  # a name without marks, in a directory without marks
UPPER = {
    "d": {"e": {"f": "1", "w": WHITEOUT}, "x": ""},
    "f": "22",
    "g": {},
    "out": Link("../outside"),
    "l": Same("f"),
    "w": WHITEOUT,
    GOOD: {GOOD: GOOD},
}
MIDDLE = {"d": {"e": {"m": "3"}, "y": "4"}, "g": {"h": {}}, "f": "33", "w": "", "mid": {"z": "z"}}
BOTTOM = {
    "d": {"b": "5", "e": {"f": "66"}},
    "g": {"h": {"i": "7"}},
    "f": "44",
    "out": {"secret": "8"},
}
MARKED = ["d", "d/e", "d/e/f", "d/x", "f", "g", "out", "."]
MARKED_BELOW = ["d", "d/e", "d/e/m", "g", "g/h", "f", "mid"]
NAMES = ["opaque", "redirect", "metacopy", "impure", "whiteout", "nlink"]
NAMES += [
    "unionfs.ino",
    "unionfs.link",
    "unionfs.lowerdir",
    "unionfs.unsettled",
    "origin",
    "overlay.opaque",
]
PARTS = [b"", b".", b"..", b"d", b"e", b"f", b"g", b"h", b"mid", b"out", b"secret", b"x" * 256]
SANE = {errno.EIO, errno.ENOENT, errno.ENAMETOOLONG}

paths = st.lists(st.sampled_from(PARTS), min_size=1, max_size=5).map(b"/".join)
redirects = st.one_of(paths, paths.map(lambda path: b"/" + path))
values = st.one_of(
    st.binary(max_size=40),
    redirects,
    st.sampled_from([b"y", b"x", b"", b"U+1", b"U-9", b"L+1", b"U+" + b"9" * 400, b"1", b"7f"]),
    st.sampled_from(
        [b"1-2-3", b"9-9-9", b"../../../outside/secret", b"\0\4\0\0", b"-1", b"1_0", b"1:-1"]
    ),
)
marks = st.tuples(st.sampled_from(NAMES), values)
marks = st.one_of(marks, st.tuples(st.just("redirect"), redirects))
sick_uppers = st.lists(st.tuples(st.sampled_from(MARKED), marks), max_size=8)
sick_middles = st.lists(st.tuples(st.sampled_from(MARKED_BELOW), marks), max_size=4)
sick_works = st.lists(st.tuples(st.sampled_from(["1-2-3", "9-9-9", "x", "#0"]), marks), max_size=3)


@pytest.fixture(autouse=True)
def _process_state():
    cwd, umask = os.getcwd(), os.umask(0o22)
    logging.disable()
    yield
    logging.disable(logging.NOTSET)
    os.umask(umask)
    os.chdir(cwd)


@contextlib.contextmanager
def sick(upper, middle, work):
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        plant(path / "outside", {"secret": SECRET, "secrets": {"s": SECRET}})
        plant(path / "upper", UPPER)
        plant(path / "lower0", MIDDLE)
        plant(path / "lower1", BOTTOM)
        plant(path / "work", {"work": {}, "unionfs": {"links": {}}})
        index = path / "work" / "unionfs" / "links"
        for entry, (attribute, value) in work:
            (index / entry).write_text("w")
            set_mark(index / entry, attribute, value)
        for root, wrong in (("upper", upper), ("lower0", middle)):
            for place, (attribute, value) in wrong:
                set_mark(path / root / place, attribute, value)
        yield Patient(path)
        assert (path / "outside" / "secret").read_text() == SECRET


def set_mark(path, name, value):
    os.setxattr(path, PREFIX + name, value, follow_symlinks=False)


def look_at_all(driver, path="", depth=6):
    """Return the paths that say EIO; fail for any other errno but the sane ones."""
    damaged = []
    for name in driver.list(path):
        child = f"{path}/{name}" if path else name
        try:
            mode = driver.stat(child).st_mode
            assert driver.links(child) >= 0
            driver.attributes.names(driver.node(child))
            if stat.S_ISREG(mode):
                assert SECRET not in driver.read(child)
            elif stat.S_ISLNK(mode):
                driver.readlink(child)
            elif stat.S_ISDIR(mode) and depth:
                damaged += look_at_all(driver, child, depth - 1)
        except OSError as exc:
            if exc.errno not in SANE:
                raise
            if exc.errno == errno.EIO:
                damaged.append(child)
    return damaged


def change_all(driver):
    """Try every verb on every name; each works or says an errno."""
    for name in driver.list():
        for verb in verbs(driver, name):
            with contextlib.suppress(OSError):
                verb()


def verbs(driver, name):
    return (
        lambda: driver.change(name, mode=0o700),
        lambda: driver.append(name, "more"),
        lambda: driver.create(f"{name}/new"),
        lambda: driver.rename(f"{name}/e", f"{name}/renamed"),
        lambda: driver.link(name, f"{name}.linked"),
        lambda: driver.rename(name, f"{name}.moved"),
        lambda: driver.rename(f"{name}.moved", name),
        lambda: driver.rmdir(f"{name}/e"),
        lambda: driver.unlink(name),
    )


FUZZ = settings(
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@FUZZ
@given(sick_uppers, sick_middles, sick_works)
def test_the_core_answers_with_results_or_errnos(upper, middle, work):
    with sick(upper, middle, work) as patient:
        driver = Driver(patient.stack(), Features(fsync="off"), patient.path)
        try:
            look_at_all(driver)
            assert driver.read(f"{GOOD}/{GOOD}") == GOOD
            change_all(driver)
            look_at_all(driver)
        finally:
            driver.close()


@FUZZ
@given(sick_uppers, sick_middles, sick_works)
def test_check_finds_what_is_damaged_and_repairs_once(upper, middle, work):
    with sick(upper, middle, work) as patient:
        found = patient.check()
        driver = Driver(patient.stack(), Features(fsync="off"), patient.path)
        damaged = look_at_all(driver)
        driver.close()
        if not (middle or work):
            reported = {line[len("- upper/") :].split(":")[0] for line in found}
            one_name = {"f" if path == "l" else path for path in damaged}  # of two
            assert one_name <= reported
        left = [line for line in patient.check(mend=True) if line.startswith("-")]
        assert patient.check() == left
        assert patient.check(mend=True) == left
        stack = patient.stack()
        list(changes(stack))
        stack.close()


def test_a_mount_serves_what_is_not_damaged(bench):
    for directory, tree in (("upper", UPPER), ("lower", MIDDLE)):
        shutil.rmtree(bench.at(directory))
        plant(Path(bench.at(directory)), tree)
    plant(Path(bench.at("outside")), {"secret": SECRET})
    for path, name, value in (
        ("d/e", "redirect", b"../../outside"),
        ("g", "redirect", b"/d"),
        ("f", "metacopy", b""),
        ("f", "redirect", b"/nowhere/../f"),
        ("d/x", "nlink", b"U+" + b"9" * 400),
        ("d/x", "unionfs.ino", b"\xff"),
        ("d", "unionfs.link", b"../../../outside/secret"),
    ):
        set_mark(os.path.join(bench.at("upper"), path), name, value)
    assert bench.unionfs("mount --lower lower --upper upper --work work mnt").status == 0
    try:
        for path in ("mnt/d/e", "mnt/f", "mnt/l"):
            with pytest.raises(OSError, match=os.strerror(errno.EIO)):
                os.stat(bench.at(path))
        assert bench.ls("mnt") == ["d", "f", "g", GOOD, "l", "mid", "out"]
        assert bench.read(f"mnt/{GOOD}/{GOOD}") == GOOD
        assert bench.ls("mnt/d") == ["e", "x", "y"]
        assert os.stat(bench.at("mnt/d/x")).st_size == 0
        bench.write("mnt/d/x", "new")
        assert bench.read("mnt/d/x") == "new"
    finally:
        assert bench.unionfs("umount mnt").status == 0
