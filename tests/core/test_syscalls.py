"""How many system calls an operation takes; a change that needs more has to say so here."""

import contextlib
import os

import pytest

from tests.trees import WHITEOUT
from unionfs.changes.changes import ROOT
from unionfs.host import syscalls

COUNTED = [
    "stat", "open", "close", "unlink", "rmdir", "rename", "mkdir", "link", "mknod", "symlink",
    "listxattr", "getxattr", "setxattr", "removexattr", "fchdir", "chmod", "chown", "utime",
    "ftruncate", "truncate", "fstat", "readlink", "copy_file_range", "lseek", "pread", "pwrite",
    "scandir",
]  # fmt: skip


@pytest.fixture
def counted(monkeypatch):
    """Count the system calls made in a `with` block."""

    @contextlib.contextmanager
    def counting():
        calls = []
        with monkeypatch.context() as patch:
            for name in COUNTED:
                patch.setattr(os, name, noting(name, getattr(os, name), calls))
            real = syscalls.renameat2
            patch.setattr(syscalls, "renameat2", noting("renameat2", real, calls))
            yield calls

    def noting(name, call, calls):
        def noted(*args, **kwargs):
            calls.append(name)
            return call(*args, **kwargs)

        return noted

    return counting


@pytest.fixture
def stacked(union):
    lower = {
        "d": {"low": "l", "gone": "x", "t": "x", "z": "x", "mode": "x", "void": ""},
        "deep": {"e": {"f": "x"}},
        "e": {"moved": {"f": "x"}, "emptied": {"f": "x"}},
    }
    upper = {"d": {"up": "u", "gone": WHITEOUT}, "pure": {"up": "u", "t": "old"}}
    u = union(upper, lower)
    for path in ("d", "d/low", "d/up", "pure", "pure/up"):
        u.node(path)
    u.changes.mkdir(u.node("pure"), b"warm", 0o755, ROOT)[0].lookups += 1  # credentials are set
    u.changes.unlink(u.node("d"), b"z")  # there is a whiteout
    u.changes.unlink(u.node("e/emptied"), b"f")
    u.change("d/mode", mode=0o600)  # its directory is marked
    return u


# What is looked up, and the calls for it: a stat per layer, and fchdir with listxattr for the
# marks of what is not known.
LOOKUPS = {
    "pure/t": ["stat", "fchdir", "listxattr"],
    "pure/up": ["stat"],
    "d/up": ["stat"],
    "d/low": ["stat", "stat"],
    "d/gone": ["stat"],
    "d/absent": ["stat", "stat"],
    "deep/e": ["stat"],
}


@pytest.mark.parametrize("path", LOOKUPS)
def test_lookup(stacked, counted, path):
    directory, _, name = path.rpartition("/")
    parent = stacked.node(directory)
    with counted() as calls:
        found = stacked.union.lookup.node(parent, name.encode())
    assert calls == LOOKUPS[path]
    if found:
        found[0].lookups += 1


@pytest.mark.parametrize("path", ["d/up", "d/low"])
def test_opening_to_read_is_one_call(stacked, counted, path):
    node = stacked.node(path)
    with counted() as calls:
        stacked.open_fds[stacked.union.open_to_read(node)] = node
    assert calls == ["open"]


READ = ("open", "fchdir", "scandir", "close", "fchdir")
LISTED, MARKED = ("fchdir", "listxattr"), ("fchdir", "setxattr")

CHANGES = {
    "create, pure directory": (
        lambda u, d: u.changes.create(d["pure"], b"n", os.O_RDWR, 0o644, ROOT),
        ["open", "fstat"],
    ),
    "create, merged directory": (
        lambda u, d: u.changes.create(d["d"], b"n", os.O_RDWR, 0o644, ROOT),
        ["stat", "open", "fstat"],
    ),
    "mkdir, pure directory": (
        lambda u, d: u.changes.mkdir(d["pure"], b"n", 0o755, ROOT),
        ["mkdir", "stat"],
    ),
    "list, upper": (
        lambda u, d: u.union.listing(d["pure"]) and None,
        [*READ],
    ),
    "unlink, upper": (
        lambda u, d: u.changes.unlink(d["pure"], b"up"),
        ["stat", "open", "unlink"],
    ),
    "unlink, lower": (
        lambda u, d: u.changes.unlink(d["d"], b"low"),
        ["stat", "link"],
    ),
    "rename, upper": (
        lambda u, d: u.changes.rename(d["pure"], b"up", d["pure"], b"n", 0),
        ["stat", "stat", "rename"],
    ),
    "rename over, upper": (
        lambda u, d: u.changes.rename(d["pure"], b"up", d["pure"], b"t", 0),
        ["stat", "stat", "fchdir", "listxattr", "rename"],
    ),
    "rename over a lower file": (
        lambda u, d: u.changes.rename(d["d"], b"up", d["d"], b"t", 0),
        ["stat", "stat", "stat", "stat", "rename"],
    ),
    "copy an empty file up": (
        lambda u, d: u.copyup.whole(d["d/void"]) and None,
        [
            *("open", "fstat"),  # the lower file
            *("open", "fstat", "fstat"),  # its copy
            *("chown", "chmod", *LISTED, "utime", *MARKED),
            *("stat", "rename", "utime"),  # the directory keeps its time
            *("close", "close"),
        ],
    ),
    "rename a lower directory over an emptied one": (
        lambda u, d: u.changes.rename(d["e"], b"moved", d["e"], b"emptied", 0),
        [
            *("stat", "stat"),  # the old name
            *("stat", *LISTED, "fchdir", "getxattr", "stat"),  # the new one
            *(*READ, "stat", *READ),  # what it holds: a whiteout of ours, and what that hides
            *(
                "stat",
                "mkdir",
                "chown",
                "chmod",
                *LISTED,
                "open",
                "close",
                "utime",
                *MARKED,
                "stat",
            ),
            *("stat", "rename", "utime"),
            *MARKED,  # the redirect
            *(*MARKED, "unlink", "utime", "open"),  # the directory makes way, and is held
            "renameat2",
        ],
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_change(stacked, counted, change):
    call, expected = CHANGES[change]
    nodes = {name: stacked.node(name) for name in ("d", "d/void", "e", "pure")}
    with counted() as calls:
        made = call(stacked, nodes)
    assert calls == expected
    if made:
        made[0].lookups += 1
        stacked.open_fds |= dict.fromkeys(made[2:])


@pytest.mark.parametrize("entries", [10, 2000])
def test_no_operation_grows_with_its_directory(union, counted, entries):
    u = union({"d": {"up": "x"}}, {"d": {f"f{number}": "x" for number in range(entries)}})
    directory = u.node("d")
    u.changes.unlink(directory, b"f9")  # there is a whiteout
    with counted() as calls:
        u.union.lookup.node(directory, b"f1")[0].lookups += 1
        u.changes.unlink(directory, b"f1")
        u.changes.mkdir(directory, b"n", 0o755, ROOT)[0].lookups += 1
        u.changes.rename(directory, b"up", directory, b"f3", 0)
    assert len(calls) == 14
    assert "scandir" not in calls


def test_a_listed_name_is_only_asked_of_the_lower_that_holds_it(union, counted):
    u = union({}, *({"d": {f"f{number}": "x"}} for number in range(5)))
    directory = u.node("d")
    u.union.listing(directory)
    with counted() as calls:
        u.union.lookup.node(directory, b"f4")[0].lookups += 1
        assert u.union.lookup.node(directory, b"none") is None
    assert calls == ["stat"]
