"""Names for whose whiteouts aufs has no room: they go, and nothing else does, at no step."""

import errno
import os
import stat

import pytest

from tests.trees import Same, harvest
from unionfs.audit import comparison
from unionfs.audit.examination import Examination
from unionfs.changes import names
from unionfs.layers.layer import WritableLayer

AUFS = {"whiteout": "aufs", "metacopy": False, "redirect_dir": False}  # as `options.settled` says
LONG = "n" * 255
OTHER = "m" * 252
LOWER = {
    LONG: "text",
    OTHER: {"sub": {"f": "f"}},
    "near": "near" * 1000,
    "d": {"e": {"g": "g"}},
    "link": "linked",
}
BELOW = {"near": "hidden", "low": "low", "d": {"e": {"low": "low"}, LONG: "deep"}}
AFTER = {
    OTHER: {"sub": {"f": "f"}},
    "near": "near" * 1000,
    "low": "low",
    "d": {"e": {"g": "g", "low": "low"}, LONG: "deep"},
    "link": "linked",
}


@pytest.fixture(params=["", "in"])
def where(request):
    """Return the directory that holds the names: the union's root, without a parent, or another."""
    return request.param


def _within(where, tree):
    return {where: tree} if where else tree


def _path(where, name):
    return os.path.join(where, name)


@pytest.fixture
def u(union, where):
    return union({}, _within(where, LOWER), _within(where, BELOW), **AUFS)


def test_a_long_name_goes_and_all_else_stays(u, where):
    numbers = {name: u.node(_path(where, name)).ino for name in AFTER}
    u.unlink(_path(where, LONG))
    for union in (u, u.remount()):
        assert union.tree(where) == AFTER
        assert {name: union.node(_path(where, name)).ino for name in AFTER} == numbers
        assert not union.exists(_path(where, LONG))
    assert ".wh..wh..opq" in os.listdir(u.upper / where)


@pytest.mark.parametrize("limit", [names.Most(8, 1 << 20), names.Most(100, 8)])
def test_where_that_would_be_too_much_a_long_name_stays(u, where, monkeypatch, limit):
    before = u.tree()
    monkeypatch.setattr(names, "_FOR_LONG_NAMES", limit)
    for change in (lambda: u.unlink(_path(where, LONG)), lambda: u.rename(_path(where, LONG), "x")):
        with pytest.raises(OSError, match="File name too long"):
            change()
    assert u.tree() == before
    assert harvest(u.upper) == {}
    u.write(_path(where, LONG), "new")
    u.unlink(_path(where, f"{OTHER}/sub/f"))
    monkeypatch.undo()
    u.unlink(_path(where, LONG))
    assert u.remount().tree(where) == AFTER | {OTHER: {"sub": {}}}


def test_only_what_was_deleted_is_a_change(u, where):
    u.unlink(_path(where, LONG))
    found = [(change.path.decode(), change.kind) for change in comparison.changes(u.stack, "aufs")]
    assert found == [(_path(where, LONG), "deleted")]
    assert Examination(u.stack.upper, u.stack.work, u.stack.lowers, "aufs").run() == []


def test_names_that_are_not_too_long_have_whiteouts(u, where):
    u.unlink(_path(where, "low"))
    u.rename(_path(where, "near"), _path(where, LONG))
    assert set(os.listdir(u.upper / where)) == {".wh.low", ".wh.near", LONG}


STEPS = {
    "unlink": lambda u, at: u.unlink(at(LONG)),
    "rename": lambda u, at: u.rename(at(LONG), at("new")),
    "rename a directory": lambda u, at: u.rename(at(OTHER), at("new")),
    "rename over a directory": lambda u, at: u.rename(at("d"), at(OTHER)),
}
VERBS = [
    name
    for name, verb in vars(WritableLayer).items()
    if callable(verb) and not name.startswith("_") and name != "open_to_write"
]


@pytest.mark.parametrize("step", STEPS)
def test_whatever_step_fails_the_old_tree_or_the_new_one_is_seen(u, where, step, monkeypatch):
    if step == "rename over a directory":
        u.unlink(_path(where, f"{OTHER}/sub/f"))
        u.rmdir(_path(where, f"{OTHER}/sub"))
    before = u.tree()

    def at(name):
        return _path(where, name)

    for number in range(1000):
        calls = [0]
        with monkeypatch.context() as patch:
            for name in VERBS:
                patch.setattr(WritableLayer, name, _failing(name, calls, number))
            try:
                STEPS[step](u, at)
            except OSError as exc:
                assert exc.errno == errno.ENOSPC  # noqa: PT017 - which of the two is the question
            else:
                break
        assert u.tree() == before
        u = u.remount()
        assert u.tree() == before
    assert number > 5
    after = u.tree()
    assert after != before
    assert u.remount().tree() == after


def _failing(name, calls, number):
    real = vars(WritableLayer)[name]

    def verb(*args, **kwargs):
        calls[0] += 1
        if calls[0] == number + 1:
            raise OSError(errno.ENOSPC, "no space, for once")
        return real(*args, **kwargs)

    return verb


def test_a_directory_of_a_long_name_goes(u, where):
    for name in ("sub/f", "sub"):
        (u.unlink if name.endswith("f") else u.rmdir)(_path(where, f"{OTHER}/{name}"))
    u.rmdir(_path(where, OTHER))
    u.mkdir(_path(where, OTHER))
    again = u.remount()
    assert again.tree(where) == AFTER | {LONG: "text", OTHER: {}}
    again.rmdir(_path(where, OTHER))
    assert not again.exists(_path(where, OTHER))


def test_a_link_of_a_long_name_goes_and_the_others_are_links_still(union):
    same = Same(f"d/{LONG}")
    u = union({}, {"d": {LONG: "one", "other": same}, "third": same}, **AUFS)
    u.unlink(f"d/{LONG}")
    assert (u.links("d/other"), u.links("third")) == (2, 2)
    u.append("third", " more")
    assert u.remount().tree() == {"d": {"other": "one more"}, "third": "one more"}


def test_the_root_of_a_lower_may_hide_the_layers_below_it(union):
    """So it does in OCI image layers: layer.md, "Opaque Whiteout"."""
    lowers = [{"top": ""}, {".wh..wh..opq": "", "middle": "", "d": {"m": ""}}, {"low": "", "d": {}}]
    u = union({}, *lowers, **AUFS)
    assert u.tree() == {"top": "", "middle": "", "d": {"m": ""}}
    u.rename("d", "e")
    assert u.remount().tree() == {"top": "", "middle": "", "e": {"m": ""}}
    assert stat.S_ISREG((u.upper / ".wh.d").stat().st_mode)
    assert list(harvest(u.upper)) == [".wh.d", "e"]


def test_statfs_tells_the_longest_name_that_any_layer_can_hold(union, tmp_path):
    """As overlayfs does: what only a lower can hold is read, and is too long for upper."""
    u = union({}, {})
    host = os.statvfs(tmp_path)
    u.union.lookup.name_max = 1530  # FAT's
    shown = u.union.statvfs(u.union.root)
    assert (shown.f_namemax, shown.f_frsize, shown.f_blocks) == (1530, host.f_frsize, host.f_blocks)
    with pytest.raises(OSError, match="too long"):
        u.mkdir("n" * 300)
    with pytest.raises(FileNotFoundError):
        u.stat("n" * 300)
