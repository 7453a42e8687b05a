"""One system call of the daemon fails; the caller learns of it, and nothing is half done."""

import pytest

from . import corpus
from .sample import SEED, chosen
from .trial import ERRNOS, Field, count, failed, faults


@pytest.mark.parametrize("kind", corpus.KINDS, ids=lambda kind: kind.__name__)
def test_a_failed_call_changes_nothing_or_the_operation_is_done(directory, kind):
    field = Field(directory)
    wrong = {}
    for case in chosen(kind(), share=0.015):
        expected = field.expect(case)
        calls = len(count(field, case, reading=True).calls)
        for moment, gate in faults(calls, ERRNOS):
            words = failed(field, case, expected, gate)
            if words:
                wrong[f"{case.name}, {moment}: {gate.calls[gate.at - 1]}"] = words
    assert (SEED, wrong) == (SEED, {})
    assert field.unchanged()
