"""Copies by blocks: the map of each, where few are in memory."""

import contextlib
import os

import pytest

from unionfs.changes import partial_copies
from unionfs.layers import markers
from unionfs.layers.blockmap import Run

PAGE = 4096
TEXT = "0123456789abcdef" * (40 * PAGE // 16)


def _changed(union, path, changes):
    """Write *changes* (offset -> bytes) to a file; return what it has to show."""
    node = union.node(path)
    union.copyup.by_blocks(node)
    for offset, data in changes.items():
        union.copyup.partials.write(node, data, offset)
    shown = bytearray(TEXT.encode())
    for offset, data in changes.items():
        shown[offset : offset + len(data)] = data
    return bytes(shown)


def _shown(union, path):
    """Return what a partial file has to show, by its map."""
    partial, found = union.union.upper.partials.of(union.node(path)), b""
    for run in partial.runs(0, 1 << 20):
        fd = partial.source if run.lower else partial.target
        found += os.pread(fd, run.end - run.start, run.start)
    return found


@pytest.mark.parametrize("volatile", [False, True])
def test_a_map_that_is_let_go_comes_back_as_it_was(union, volatile):
    names = [f"f{number}" for number in range(4)]
    u = union({}, dict.fromkeys(names, TEXT), copyup="blocks", volatile=volatile)
    u.union.upper.partials.most = 2
    shown = {}
    for turn in range(1, 4):
        for name in names:
            shown[name] = _changed(
                u, name, {at * PAGE * 5 + 7: b"%d" % at for at in range(1, turn + 1)}
            )
    assert len(u.union.upper.partials) == 2
    assert {name: _shown(u, name) for name in names} == shown


@pytest.mark.parametrize("volatile", [False, True])
def test_a_map_that_finds_no_room_stays_in_memory(union, volatile, monkeypatch, caplog):
    u = union({}, {"f": TEXT, "g": TEXT}, copyup="blocks", volatile=volatile)
    u.union.upper.partials.most = 1
    shown = _changed(u, "f", {5: b"five"})
    monkeypatch.setattr(markers, "put_blocks", _no_room)
    other = _changed(u, "g", {6: b"six"})
    u.union.upper.partials.forget(u.node("f").ino)
    assert _shown(u, "f") == shown
    assert _shown(u, "g") == other
    assert ("stays in memory" in caplog.text) == volatile
    caplog.clear()
    monkeypatch.undo()
    u.union.upper.partials.forget(u.node("f").ino)
    assert _shown(u, "f") == shown


@pytest.mark.parametrize("more", [0, 1, PAGE - 101, PAGE - 100, 3 * PAGE])
@pytest.mark.parametrize("at", [-100, -5])
def test_a_crash_between_a_mark_and_its_block_shows_the_old_block(union, monkeypatch, more, at):
    """Also where something was written behind what the lower has of the block."""
    size = 39 * PAGE + 100
    u = union({}, {"f": TEXT}, copyup="blocks")
    _changed(u, "f", {5: b"five"})
    node, partials = u.node("f"), u.copyup.partials
    partials.cut(node, size)
    partials.write(node, b"behind", size + more)
    shown = _shown(u, "f")
    assert shown == b"01234five" + TEXT[9:size].encode() + bytes(more) + b"behind"
    monkeypatch.setattr(partial_copies, "write_parts", _killed)
    with contextlib.suppress(_Killed):  # else it has its block, and no mark is made
        partials.write(node, b"new", size + at)
        shown = shown[: size + at] + b"new" + shown[size + at + 3 :]
    u.union.upper.partials.drop(node.ino)
    assert _shown(u, "f") == shown


def test_what_lies_between_the_lower_and_a_write_behind_it_stays(union):
    """Also where a crash took the mark of the block that both are in."""
    u = union({}, {"f": TEXT}, copyup="blocks")
    _changed(u, "f", {5: b"five"})
    node, partials, size = u.node("f"), u.copyup.partials, 39 * PAGE + 100
    partials.cut(node, size)
    partials.write(node, b"behind", size)
    partial = u.union.upper.partials.of(node)
    partial.blocks = partial.blocks.without(Run(size - 1, size, lower=False))
    partials.write(node, b"more", size + 9)
    assert _shown(u, "f")[size - 2 :] == TEXT[size - 2 : size].encode() + b"behind\0\0\0more"


def test_what_fails_before_a_file_is_filled_leaves_no_time_to_be_given_back(union, monkeypatch):
    u = union({}, {"f": TEXT}, copyup="blocks")
    shown = _changed(u, "f", {5: b"five"})
    monkeypatch.setattr(markers, "keep_capability", _no_room)
    with pytest.raises(OSError, match="No space"):
        u.copyup.partials.bring(u.node("f"))
    assert markers.MTIME not in os.listxattr(u.upper / "f")
    assert _shown(u, "f") == shown


def test_what_the_disk_did_not_take_is_not_taken_for_whole_later(union, monkeypatch):
    u = union({}, {"f": TEXT}, copyup="blocks")
    _changed(u, "f", {5: b"five"})
    partials, node = u.copyup.partials, u.node("f")
    partials.syncs = True
    with monkeypatch.context() as disk:
        disk.setattr(partial_copies.content, "sync", _broken)
        with pytest.raises(OSError, match="Input/output"):
            partials.bring(node)
    with pytest.raises(OSError, match="did not take all"):  # although this sync succeeds
        partials.bring(node)
    assert node.partial


class _Killed(BaseException):
    pass


def _killed(*_):
    raise _Killed


def _no_room(_fd, _blocks):
    raise OSError(28, "No space left on device")


def _broken(_fd):
    raise OSError(5, "Input/output error")
