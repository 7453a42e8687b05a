"""One system call of the daemon fails; the caller learns of it, and nothing is half done."""

import functools

import pytest

from . import corpus
from .sample import SEED, chosen
from .trial import ERRNOS, Field, count, failed, faults


def _faults(field, kind):
    """Yield all faults that there may be in the cases of *kind*."""
    for case in kind():
        calls = len(count(field, case, reading=True).calls)
        for moment, gate in faults(calls, ERRNOS):
            yield case, moment, gate


@pytest.mark.parametrize("kind", corpus.KINDS, ids=lambda kind: kind.__name__)
def test_a_failed_call_changes_nothing_or_the_operation_is_done(disk, kind):
    field, wrong = Field(disk), {}
    expected = functools.cache(field.expect)
    for case, moment, gate in chosen(_faults(field, kind), share=0.003):
        words = failed(field, case, expected(case), gate)
        if words:
            wrong[f"{case.name}, {moment}: {gate.calls[gate.at - 1]}"] = words
    assert (SEED, wrong) == (SEED, {})
    assert field.unchanged()
