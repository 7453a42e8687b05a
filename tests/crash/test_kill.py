"""The daemon dies before and after each modifying system call; the tree is the old or the new."""

import pytest

from unionfs.union import Features

from . import corpus
from .sample import SEED, chosen
from .trial import Field, count, killed, kills, undisturbed

_MODES = ("auto", "strict", "off")


@pytest.fixture
def field(directory):
    field = Field(directory)
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
def test_a_killed_daemon_leaves_the_old_tree_or_the_new(field, kind):
    """In each mode: the seed says which kind of operation gets which."""
    mode = _MODES[(SEED + corpus.KINDS.index(kind)) % len(_MODES)]
    field.features, wrong = Features(fsync=mode), {}
    for case in chosen(kind(), share=0.05):
        expected = field.expect(case)
        for moment, gate in kills(len(count(field, case, reading=False).calls)):
            words = killed(field, case, expected, gate)
            if words:
                wrong[f"{case.name}, fsync={mode}, {moment}: {gate.calls[-1]}"] = words
    assert (SEED, wrong) == (SEED, {})
