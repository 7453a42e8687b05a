import pytest

from .examples import SEED, for_all
from .sides import RULES, SidedDuel, SidedMount, random_rules
from .strategies import entries, programs, renames

EXAMPLES = 60


@pytest.mark.parametrize("turn", range(len(RULES) + 3))
def test_two_sides_answer_as_a_plain_directory_and_keep_what_the_rules_say(place, turn):
    rules = RULES[turn] if turn < len(RULES) else random_rules(SEED + turn)
    union = SidedMount(place, rules)
    place.leave_too(union)
    union.mount("unionfs")
    duel = SidedDuel(place, union)

    @for_all(EXAMPLES, entries(links=False), programs(), renames(), seed=SEED + turn)
    def fight(planned, first, second):
        duel.fight(planned, first, second)

    fight()
    union.umount("unionfs")
    union.mount("unionfs")
    duel.check_reboot()
    union.umount("unionfs")
