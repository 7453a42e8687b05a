"""Open files, and what the kernel is told of them."""

import errno
import os
from types import SimpleNamespace

import pytest

from unionfs.fuse.backing import SMALL
from unionfs.fuse.direct import Direct
from unionfs.fuse.files import UNOPENED
from unionfs.fuse.operations import Operations
from unionfs.fuse.reading import LARGE
from unionfs.fuse.session import messages
from unionfs.host.credentials import ROOT, Requester


def registry():
    return SimpleNamespace(
        register=lambda *_arguments, **_words: 7,
        unregister=lambda _id: 0,
        catch_up=lambda: None,
    )


@pytest.fixture
def operations(union):
    """The handlers over one lower file with set-uid, `f`, and the node of that."""
    u = union({}, {"f": "text"})
    u.change("f", mode=0o4755)
    u.append("f", "!")
    return Operations(u.union, registry(), passthrough="upper", status={}), u.node("f")


def test_an_open_that_fails_late_leaves_no_descriptor(operations, monkeypatch):
    made, node = operations

    def fail(*_arguments, **_words):
        raise OSError(errno.EIO, "bad sector")

    before = os.listdir("/proc/self/fd")
    monkeypatch.setattr(os, "chmod", fail)
    with pytest.raises(OSError, match="bad sector"):
        made.files.open_at_once(node, os.O_RDWR | os.O_TRUNC, Requester(1000, 1000, 0))
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize(("forgotten", "keeps"), [(1, False), (2, True)])
def test_the_page_cache_is_new_when_the_kernel_forgot_all_lookups(operations, forgotten, keeps):
    made, node = operations
    node.lookups = 2
    backings = made.files.backings
    assert backings.open(node, 0, eligible=True) == (7, False)
    backings.close(node, through=True)
    made.forget_node(node.ino, forgotten)
    assert backings.open(node, 0, eligible=False) == (0, keeps)


@pytest.mark.parametrize(("upper", "backing"), [({}, 0), (None, 7)], ids=["with upper", "without"])
def test_lower_files_pass_through_where_nothing_can_be_copied_up(union, upper, backing):
    u = union(upper, {"f": "x" * SMALL})
    made = Operations(u.union, registry(), passthrough="upper", status={})
    opened = made.files.open_at_once(u.node("f"), os.O_RDONLY, ROOT)
    made.files.release(opened.fd)
    assert opened.backing == backing


def test_an_open_for_reading_needs_a_descriptor_only_where_it_may_pass_through(union):
    u = union({"large": "x" * SMALL, "small": "x"}, {"lower": "x" * SMALL})
    made = Operations(u.union, registry(), passthrough="upper", status={})
    for name in ("large", "lower"):
        made.files.passthrough.is_large(u.node(name))
    assert made.files.open_unopened(u.node("large")) is None
    for name in ("small", "lower"):
        assert made.files.open_unopened(u.node(name)) == (UNOPENED, 0, True)
        made.files.release_unopened(u.node(name))


@pytest.mark.parametrize("taken", [True, False])
def test_a_large_read_is_left_to_the_session_where_it_can_send_a_file(union, taken):
    u = union({}, {"f": "x" * LARGE + "y"})
    sent = []

    def send_pieces(*request):
        sent.append(request)
        return taken

    session = SimpleNamespace(send_pieces=send_pieces)
    made = Operations(u.union, session, passthrough="upper", status={})
    opened = made.files.open_at_once(u.node("f"), os.O_RDONLY, ROOT)
    body = memoryview(messages.READ_IN.pack(opened.fd, 1, 2 * LARGE))
    os.pread(opened.fd, LARGE + 1, 0)
    reply = Direct(made).table[messages.READ](5, u.node("f").ino, body, 0, 0)
    assert sent == [(5, ((opened.fd, 1, LARGE),))]
    made.files.release(opened.fd)
    assert bytes(reply) == (b"" if taken else messages.data(5, b"x" * (LARGE - 1) + b"y"))


@pytest.fixture
def passing(union):
    """The files of a union where all passes through, a large one, and what the kernel was told."""
    u, told = union({"f": "x" * SMALL}), []
    session = registry()
    session.invalidate_attributes = told.append
    return Operations(u.union, session, passthrough="upper", status={}).files, u, told


def test_attributes_are_not_kept_while_somebody_may_change_them_unseen(passing):
    files, u, told = passing
    node, may_change = u.node("f"), files.backings.may_change
    assert not may_change(node)
    writer = files.open_at_once(node, os.O_RDWR, 0).fd
    assert told == [node.ino]
    assert [may_change(node) for _ in range(3)] == [True] * 3
    mapping = os.open(u.upper / "f", os.O_RDWR)  # as the kernel has it as long as a map lasts
    files.release(writer)
    assert [may_change(node) for _ in range(3)] == [True] * 3
    os.close(mapping)
    # The attributes of the first reply may have been read while somebody could.
    assert [may_change(node) for _ in range(3)] == [True, False, False]
    files.release(files.open_at_once(node, os.O_WRONLY, 0).fd)
    assert told == [node.ino] * 2
    assert [may_change(node) for _ in range(2)] == [True, False]


def test_a_reader_changes_nothing_unseen(passing):
    files, u, told = passing
    node = u.node("f")
    reader = files.open_at_once(node, os.O_RDONLY, 0)
    assert reader.backing
    assert not files.backings.may_change(node)
    writer = files.open_at_once(node, os.O_WRONLY, 0).fd
    files.release(writer)
    assert [files.backings.may_change(node) for _ in range(2)] == [True, False]
    files.release(reader.fd)
    assert told == [node.ino]


def test_where_it_cannot_be_known_whether_a_file_is_mapped_it_may_be(passing, monkeypatch):
    files, u, _ = passing
    node = u.node("f")
    files.release(files.open_at_once(node, os.O_RDWR, 0).fd)

    def fail(*_arguments):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patch:
        patch.setattr(files.backings, "_open_to_read", fail)
        assert [files.backings.may_change(node) for _ in range(3)] == [True] * 3
    with monkeypatch.context() as patch:  # as on a network file system
        patch.setattr("fcntl.fcntl", fail)
        assert [files.backings.may_change(node) for _ in range(3)] == [True] * 3
    assert [files.backings.may_change(node) for _ in range(2)] == [True, False]


def test_an_open_passes_through_when_the_release_of_the_last_cached_one_was_put_off(union):
    u, session = union({"f": "x" * SMALL}), registry()
    session.invalidate_attributes = lambda _ino: None
    files, node = Operations(u.union, session, passthrough="upper", status={}).files, u.node("f")
    assert files.open_unopened(node) == (UNOPENED, 0, True)
    put_off = [lambda: files.release_unopened(node)]
    session.catch_up = lambda: put_off and put_off.pop()()
    opened = files.open_at_once(node, os.O_RDWR, 0)
    assert opened.backing
    files.release(opened.fd)
