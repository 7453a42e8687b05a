import pytest

from .examples import SEED, for_all
from .sides import RULES, SidedDuel, SidedMount, random_rules
from .strategies import entries, large_files, programs, renames, with_program

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

    _fight_and_reboot(fight, union, duel)


@pytest.mark.parametrize("turn", range(len(RULES)))
def test_files_that_scratch_has_in_part_answer_as_others(place, turn):
    union = SidedMount(place, RULES[turn])
    place.leave_too(union)
    union.mount("unionfs")
    duel = SidedDuel(place, union)

    @for_all(EXAMPLES, large_files().flatmap(with_program), entries(links=False), seed=SEED + turn)
    def fight(large, others):
        planted, program = large
        duel.fight([*planted, *others], program)

    _fight_and_reboot(fight, union, duel)


def _fight_and_reboot(fight, union, duel):
    fight()
    union.umount("unionfs")
    union.mount("unionfs")
    duel.check_reboot()
    union.umount("unionfs")
