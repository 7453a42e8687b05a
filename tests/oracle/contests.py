"""Which unions compete with a plain directory, and how long."""

from typing import NamedTuple

from .duel import Duel
from .examples import SEED, for_all
from .stages import KERNEL, Place
from .strategies import entries, programs
from .trees import AUFS, FILES, OVERLAY, Spelling


class Contest(NamedTuple):
    """The options of a union and how it is tried."""

    examples: int  # in CI
    options: tuple[str, ...] = ()
    kernel: bool = False  # overlayfs plays too; see `known`
    remounts: bool = False  # in the middle of each example
    spelling: Spelling = OVERLAY


CONTESTS = {
    "as it is mounted": Contest(200),
    "beside overlayfs": Contest(150, kernel=True),
    "remounted": Contest(10, remounts=True),
    "without attributes": Contest(80, ("metacopy=off", "redirect_dir=off")),
    "aufs": Contest(80, ("whiteout=aufs",), spelling=AUFS),
    "whiteouts by attribute": Contest(80, spelling=FILES),
    "passthrough": Contest(60, ("passthrough=all",)),
    "nothing opened": Contest(60, ("noopen=on",)),
}


def contest(place: Place, wanted: Contest, examples: int = 0, *, seed: int = SEED) -> Duel:
    """Carry a contest out, and look at all its examples again after a remount."""
    union = place.union("union")
    union.mount("unionfs", *wanted.options)
    kernel = place.union("kernel") if wanted.kernel else None
    if kernel:
        kernel.mount("overlay", *KERNEL, "index=on")
    duel = Duel(place, union, kernel, wanted.spelling)

    def remount() -> None:
        union.umount("unionfs")
        union.mount("unionfs", *wanted.options)

    count = examples or wanted.examples
    shrink = not wanted.remounts  # it would take minutes

    program = programs(files=not wanted.kernel)

    @for_all(count, entries(), program, program, shrink=shrink, seed=seed)
    def fight(planned, first, second):
        parts = (first, second) if wanted.remounts else (first + second[: len(first)],)
        duel.fight(planned, *parts, between=remount)

    fight()
    remount()
    duel.check_finished()
    union.umount("unionfs")
    return duel
