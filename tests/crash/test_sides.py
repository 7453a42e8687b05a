"""Files cross the sides while the daemon is killed, and while its system calls fail."""

import pytest

from unionfs.view.union import Features

from .sample import SEED, chosen
from .sides import SidedField, crossings, failed, killed
from .trial import ERRNOS, count, faults, features, kills, undisturbed


@pytest.fixture(params=["whole", "blocks"])
def field(directory, disk, request):
    """Files of scratch are copied up as a whole, or by blocks, as in RAM."""
    blocks = Features(copyup="blocks", volatile=True)
    field = SidedField(directory, features("overlay") if request.param == "whole" else blocks, disk)
    yield field
    assert field.unchanged()


def test_undisturbed_crossings_do_what_a_plain_directory_does(field):
    wrong = {}
    for case in crossings():
        expected = field.expect(case)
        words = [word for word in undisturbed(field, case, expected) if "remount" not in word]
        if words:
            wrong[case.name] = words
    assert wrong == {}


def test_a_killed_daemon_leaves_what_persists_as_it_was_or_as_it_became(field):
    tried, wrong = 0, {}
    for case in chosen(crossings(), share=0.3):
        expected = field.expect(case)
        for moment, gate in kills(len(count(field, case, reading=False).calls)):
            tried += 1
            words = killed(field, case, expected, gate)
            if words:
                wrong[f"{case.name}, {moment}: {gate.calls[-1]}"] = words
    print(f"{tried} kills")  # noqa: T201 - shown by pytest -rP
    assert (SEED, wrong) == (SEED, {})


def _faults(field):
    """Yield the faults, one in so many of those before the first name changes, and all after it."""
    for case in crossings():
        calls = count(field, case, reading=True).calls
        first = min(
            (at for at, call in enumerate(calls, 1) if call.name in {"rename", "renameat2"}),
            default=len(calls),
        )
        for at, (moment, gate) in enumerate(faults(len(calls), ERRNOS[:1]), 1):
            yield at > first, (case, moment, gate)


def test_a_failed_call_changes_nothing(field):
    tried, wrong, found = 0, {}, list(_faults(field))
    early = [fault for late, fault in found if not late]
    late = [fault for late, fault in found if late]
    for case, moment, gate in (*chosen(early, share=0.05), *chosen(late, share=0.2)):
        tried += 1
        words = failed(field, case, field.expect(case), gate)
        if words:
            wrong[f"{case.name}, {moment}: {gate.calls[gate.at - 1]}"] = words
    print(f"{tried} faults")  # noqa: T201 - shown by pytest -rP
    assert (SEED, wrong) == (SEED, {})
