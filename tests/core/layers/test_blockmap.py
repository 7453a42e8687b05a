"""The map of a partial copy, against a file that is one list of places."""

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unionfs.layers.blockmap import SHIFT, BlockMap, Run, least_shift

BLOCK = 1 << SHIFT
NEAR = st.builds(
    lambda block, more: max(0, block * BLOCK + more),
    st.one_of(st.integers(0, 6), st.integers(0, 38)),
    st.sampled_from([-BLOCK // 2, -2, -1, 0, 1, 2, BLOCK // 3]),
)
RANGES = st.tuples(NEAR, NEAR).map(sorted).filter(lambda pair: pair[0] < pair[1])
CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("write"), RANGES),
        st.tuples(st.just("cut"), NEAR),
    ),
    max_size=8,
)
END = 40 * BLOCK  # no change reaches so far


class Model:
    """For each byte of a file: is it the lower's?  By bytes of which nothing is special."""

    def __init__(self, size):
        self.lower = bytearray(b"\1" * size + b"\0" * (END - size))
        self.limit = size

    def write(self, start, end):
        """Fill the blocks that are written to, up to where the lower shows."""
        first = start // BLOCK * BLOCK
        filled = self.lower[:start].rfind(1) + 1 if 1 in self.lower[start:end] else 0
        if 1 in self.lower[start:end]:
            last = -(-(self.lower[:end].rfind(1) + 1) // BLOCK) * BLOCK
            assert filled <= start
            self.lower[first:last] = bytes(last - first)

    def cut(self, size):
        self.lower[size:] = bytes(END - size)
        self.limit = min(size, self.limit)

    def runs(self, start, end):
        found = []
        while start < end:
            stop = self.lower.find(1 - self.lower[start], start, end)
            stop = end if stop < 0 else stop
            found.append(Run(start, stop, lower=bool(self.lower[start])))
            start = stop
        return found


def changed(size, changes):
    """Return the map and the model after *changes*, with what each needed of the lower."""
    found, model = BlockMap.unmarked(size), Model(size)
    for what, arguments in changes:
        if what == "cut":
            found = found.cut(arguments)
            model.cut(arguments)
            continue
        start, end = arguments
        found = _with_last(found, model, start)
        before = model.lower[:]
        model.write(start, end)
        head, tail = found.missing(start, end)
        gone = [at for at in range(0, END, BLOCK // 8) if before[at] and not model.lower[at]]
        needed = [at for at in gone if not start <= at < end]
        asked = [at for at in range(0, END, BLOCK // 8) if _within(at, head) or _within(at, tail)]
        assert asked == needed
        assert before[head.start : head.end] == b"\1" * (head.end - head.start)
        assert before[tail.start : tail.end] == b"\1" * (tail.end - tail.start)
        found = found.marked(start, end)
    return found, model


def _with_last(found, model, start):
    """Return the map when the copy has the block in which the lower ends, if *start* is behind."""
    end, wanted = model.limit, None
    if start >= end and end % BLOCK and model.lower[end - 1]:
        wanted = Run(end // BLOCK * BLOCK, end, lower=True)
    assert found.edge(start) == wanted
    if wanted is None:
        return found
    model.lower[wanted.start : end] = bytes(end - wanted.start)
    return found.marked(wanted.start, wanted.end)


def _within(at, run):
    return run.start <= at < run.end


@settings(deadline=None)  # the machine may be busy
@given(NEAR, CHANGES, RANGES)
def test_a_map_tells_where_each_byte_is(size, changes, asked):
    found, model = changed(size, changes)
    assert list(found.runs(*asked)) == model.runs(*asked)
    assert list(found.runs(0, END)) == model.runs(0, END)
    first = asked[0] // BLOCK * BLOCK
    if asked[0] >= model.limit:
        first = model.limit // BLOCK * BLOCK
    assert found.has(*asked) == (1 not in model.lower[first : asked[1]])
    assert found.is_complete == (1 not in model.lower)


@settings(deadline=None)  # the machine may be busy
@given(NEAR, CHANGES, RANGES)
def test_the_part_that_room_is_reserved_for_is_all_of_its_blocks(size, changes, asked):
    found, model = changed(size, changes)
    start, end = asked[0] // BLOCK * BLOCK, -(-asked[1] // BLOCK) * BLOCK
    if asked[1] >= model.limit and model.limit % BLOCK:
        start = min(start, model.limit // BLOCK * BLOCK)
    while (run := found.part(*asked)) is not None:
        assert model.lower[run.start : run.end] == b"\1" * (run.end - run.start)
        model.lower[run.start : run.end] = bytes(run.end - run.start)
        found = found.marked(run.start, run.end)
    assert 1 not in model.lower[start:end]
    assert list(found.runs(0, END)) == model.runs(0, END)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_a_large_map_is_told_in_parts_as_it_is_as_a_whole(share):
    rng, blocks = random.Random(share), 3000
    marks = [rng.random() < share for _ in range(blocks)]
    marks[500:1200] = [rng.random() < 0.5] * 700
    marks[-1], size = False, blocks * BLOCK - 1
    found = BlockMap.unmarked(size)
    for block in rng.sample(range(blocks), blocks):
        if marks[block]:
            found = found.marked(block * BLOCK + 1, block * BLOCK + 2)
    wanted = [mark for run in found.runs(0, size) for mark in _marks(run)]
    assert wanted == [(block, mark) for block, mark in enumerate(marks)]
    edges = [*range(0, size, 7 * BLOCK), size]
    parts = [run for pair in itertools.pairwise(edges) for run in found.runs(*pair)]
    assert [mark for run in parts for mark in _marks(run)] == wanted
    own = [not run.lower for run in found.runs(0, size)]
    assert all(one != other for one, other in itertools.pairwise(own))


def _marks(run):
    return [(block, not run.lower) for block in range(run.start // BLOCK, -(-run.end // BLOCK))]


@settings(deadline=None)  # the machine may be busy
@given(NEAR, CHANGES)
def test_a_map_comes_back_from_the_disk_as_it_was(size, changes):
    found, _ = changed(size, changes)
    assert BlockMap.decoded(found.encoded(), size) == found
    assert BlockMap.decoded(found.encoded(most=1 << 14), size) == found


@settings(deadline=None)  # the machine may be busy
@given(NEAR, CHANGES, NEAR)
def test_a_file_that_is_being_cut_has_the_map_of_its_size(size, changes, cut):
    found, _ = changed(size, changes)
    on_disk = found.encoded_cut(cut)
    assert BlockMap.decoded(on_disk, cut) == found.cut(cut)
    assert BlockMap.decoded(on_disk, cut + 1) == found


@settings(deadline=None)  # the machine may be busy
@given(NEAR, CHANGES, RANGES)
def test_a_mark_is_taken_back_with_all_of_its_block(size, changes, lost):
    found, model = changed(size, changes)
    first, end = lost[0] // BLOCK * BLOCK, min(-(-lost[1] // BLOCK) * BLOCK, found.limit)
    model.lower[first:end] = b"\1" * max(0, end - first)
    assert list(found.without(Run(*lost, lower=False)).runs(0, END)) == model.runs(0, END)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\1\x10",
        b"\3" + BlockMap.unmarked(5 * BLOCK).encoded()[1:],
        BlockMap(5 * BLOCK, b"", 8).encoded(),
        BlockMap(5 * BLOCK, b"\x80").encoded(),
        b"\2" + BlockMap(5 * BLOCK, b"\x10").encoded()[1:],
        BlockMap(1 << 63).encoded(),
    ],
    ids=["nothing", "short", "version", "shift", "beyond", "short, cut", "limit"],
)
def test_what_is_no_map_is_told(data):
    with pytest.raises(ValueError, match="it"):
        BlockMap.decoded(data, 1)


@pytest.mark.parametrize("size", [1, 10 << 30, 1 << 40, (1 << 62) + 1])
def test_a_map_fits_into_an_attribute_however_large_the_file(size):
    found = BlockMap.unmarked(size).marked(0, size // 2)
    assert len(found.encoded()) <= 64 << 10


@pytest.mark.parametrize(("block_size", "shift"), [(1024, 12), (4096, 12), (16384, 14)])
def test_no_block_is_smaller_than_those_of_the_file_system(block_size, shift):
    assert BlockMap.unmarked(1 << 20, least=least_shift(block_size)).shift == shift
