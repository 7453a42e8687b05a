"""Copies by blocks: the map of each, where few are in memory."""

import contextlib
import os

import pytest

from unionfs.changes import partial_copies
from unionfs.changes.parts import read_lower
from unionfs.host.syscalls import KEEP_SIZE, PUNCH_HOLE, fallocate
from unionfs.layers import markers
from unionfs.layers.blockmap import SHIFT, BlockMap, Run

PAGE = 4096
TEXT = "0123456789abcdef" * (40 * PAGE // 16)


def _changed(union, path, changes):
    """Write *changes* (offset -> bytes) to a file; return what it has to show."""
    node = union.node(path)
    union.copyup.by_blocks(node)
    for offset, data in changes.items():
        union.write_by_blocks(node, data, offset)
    shown = bytearray(TEXT.encode())
    for offset, data in changes.items():
        shown[offset : offset + len(data)] = data
    return bytes(shown)


def _shown(union, path, start=0, size=1 << 20):
    """Return what a partial file has to show, by its map."""
    partial, found = union.union.upper.partials.of(union.node(path)), b""
    for run in partial.runs(start, start + size):
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
    u.write_by_blocks(node, b"behind", size + more)
    shown = _shown(u, "f")
    assert shown == b"01234five" + TEXT[9:size].encode() + bytes(more) + b"behind"
    monkeypatch.setattr(partial_copies, "write_parts", _killed)
    with contextlib.suppress(_Killed):  # else it has its block, and no mark is made
        u.write_by_blocks(node, b"new", size + at)
        shown = shown[: size + at] + b"new" + shown[size + at + 3 :]
    u.union.upper.partials.drop(node.ino)
    assert _shown(u, "f") == shown


def test_what_lies_between_the_lower_and_a_write_behind_it_stays(union):
    """Also where a crash took the mark of the block that both are in."""
    u = union({}, {"f": TEXT}, copyup="blocks")
    _changed(u, "f", {5: b"five"})
    node, partials, size = u.node("f"), u.copyup.partials, 39 * PAGE + 100
    partials.cut(node, size)
    u.write_by_blocks(node, b"behind", size)
    partial = u.union.upper.partials.of(node)
    partial.blocks = partial.blocks.without(Run(size - 1, size, lower=False))
    u.write_by_blocks(node, b"more", size + 9)
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


def test_what_the_disk_did_not_take_of_a_write_that_syncs_is_not_taken_for_whole(
    union, monkeypatch
):
    u = union({}, {"f": TEXT}, copyup="blocks")
    shown = _changed(u, "f", {5: b"five"})
    partials, node = u.copyup.partials, u.node("f")
    with monkeypatch.context() as disk:
        disk.setattr(os, "pwrite", _broken)
        with pytest.raises(OSError, match="Input/output"):
            u.write_by_blocks(node, b"six", 6)
    partials.syncs = True
    with pytest.raises(OSError, match="did not take all"):
        partials.bring(node)
    assert node.partial
    assert _shown(u, "f") == shown


def _sparse(union):
    """Build a union over a file that is so large that its blocks have several pages."""
    u = union({}, {"f": ""}, copyup="blocks")
    os.truncate(u.upper.parent / "lower0/f", 128 << 20)
    u.copyup.by_blocks(u.node("f"))
    assert u.union.upper.partials.of(u.node("f")).blocks.shift > SHIFT
    return u


def test_what_is_filled_is_marked_before_it_is_written(union, monkeypatch):
    """A later write with O_DSYNC may have its data on the disk, and a mark made after it not."""
    u = union({}, {"f": TEXT}, copyup="blocks")
    _changed(u, "f", {5: b"five"})
    node, written, pwritev = u.node("f"), [], os.pwritev

    def write(fd, parts, offset):
        path = b"/proc/self/fd/%d" % fd
        marks = BlockMap.decoded(os.getxattr(path, markers.BLOCKS), os.fstat(fd).st_size)
        written.append(marks.has(offset, offset + sum(map(len, parts))))
        return pwritev(fd, parts, offset)

    monkeypatch.setattr(os, "pwritev", write)
    u.copyup.partials.bring(node)
    assert written
    assert all(written)


def test_what_is_copied_at_a_time_is_whole_blocks(union):
    """Else the mark of a block would say that the copy has what was not copied yet."""
    u = _sparse(union)
    node, copies, at = u.node("f"), u.copyup.partials, 64 << 20
    with (u.upper.parent / "lower0/f").open("r+b") as lower:
        lower.seek(at)
        lower.write(TEXT.encode())
    while (run := copies.rest(node, PAGE)) is not None:
        copies.take(node, run.start, read_lower(u.union.upper.partials.of(node).source, run))
    with (u.upper / "f").open("rb") as upper:
        upper.seek(at)
        assert upper.read(len(TEXT)) == TEXT.encode()


def test_a_write_to_a_hole_that_need_not_be_copied_is_there_after_a_crash(union):
    """A block is written as a whole the first time, or what is written of it counts as lost."""
    u = _sparse(union)
    node, partials, at = u.node("f"), u.copyup.partials, 64 << 20
    u.write_by_blocks(node, b"first", 0)
    partials.syncs = True  # so there is something to wait for, and it does not end here
    assert partials.rest(node) is None
    u.write_by_blocks(node, b"new", at + 5)
    u.union.upper.partials.drop(node.ino)
    partial = u.union.upper.partials.of(node)
    assert [run for run in partial.runs(at, at + PAGE) if run.lower] == []
    assert os.pread(partial.target, 9, at) == b"\0" * 5 + b"new\0"


def test_what_a_failed_write_left_in_a_hole_does_not_become_content(union, monkeypatch):
    u = _sparse(union)
    node, partials, at = u.node("f"), u.copyup.partials, 64 << 20
    u.write_by_blocks(node, b"first", 0)
    partials.syncs = True  # so there is something to wait for, and it does not end here
    assert partials.rest(node) is None
    with monkeypatch.context() as disk:
        disk.setattr(partial_copies, "write_parts", _a_page)
        with pytest.raises(OSError, match="No space"):
            u.write_by_blocks(node, b"n" * (1 << 20), at)
    partials.finish(node)
    assert node.partial
    partials.bring(node)
    assert not node.partial
    assert _bytes(u.upper / "f", at, 1 << 20) == bytes(1 << 20)


def test_a_page_whose_block_a_crash_took_does_not_come_back_after_the_next(union, monkeypatch):
    u = _sparse(union)
    node = u.node("f")
    partial = u.union.upper.partials.of(node)
    block = 1 << partial.blocks.shift
    u.write_by_blocks(node, b"1" * block, block)
    with u.union.upper.partials.writing(node) as fd:  # the first page alone has reached the disk
        fallocate(fd, PUNCH_HOLE | KEEP_SIZE, block + PAGE, block - PAGE)
    u.union.upper.partials.drop(node.ino)
    assert _shown(u, "f", block, block) == bytes(block)
    with monkeypatch.context() as disk, contextlib.suppress(_Killed):
        disk.setattr(partial_copies, "write_parts", _killed)
        u.write_by_blocks(node, b"2" * block, block)
    with u.union.upper.partials.writing(node) as fd:  # this time all but the first has
        os.pwrite(fd, b"2" * (block - PAGE), block + PAGE)
    u.union.upper.partials.drop(node.ino)
    assert _shown(u, "f", block, block) == bytes(block)


def _bytes(path, start, size):
    with path.open("rb") as file:
        file.seek(start)
        return file.read(size)


def _a_page(fd, parts, start):
    os.pwrite(fd, b"".join(parts)[:PAGE], start)
    return start + PAGE, OSError(28, "No space left on device")


class _Killed(BaseException):
    pass


def _killed(*_):
    raise _Killed


def _no_room(_fd, _blocks):
    raise OSError(28, "No space left on device")


def _broken(_fd, *_more):
    raise OSError(5, "Input/output error")
