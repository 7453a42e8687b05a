import pytest

from .examples import SEED, for_all
from .sides import SidedDuel, SidedMount, random_rules
from .strategies import entries, programs

EXAMPLES = 40


@pytest.mark.parametrize("turn", range(5))
def test_two_sides_answer_as_a_plain_directory_and_keep_what_the_rules_say(place, turn):
    union = SidedMount(place, random_rules(SEED + turn))
    place.leave_too(union)
    union.mount("unionfs")
    duel = SidedDuel(place, union)

    @for_all(EXAMPLES, entries(links=False), programs(), seed=SEED + turn)
    def fight(planned, program):
        duel.fight(planned, program)

    fight()
    union.umount("unionfs")
    union.mount("unionfs")
    duel.check_reboot()
    union.umount("unionfs")
