import os

import pytest

from .examples import SEED
from .relay import THEM, US, Turn, draw, plant_all, run, turns

EXAMPLES = 60
_OFF = ("metacopy=off", "redirect_dir=off")
_NOT_EVEN_FOLLOWED = ("metacopy=off", "redirect_dir=nofollow")
_MARKS = {f"trusted.overlay.{mark}" for mark in ("opaque", "redirect", "metacopy")}
_MAY_HOLD_NEITHER = {"trusted.overlay.redirect", "trusted.overlay.metacopy"}


@pytest.mark.parametrize("order", [(US, THEM, US, THEM), (THEM, US, THEM, US)])
def test_an_upper_passes_between_us_and_the_kernel_and_shows_the_same_tree(place, order):
    mount = place.union("relay")
    runners = draw(EXAMPLES, turns(*order), SEED)
    plant_all(place, mount.upper, runners)
    run(place, mount, runners, turns(*order))
    assert attributes_below(mount.upper) >= _MARKS, "the examples were too tame"


def test_an_upper_without_redirects_and_metacopy_mounts_where_neither_is_followed(place):
    order = [
        Turn(US, plays=True, options=_OFF),
        Turn(THEM, plays=False, options=_NOT_EVEN_FOLLOWED),
        Turn(US, plays=True, options=_OFF),
        Turn(THEM, plays=False, options=_NOT_EVEN_FOLLOWED),
    ]
    mount = place.union("relay")
    runners = draw(EXAMPLES, order, SEED)
    plant_all(place, mount.upper, runners)
    run(place, mount, runners, order)
    assert not attributes_below(mount.upper) & _MAY_HOLD_NEITHER


@pytest.mark.parametrize("writer", [US, THEM])
def test_a_former_upper_serves_as_a_lower_layer(place, writer):
    first, then = turns(writer, writer), turns(US, THEM, US)
    mount = place.union("first")
    runners = draw(EXAMPLES, [*first, *then], SEED, links=False)
    plant_all(place, mount.upper, runners)
    run(place, mount, runners, first)
    stacked = place.union("second", [mount.upper, *place.lowers])
    later = [runner._replace(programs=runner.programs[1:]) for runner in runners]
    run(place, stacked, later, then)


def attributes_below(top: str) -> set[str]:
    found: set[str] = set()
    for directory, _, files in os.walk(top):
        for path in [directory, *(os.path.join(directory, name) for name in files)]:
            found.update(os.listxattr(path, follow_symlinks=False))
    return found
