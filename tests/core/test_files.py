"""Open files, and what the kernel is told of them."""

import errno
import os
from types import SimpleNamespace

import pytest

from unionfs.operations import Operations


@pytest.fixture
def operations(union):
    """The handlers over one lower file with set-uid, `f`, and the node of that."""
    u = union({}, {"f": "text"})
    u.change("f", mode=0o4755)
    u.append("f", "!")
    registry = SimpleNamespace(register=lambda *_arguments, **_words: 7, unregister=lambda _id: 0)
    return Operations(u.union, registry, passthrough="upper", status={}), u.node("f")


def test_an_open_that_fails_late_leaves_no_descriptor(operations, monkeypatch):
    made, node = operations

    def fail(*_arguments, **_words):
        raise OSError(errno.EIO, "bad sector")

    before = os.listdir("/proc/self/fd")
    monkeypatch.setattr(os, "chmod", fail)
    with pytest.raises(OSError, match="bad sector"):
        made.files.open_at_once(node, os.O_RDWR | os.O_TRUNC, 1000)
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize(("forgotten", "keeps"), [(1, False), (2, True)])
def test_the_page_cache_is_new_when_the_kernel_forgot_all_lookups(operations, forgotten, keeps):
    made, node = operations
    node.lookups = 2
    backings = made.files.backings
    assert backings.open(node, 0, writes=False, eligible=True) == (7, False)
    backings.close(node, through=True)
    made.forget_node(node.ino, forgotten)
    assert backings.open(node, 0, writes=False, eligible=False) == (0, keeps)
