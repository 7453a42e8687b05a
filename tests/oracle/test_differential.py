import pytest

from .contests import CONTESTS, contest


@pytest.mark.parametrize("name", CONTESTS)
def test_the_union_answers_and_looks_as_a_plain_directory_does(place, name):
    contest(place, CONTESTS[name])
