"""System calls of the daemon fail; the caller learns of it, and nothing is half done."""

import functools
import math

import pytest

from . import corpus
from .faulty import failed
from .sample import SEED, chosen
from .trial import ERRNOS, Field, count, faults, features

_FORMATS = ("overlay", "aufs")


@pytest.fixture(params=_FORMATS)
def field(request, disk):
    field = Field(disk, features(request.param))
    yield field
    assert field.unchanged()


def _faults(field, kind, errnos, more):
    """Yield all faults that there may be in the cases of *kind*."""
    for case in kind():
        calls = len(count(field, case, reading=True).calls)
        for moment, gate in faults(calls, errnos, more=more):
            yield case, moment, gate


def _wrong(field, kind, share, errnos=ERRNOS, more=0.0):
    """Try a share of the faults; say what was wrong at which."""
    expected, wrong, tried = functools.cache(field.expect), {}, 0
    for case, moment, gate in chosen(_faults(field, kind, errnos, more), share=share):
        tried += 1
        words = failed(field, case, expected(case), gate)
        if words:
            wrong[f"{case.name}, {moment}: {gate.calls[gate.at - 1]}"] = words
    print(f"{field}: {tried} faults")  # noqa: T201 - shown by pytest -rP
    return SEED, wrong


@pytest.mark.parametrize("kind", corpus.KINDS, ids=lambda kind: kind.__name__)
def test_a_failed_call_changes_nothing_or_is_of_no_account(field, kind):
    assert _wrong(field, kind, 0.002) == (SEED, {})


def test_bits_that_fall_come_back_where_the_change_fails(field):
    """Not so where the daemon is killed in between: docs/durability.md."""
    assert _wrong(field, corpus.privileges, 0.05) == (SEED, {})


@pytest.mark.parametrize("more", [1, math.inf])
@pytest.mark.parametrize("kind", corpus.KINDS, ids=lambda kind: kind.__name__)
def test_where_calls_fail_one_after_another_mount_and_disk_agree(field, kind, more):
    assert _wrong(field, kind, 0.002, ERRNOS[:1], more) == (SEED, {})
