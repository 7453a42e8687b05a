"""A union with two writable sides: what goes to which, and what a reboot leaves."""

import errno
import os
import shutil

import pytest

from tests.core.driver import Driver, stack_in
from tests.trees import WHITEOUT, Opaque, harvest, plant
from unionfs.host import syscalls
from unionfs.view.union import Features

RULES = ("/etc/passwd", "/etc/ssh", "/var", "!/var/cache", "/home/*/keep")
LOWER = {
    "etc": {"passwd": "root", "hosts": "local", "ssh": {"key": "secret"}},
    "var": {"cache": {"old": "o"}, "lib": {"db": "data"}},
    "home": {"ann": {"keep": "k", "junk": "j"}},
    "usr": {"bin": {"ls": "ls"}},
}


def refusing(number):
    return pytest.raises(OSError, match=rf"Errno {number}\b")


@pytest.fixture
def sides(union):
    return lambda *lowers, rules=RULES, **more: union(
        {}, *(lowers or (LOWER,)), rules=rules, **more
    )


CHANGES = {  # name: (what is done, what scratch holds then, what state does)
    "write a file that persists": (
        lambda u: u.write("etc/passwd", "new"),
        {},
        {"etc": {"passwd": "new"}},
    ),
    "write another": (lambda u: u.write("etc/hosts", "new"), {"etc": {"hosts": "new"}}, {}),
    "create a file that persists": (
        lambda u: u.create("etc/ssh/host", "h"),
        {},
        {"etc": {"ssh": {"host": "h"}}},
    ),
    "create another": (lambda u: u.create("etc/new", "n"), {"etc": {"new": "n"}}, {}),
    "remove a file that persists": (
        lambda u: u.unlink("etc/passwd"),
        {"etc": {}},
        {"etc": {"passwd": WHITEOUT}},
    ),
    "remove another": (lambda u: u.unlink("etc/hosts"), {"etc": {"hosts": WHITEOUT}}, {}),
    "below what is taken out": (
        lambda u: u.create("var/cache/new", "n"),
        {"var": {"cache": {"new": "n"}}},
        {},
    ),
    "remove what is taken out": (
        lambda u: (u.unlink("var/cache/old"), u.rmdir("var/cache")),
        {"var": {"cache": WHITEOUT}},
        {"var": {}},
    ),
    "a glob": (
        lambda u: u.write("home/ann/keep", "new"),
        {},
        {"home": {"ann": {"keep": "new"}}},
    ),
    "a directory that a glob may speak of": (
        lambda u: (u.mkdir("home/b"), u.create("home/b/keep", "k"), u.create("home/b/x", "x")),
        {"home": {"b": {"x": "x"}}},
        {"home": {"b": {"keep": "k"}}},
    ),
    "attributes of a split directory": (
        lambda u: u.change("etc", mode=0o700),
        {"etc": {}},
        {},
    ),
    "attributes of one that persists": (
        lambda u: u.change("var", mode=0o700),
        {},
        {"var": {}},
    ),
    "make what persists a directory": (
        lambda u: (u.unlink("etc/passwd"), u.mkdir("etc/passwd"), u.create("etc/passwd/x", "x")),
        {"etc": {}},
        {"etc": {"passwd": Opaque(x="x")}},
    ),
    "rename within state": (
        lambda u: u.rename("etc/ssh/key", "etc/passwd"),
        {"etc": {}},
        {"etc": {"ssh": {"key": WHITEOUT}, "passwd": "secret"}},
    ),
    "rename within scratch": (
        lambda u: (u.create("etc/tmp", "t"), u.rename("etc/tmp", "etc/hosts")),
        {"etc": {"hosts": "t"}},
        {},
    ),
    "rename a directory within state": (
        lambda u: u.rename("var/lib", "etc/ssh/lib"),
        {},
        {"var": {"lib": WHITEOUT}, "etc": {"ssh": {"lib": Opaque(db="data")}}},
    ),
    "link within state": (
        lambda u: (u.create("var/a", "a"), u.link("var/a", "etc/ssh/b")),
        {},
        {"var": {"a": "a"}, "etc": {"ssh": {"b": "a"}}},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CHANGES)
def test_each_change_goes_to_the_side_of_its_path(sides, case):
    change, scratch, state = CHANGES[case]
    u = sides()
    change(u)
    assert (harvest(u.upper), harvest(u.state)) == (scratch, state)


@pytest.mark.parametrize("case", CHANGES)
def test_a_change_shows_as_in_a_union_of_one_side(sides, tmp_path, case):
    u = sides()
    CHANGES[case][0](u)
    one = tmp_path / "one"
    for name, tree in (("", {}), ("lower0", LOWER), ("upper", {}), ("work", {})):
        plant(one / name, tree)
    other = Driver(stack_in(one), Features(fsync="off"), one)
    CHANGES[case][0](other)
    assert u.tree() == other.tree()
    other.close()


@pytest.mark.parametrize(
    ("old", "new"),
    [("etc", "conf"), ("home", "h"), ("usr/bin", "etc"), ("usr", "var/usr"), ("var/lib", "lib"),
     ("home/ann", "home/bob"), ("var", "w")],
)  # fmt: skip
def test_no_directory_takes_names_to_the_other_side(sides, old, new):
    u = sides()
    with refusing(errno.EXDEV):
        u.rename(old, new)
    assert (harvest(u.upper), harvest(u.state)) == ({}, {})


def test_an_exchange_with_a_split_directory_is_refused(sides):
    u = sides()
    for names in (("usr", "etc"), ("etc", "usr"), ("etc/hosts", "home")):
        with refusing(errno.EXDEV):
            u.rename(*names, syscalls.RENAME_EXCHANGE)


def test_a_split_directory_is_empty_when_it_shows_no_name_of_either_side(sides):
    u = sides()
    for name in ("etc/hosts", "etc/ssh/key"):
        u.unlink(name)
    u.rmdir("etc/ssh")
    with refusing(errno.ENOTEMPTY):
        u.rmdir("etc")
    u.unlink("etc/passwd")
    u.rmdir("etc")
    assert not u.exists("etc")
    u.mkdir("etc")
    assert u.list("etc") == []
    u.create("etc/passwd", "again")
    assert u.tree("etc") == {"passwd": "again"}
    again = u.reboot()
    assert again.tree("etc") == {"hosts": "local", "passwd": "again"}


def test_a_change_of_a_persisted_name_is_seen_at_its_directory(sides):
    u = sides()
    layer, path = u.union.place(u.node("etc"))
    before = layer.stat(path).st_mtime_ns
    u.unlink("etc/passwd")
    assert u.stat("etc").st_mtime_ns > before
    assert u.stat("etc").st_mtime_ns == os.stat(u.state / "etc").st_mtime_ns


def test_after_a_reboot_persists_what_the_rules_say(sides):
    u = sides()
    u.write("etc/passwd", "ann")
    u.write("etc/hosts", "other")
    u.unlink("etc/ssh/key")
    u.create("var/log", "l")
    u.create("var/cache/new", "n")
    u.unlink("var/cache/old")
    u.write("usr/bin/ls", "evil")
    again = u.reboot()
    assert again.tree() == {
        "etc": {"passwd": "ann", "hosts": "local", "ssh": {}},
        "var": {"cache": {"old": "o"}, "lib": {"db": "data"}, "log": "l"},
        "home": {"ann": {"keep": "k", "junk": "j"}},
        "usr": {"bin": {"ls": "ls"}},
    }


def test_numbers_are_of_both_sides_together(sides):
    u = sides()
    numbers = {}
    for number in range(20):
        for path in (f"var/{number}", f"usr/{number}"):
            numbers[path] = u.create(path).ino
    assert len(set(numbers.values())) == 40
    assert {path: u.node(path).ino for path in numbers} == numbers


def test_a_directory_that_leads_to_what_persists_is_made_again(sides):
    u = sides(rules=("/new/*/keep", "/old/keep", "/a", "!/a/b", "/a/b/c"))
    for path in ("new", "new/one", "new/two", "new/two/keep", "a", "a/b", "a/b/c"):
        u.mkdir(path, 0o750)
    u.create("new/one/junk", "j")
    u.change("new/two", uid=7, mtime_ns=10**18)
    u.create("new/two/keep/file", "f")
    again = u.reboot()
    assert again.tree() == {**LOWER, "new": {"two": {"keep": {"file": "f"}}}, "a": {"b": {"c": {}}}}
    st = again.stat("new/two")
    assert (st.st_mode & 0o7777, st.st_uid) == (0o750, 0)
    again.unlink("new/two/keep/file")
    again.rmdir("new/two/keep")
    assert again.reboot().tree() == {**LOWER, "a": {"b": {"c": {}}}}


def test_what_persists_is_reached_though_the_lower_has_lost_its_way(sides, tmp_path):
    u = sides()
    u.write("etc/passwd", "ann")
    u.write("home/ann/keep", "kept")

    def upgrade():
        shutil.rmtree(tmp_path / "lower0" / "etc")
        (tmp_path / "lower0" / "etc").write_text("a file")
        shutil.rmtree(tmp_path / "lower0" / "home")

    again = u.reboot(upgrade)
    assert again.tree() == {
        **{name: LOWER[name] for name in ("var", "usr")},
        "etc": {"passwd": "ann"},
        "home": {"ann": {"keep": "kept"}},
    }
