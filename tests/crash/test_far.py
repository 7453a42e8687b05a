"""What a far layer is asked for is asked before anything changes, and the outcome is the same."""

import functools

import pytest

from unionfs.layers import markers

from . import corpus
from .far import FarClient, Stopped
from .sample import SEED, chosen
from .trees import differences, harvest
from .trial import Field, count, features, judge, settled

KINDS = (*corpus.KINDS, corpus.privileges)


@pytest.fixture(params=["overlay", "aufs"])
def field(request, directory):
    field = Field(directory, features(request.param))
    yield field
    assert field.unchanged()


def _on_disk(field):
    """Return what is in upper; times of copies that were made twice are of another moment."""
    return settled(harvest(field.dirs.upper, times=True))


def _near(field, case):
    """Do a case over near layers; return upper."""
    count(field, case, reading=False)
    return _on_disk(field)


def _without_times(tree):
    return {
        path: thing._replace(
            attributes=tuple(pair for pair in thing.attributes if pair[0] != markers.LOWERS)
        )
        for path, thing in tree.items()
    }


def _far(field, case, expected):
    """Do a case over layers that ask for everything; say what is wrong."""
    field.fresh()
    with FarClient(field.dirs, field.features) as client:
        case.prepare(client)
        client.counted(case)
    after = _without_times(_on_disk(field))
    with field.client() as client:
        shown = differences(expected.new, settled(client.harvest()))
    staged = [f"left in work: {name}" for name in field.staged()]
    return [*shown, *differences(_without_times(_near(field, case)), after), *staged]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_layers_that_ask_for_everything_make_no_difference(field, kind):
    wrong = {}
    for case in chosen(kind(), share=0.05):
        words = _far(field, case, field.expect(case))
        if words:
            wrong[case.name] = words
    assert (SEED, wrong) == (SEED, {})


def _stopped(field, case, expected, stop):
    """End a case at one question; return whether it came to that, and what is wrong."""
    field.fresh()
    with FarClient(field.dirs, field.features, stop=stop) as client:
        case.prepare(client)
        try:
            client.counted(case)
        except Stopped:
            pass
        else:
            return False, []
        asked = client.questions.seen[-1]
        seen = settled(client.harvest())
    words = judge(expected, seen)
    with field.client() as client:
        words += judge(expected, settled(client.harvest()))
    words += [f"left in work: {name}" for name in field.staged()]
    return True, [f"{asked}: {word}" for word in words]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_who_is_killed_while_waiting_has_changed_nothing(field, kind):
    expected, wrong = functools.cache(field.expect), {}
    for case in chosen(kind(), share=0.02):
        stop, goes_on = 1, True
        while goes_on:
            goes_on, words = _stopped(field, case, expected(case), stop)
            if words:
                wrong[f"{case.name}, question {stop}"] = words
            stop += 1
    assert (SEED, wrong) == (SEED, {})
