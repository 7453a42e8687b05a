"""Power fails while files cross the sides of a union, each on a disk of its own: `sidedcuts`.

UNIONFS_CRASH_CUTS is how many times per file system, UNIONFS_CRASH_SEED which.
"""

import os

import pytest

from . import disks
from .powercut import Trial
from .sample import SEED, USUAL
from .sidedcuts import attempt

_CUTS = int(os.environ.get("UNIONFS_CRASH_CUTS") or 100 * USUAL)
_CUTS_TO_FIND_OUT = 30  # of which some break a promise that nothing was done to keep


@pytest.mark.parametrize("kind", disks.KINDS)
def test_what_persists_is_old_or_new_after_every_power_cut(kind):
    made, broken = attempt(Trial(kind, seed=SEED), _CUTS)
    assert (SEED, made, broken) == (SEED, _CUTS, [])


def test_fsync_strict_promises_no_less():
    made, broken = attempt(Trial("ext4", fsync="strict", seed=SEED), _CUTS // 2)
    assert (SEED, made, broken) == (SEED, _CUTS // 2, [])


def test_a_union_that_syncs_nothing_is_found_out():
    trial = Trial("ext4", fsync="off", seed=SEED, noise=False)
    assert attempt(trial, _CUTS_TO_FIND_OUT, judged="auto")[1]
