"""The daemon dies before and after each modifying system call; the tree is the old or the new."""

import pytest

from . import corpus
from .sample import SEED, chosen
from .trial import Field, count, features, killed, kills, undisturbed

_MODES = ("auto", "strict", "off")
_FORMATS = ("overlay", "overlay", "aufs", "aufs")
_PLACES = ("directory", "disk")  # fixtures: a tmpfs, and ext4, where content is synced


@pytest.fixture(params=["overlay", "aufs"])
def field(request, directory):
    field = Field(directory, features(request.param))
    yield field
    assert field.unchanged()


@pytest.fixture
def varied(request):
    """Return what a kind of operation is tried on: the seed says which mode and which place."""
    number = SEED + corpus.KINDS.index(request.getfixturevalue("kind"))
    place = request.getfixturevalue(_PLACES[number % len(_PLACES)])
    whiteout = _FORMATS[number % len(_FORMATS)]
    field = Field(place, features(whiteout, _MODES[number % len(_MODES)]))
    yield field
    assert field.unchanged()


@pytest.mark.parametrize("kind", corpus.KINDS, ids=lambda kind: kind.__name__)
def test_undisturbed_operations_do_what_a_plain_directory_does(field, kind):
    wrong = {
        case.name: words
        for case in kind()
        if (words := undisturbed(field, case, field.expect(case)))
    }
    assert wrong == {}


@pytest.mark.parametrize("kind", corpus.KINDS, ids=lambda kind: kind.__name__)
def test_a_killed_daemon_leaves_the_old_tree_or_the_new(varied, kind):
    tried, wrong = 0, {}
    for case in chosen(kind(), share=0.05):
        expected = varied.expect(case)
        for moment, gate in kills(len(count(varied, case, reading=False).calls)):
            tried += 1
            words = killed(varied, case, expected, gate)
            if words:
                wrong[f"{case.name}, {moment}: {gate.calls[-1]}"] = words
    print(f"{varied}: {tried} kills")  # noqa: T201 - shown by pytest -rP
    assert (SEED, str(varied), wrong) == (SEED, str(varied), {})
