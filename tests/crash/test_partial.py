"""Copies by blocks: calls fail and the caller is told, the daemon is killed, and what a file holds
is there after a remount.

A daemon that is killed takes a RAM upper along; but a directory, or a disk, is there still.
"""

from collections.abc import Iterator

import pytest

from unionfs.view.union import Features

from . import corpus
from .corpus import Case, _both, _call
from .faulty import failed
from .sample import SEED, chosen
from .trial import ERRNOS, Field, count, faults, killed, kills, undisturbed


def after_a_block() -> Iterator[Case]:
    """Yield operations on a file of which upper has some blocks."""
    for name, prepare in (
        ("opened", _call("append", "big", b"")),
        ("begun", _call("overwrite", "big", b"new")),
        ("extended", _call("append", "big", b"more")),
        ("cut", _both(("overwrite", "big", b"new"), ("truncate", "big", 140_000))),
        ("cut and grown", _both(("truncate", "big", 140_000), ("truncate", "big", 200_000))),
    ):
        for call in (
            ("append", "big", b"and more"), ("overwrite", "big", b"newer"),
            ("overwrite", "big", b"n" * 70_000), ("overwrite", "big", b"n" * 160_000),
            ("truncate", "big", 70_000), ("truncate", "big", 10), ("truncate", "big", 500_000),
            ("empty", "big"), ("chmod", "big", 0o611), ("utime", "big", 10**18),
            ("rename", "big", "d/x"), ("rename", "f", "big"), ("link", "big", "new"),
            ("unlink", "big"), ("chown", "big", 3, 4), ("fill", "big"),
        ):  # fmt: skip
            yield Case(f"{name}, then {call[0]} {str(call[2:])[:12]}", _call(*call), prepare)


def filled() -> Iterator[Case]:
    """Yield the filling of a file that was not quite like that before, and what comes next."""
    begun = ("overwrite", "big", b"new")
    for name, *calls in (
        ("of two names", begun, ("link", "big", "new")),
        ("with set-uid bits", begun, ("chmod", "big", 0o6755)),
        ("with an old time", begun, ("utime", "big", 10**18)),
        ("that moved", begun, ("rename", "big", "d/x"), ("rename", "d/x", "big")),
    ):
        yield Case(f"fill one {name}", _call("fill", "big"), _both(*calls))
    for call in (("append", "big", b"more"), ("overwrite", "big", b"2"), ("truncate", "big", 9)):
        yield Case(f"{call[0]} one", _call(*call), _both(begun, ("fill", "big")))


KINDS = (
    corpus.copy_ups,
    corpus.after_metadata,
    corpus.links,
    corpus.file_renames,
    after_a_block,
    filled,
)


@pytest.fixture
def field(directory):
    field = Field(directory, Features(copyup="blocks"))
    yield field
    assert field.unchanged()


@pytest.fixture(params=["directory", "disk"])
def lasting(request):
    place = request.getfixturevalue(request.param)
    field = Field(place, Features(copyup="blocks"))
    yield field
    assert field.unchanged()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_undisturbed_operations_do_what_a_plain_directory_does(field, kind):
    wrong = {
        case.name: words
        for case in kind()
        if (words := undisturbed(field, case, field.expect(case)))
    }
    assert wrong == {}


def _faults(field, kind):
    for case in kind():
        calls = len(count(field, case, reading=True).calls)
        for moment, gate in faults(calls, ERRNOS, more=0.0):
            yield case, moment, gate


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_failed_call_changes_nothing_or_is_of_no_account(field, kind):
    wrong = {}
    for case, moment, gate in chosen(_faults(field, kind), share=0.003):
        words = failed(field, case, field.expect(case), gate)
        if words:
            wrong[f"{case.name}, {moment}: {gate.calls[gate.at - 1]}"] = words
    assert (SEED, wrong) == (SEED, {})


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_killed_daemon_leaves_the_old_file_or_the_new(lasting, kind):
    wrong = {}
    for case in chosen(kind(), share=0.1):
        expected = lasting.expect(case)
        for moment, gate in kills(len(count(lasting, case, reading=False).calls)):
            words = killed(lasting, case, expected, gate)
            if words:
                wrong[f"{case.name}, {moment}: {gate.calls[-1]}"] = words
    assert (SEED, wrong) == (SEED, {})
