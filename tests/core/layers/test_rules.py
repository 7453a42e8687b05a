"""The rules, exhaustively over all stacks of up to four layers."""

import errno
import itertools
from typing import NamedTuple

import pytest

from unionfs.layers.rules import Found, merged, require_replaceable, visible


class Entry(NamedTuple):
    found: Found
    layer: int


SIMPLE = [Found.NOTHING, Found.WHITEOUT, Found.FILE, Found.DIRECTORY, Found.OPAQUE]
COLUMNS = [column for n in range(5) for column in itertools.product(SIMPLE, repeat=n)]


def entries(column):
    return [Entry(found, index) for index, found in enumerate(column)]


def reference(column):
    """The law in other words: what one layer shows over the stack below it."""
    if not column:
        return []
    top, below = column[0], reference(column[1:])
    below = [index + 1 for index in below]
    match top:
        case Found.NOTHING:
            return below
        case Found.WHITEOUT:
            return []
        case Found.FILE | Found.OPAQUE:
            return [0]
        case Found.DIRECTORY:
            is_directory = below and column[below[0]] in (Found.DIRECTORY, Found.OPAQUE)
            return [0, *below] if is_directory else [0]


def test_visible_is_the_top_object_and_the_directories_that_merge_with_it():
    for column in COLUMNS:
        assert [entry.layer for entry in visible(entries(column))] == reference(column), column


def test_listing_and_lookup_agree():
    for column in COLUMNS:
        listings = [
            {} if found is Found.NOTHING else {b"x": found is not Found.WHITEOUT}
            for found in column
        ]
        assert (b"x" in merged(listings)) == bool(visible(entries(column))), column


def test_layers_below_a_decided_one_are_not_asked():
    def column():
        yield Entry(Found.FILE, 0)
        pytest.fail("asked a layer below a file")

    assert visible(column()) == [Entry(Found.FILE, 0)]


@pytest.mark.parametrize(
    ("column", "layers"),
    [
        ([Found.METACOPY, Found.FILE], [0, 1]),
        ([Found.METACOPY, Found.NOTHING, Found.METACOPY, Found.FILE, Found.FILE], [0, 2, 3]),
        ([Found.METACOPY, Found.WHITEOUT, Found.FILE], [0]),
        ([Found.METACOPY, Found.DIRECTORY], [0]),
        ([Found.DIRECTORY, Found.METACOPY], [0]),
    ],
)
def test_a_metadata_copy_shows_the_file_below_as_its_content(column, layers):
    assert [entry.layer for entry in visible(entries(column))] == layers


@pytest.mark.parametrize(
    ("source_is_directory", "target_is_directory", "target_is_empty", "expected"),
    [
        (False, False, False, None),
        (False, True, True, errno.EISDIR),
        (False, True, False, errno.EISDIR),
        (True, False, False, errno.ENOTDIR),
        (True, True, False, errno.ENOTEMPTY),
        (True, True, True, None),
    ],
)
def test_rename_refuses_what_posix_refuses(
    source_is_directory, target_is_directory, target_is_empty, expected
):
    raised = None
    try:
        require_replaceable(
            source_is_directory=source_is_directory,
            target_is_directory=target_is_directory,
            target_is_empty=target_is_empty,
        )
    except OSError as exc:
        raised = exc.errno
    assert raised == expected
