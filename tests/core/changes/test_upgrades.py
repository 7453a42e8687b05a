"""What persists when the image below is upgraded, and what `unionfs diff --state` tells of it."""

import errno
import os
import shutil

import pytest

from tests.trees import Link, harvest, plant
from unionfs.audit import upgrades
from unionfs.host import syscalls

RULES = ("/etc/passwd", "/etc/ssh", "/etc/link", "/etc/large", "/etc/fresh")
LOWER = {
    "etc": {
        "passwd": "root", "npasswd": "", "hosts": "local", "link": Link("a"), "large": "",
        "ssh": {"key": "secret", "config": "c", "sub": {"x": "x"}},
    }
}  # fmt: skip


@pytest.fixture
def upgraded(union):
    """Change a union, mount it over an upgraded image, and tell what persists."""

    def upgraded(change, upgrade, rules=RULES):
        u = union({}, LOWER, rules=rules)
        change(u)
        u = u.reboot(lambda: made_anew(u.directory / "lower0", upgrade))
        return [one.line() for one in upgrades.persisted(u.stack.state, u.stack)]

    return upgraded


def made_anew(lower, upgrade):
    """Make an image with the same files, which are all other inodes of another time."""
    shutil.copytree(lower, f"{lower}.new", symlinks=True, copy_function=shutil.copy)
    shutil.rmtree(lower)
    os.rename(f"{lower}.new", lower)
    upgrade(lower)


def write(path, text):
    """Return an upgrade that writes one file."""

    def upgrade(lower):
        (lower / path).unlink(missing_ok=True)
        (lower / path).write_text(text)
        (lower / path).chmod(0o644)

    return upgrade


def remove(path):
    return lambda lower: (lower / path).unlink()


def nothing(_lower):
    pass


def replace(u, path, text):
    """Replace a file as editors do."""
    u.create(f"{path}.new", text)
    u.rename(f"{path}.new", path)


CHANGES = {  # name: (what is changed, the image's upgrade, what is told then)
    "written, the lower is the same": (
        lambda u: u.write("etc/passwd", "mine"),
        nothing,
        ["changed  /etc/passwd (content)"],
    ),
    "written, the lower is new": (
        lambda u: u.write("etc/passwd", "mine"),
        write("etc/passwd", "theirs"),
        ["changed  /etc/passwd (content); differs from the new lower"],
    ),
    "attributes alone: the content persists with them, or it would be cut": (
        lambda u: u.change("etc/passwd", mode=0o600),
        write("etc/passwd", "theirs"),
        ["changed  /etc/passwd (content, mode 0644 -> 0600); differs from the new lower"],
    ),
    "replaced, the lower is the same": (
        lambda u: replace(u, "etc/ssh/config", "mine"),
        nothing,
        ["changed  /etc/ssh/config (content)"],
    ),
    "replaced twice, the lower is new": (
        lambda u: (replace(u, "etc/ssh/config", "mine"), replace(u, "etc/ssh/config", "more")),
        write("etc/ssh/config", "theirs"),
        ["changed  /etc/ssh/config (content); differs from the new lower"],
    ),
    "replaced from scratch, as passwd does, the lower is the same": (
        lambda u: (u.create("etc/npass", "mine"), u.rename("etc/npass", "etc/passwd")),
        nothing,
        ["changed  /etc/passwd (content)"],
    ),
    "replaced from scratch, the lower is new": (
        lambda u: (u.create("etc/npass", "mine"), u.rename("etc/npass", "etc/passwd")),
        write("etc/passwd", "theirs"),
        ["changed  /etc/passwd (content); differs from the new lower"],
    ),
    "deleted, the lower is the same": (
        lambda u: u.unlink("etc/ssh/key"),
        nothing,
        ["deleted  /etc/ssh/key"],
    ),
    "deleted, the lower is new": (
        lambda u: u.unlink("etc/ssh/key"),
        write("etc/ssh/key", "theirs"),
        ["deleted  /etc/ssh/key; differs from the new lower"],
    ),
    "deleted and made anew, the lower is new": (
        lambda u: (u.unlink("etc/passwd"), u.create("etc/passwd", "mine")),
        write("etc/passwd", "theirs"),
        ["changed  /etc/passwd (content); differs from the new lower"],
    ),
    "exchanged, one is new": (
        lambda u: (
            u.write("etc/ssh/key", "k"),
            u.write("etc/ssh/config", "c2"),
            u.rename("etc/ssh/key", "etc/ssh/config", syscalls.RENAME_EXCHANGE),
        ),
        write("etc/ssh/key", "theirs"),
        [
            "changed  /etc/ssh/config (content)",
            "changed  /etc/ssh/key (content); differs from the new lower",
        ],
    ),
    "changed, gone from the lower": (
        lambda u: u.write("etc/passwd", "mine"),
        remove("etc/passwd"),
        ["added    /etc/passwd; gone from the lower"],
    ),
    "the lower has what was made of it": (
        lambda u: replace(u, "etc/ssh/config", "theirs"),
        write("etc/ssh/config", "theirs"),
        ["changed  /etc/ssh/config (mtime)"],
    ),
    "made, where the lower had nothing": (
        lambda u: u.create("etc/ssh/host", "mine"),
        nothing,
        ["added    /etc/ssh/host; only here"],
    ),
    "made, and the lower has one now": (
        lambda u: u.create("etc/fresh", "mine"),
        write("etc/fresh", "theirs"),
        ["changed  /etc/fresh (content); the lower has one, too; what it had before is not known"],
    ),
    "what does not persist is not told": (
        lambda u: (u.write("etc/hosts", "mine"), u.create("etc/new", "")),
        write("etc/hosts", "theirs"),
        [],
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_hides_something_new_is_told(upgraded, name):
    change, upgrade, expected = CHANGES[name]
    told = upgraded(change, upgrade)
    assert told == expected


def test_a_file_of_which_only_attributes_changed_is_whole_after_an_upgrade(union):
    u = union({}, LOWER, rules=RULES)
    u.change("etc/passwd", mode=0o600)
    u = u.reboot(lambda: write("etc/passwd", "longer than it was")(u.directory / "lower0"))
    assert u.read("etc/passwd") == "root"


def test_a_symlink_is_told_by_its_target(upgraded):
    def change(u):
        u.unlink("etc/link")
        u.symlink("etc/link", "mine")

    def upgrade(lower):
        (lower / "etc/link").unlink()
        (lower / "etc/link").symlink_to("theirs")

    new = "changed  /etc/link (target); differs from the new lower"
    assert upgraded(change, upgrade) == [new]


def test_a_symlink_that_the_upgrade_leaves_alone_is_only_changed(upgraded):
    def change(u):
        u.unlink("etc/link")
        u.symlink("etc/link", "mine")

    assert upgraded(change, nothing) == ["changed  /etc/link (target)"]


def test_a_change_that_failed_is_no_first_one(union):
    """The file is as it was; what counts is what there is when it is changed at last."""
    u = union({}, LOWER, rules=RULES)
    with pytest.raises(FileExistsError):
        u.create("etc/ssh/key", "")
    u = u.reboot(lambda: write("etc/ssh/key", "second")(u.directory / "lower0"))
    u.write("etc/ssh/key", "mine")
    u = u.reboot(lambda: write("etc/ssh/key", "third")(u.directory / "lower0"))
    (only,) = upgrades.persisted(u.stack.state, u.stack)
    assert only.below is upgrades.Below.NEW
    assert harvest(u.state) == {"etc": {"ssh": {"key": "mine"}}}


def test_a_full_state_makes_no_change_fail_for_want_of_its_memory(union):
    u = union({}, LOWER, rules=RULES)
    plant(u.state_work, {"unionfs": {"first": ""}})  # no directory: nothing can be remembered
    u.write("etc/passwd", "mine")
    u.unlink("etc/ssh/key")
    assert u.read("etc/passwd") == "mine"


TREES = {
    "var": {
        "lib": {"a": "a", "deep": {"b": "b", "c": {"d": "d"}}, "one": Link("x"), "gone": "g"},
        "db": {"rows": "1"},
        "empty": {},
    },
    "usr": {"x": ""},
}  # fmt: skip

RENAMES = {  # name: (what is renamed where /var persists, what persists of it, or all)
    "in its directory": (lambda u: u.rename("var/lib", "var/new"), {"new": all}),
    "to another directory": (
        lambda u: u.rename("var/lib/deep", "var/deep"),
        {"lib": {}, "deep": all},
    ),
    "below one that is renamed later": (
        lambda u: (u.rename("var/lib/deep", "var/db/deep"), u.rename("var/db", "var/rows")),
        {"lib": {}, "rows": all},
    ),
    "below one that was renamed before": (
        lambda u: (u.rename("var/lib", "var/new"), u.rename("var/new/deep", "var/new/less")),
        {"new": all},
    ),
    "with its content changed": (
        lambda u: (
            u.write("var/lib/a", "mine"),
            u.unlink("var/lib/gone"),
            u.rename("var/lib", "var/new"),
            u.create("var/new/more", "m"),
        ),
        {"new": all},
    ),
    "over an empty one": (lambda u: u.rename("var/lib", "var/empty"), {"empty": all}),
    "exchanged": (
        lambda u: u.rename("var/lib", "var/db", syscalls.RENAME_EXCHANGE),
        {"lib": all, "db": all},
    ),
    "there and back": (
        lambda u: (u.rename("var/lib", "var/1"), u.rename("var/1", "var/lib")),
        {"lib": all},
    ),
    "files": (
        lambda u: (u.rename("var/lib/a", "var/lib/b"), u.rename("var/lib/gone", "var/gone")),
        {"lib": {"b": "a"}, "gone": all},
    ),
}


@pytest.mark.parametrize("name", RENAMES)
def test_what_was_renamed_is_whole_after_an_upgrade_that_has_lost_it(union, name):
    change, persists = RENAMES[name]
    u = union({}, TREES, rules=("/var",))
    change(u)
    before = u.tree("var")
    u = u.reboot(lambda: made_anew(u.directory / "lower0", empty_var))
    assert u.tree("var") == {
        name: before[name] if what is all else what for name, what in persists.items()
    }


def empty_var(lower):
    shutil.rmtree(lower / "var")
    (lower / "var").mkdir()


def test_a_directory_too_large_to_be_copied_meanwhile_is_left_to_mv(union):
    """mv(1) copies after EXDEV, and keeps nobody waiting."""
    large = {"var": {"lib": {str(number): "" for number in range(1100)}, "mine": {}}}
    u = union({}, large, rules=("/var",))
    with pytest.raises(OSError, match=rf"Errno {errno.EXDEV}\b"):
        u.rename("var/lib", "var/new")
    assert harvest(u.state) == {"var": {}}
    u.mkdir("var/mine/large")
    for number in range(1100):
        u.create(f"var/mine/large/{number}")
    u.rename("var/mine/large", "var/large")
    assert len(u.list("var/large")) == 1100


@pytest.mark.parametrize(
    "change",
    [
        lambda u: u.write("var/b", "mine"),
        lambda u: (u.node("var/a"), u.node("var/b"), u.write("var/b", "mine")),
        lambda u: (u.write("var/a", "first"), u.write("var/b", "mine")),
        lambda u: (u.change("var/a", mode=0o600), u.write("var/b", "mine")),
    ],
)
def test_what_was_written_by_one_name_of_a_lower_file_persists_under_it(union, change):
    """A file of several names has one copy, which not all of them have in state."""
    u = union({}, {"var": {"a": "low", "z": ""}}, rules=("/var",))
    os.link(u.directory / "lower0/var/a", u.directory / "lower0/var/b")
    change(u)
    u = u.reboot(lambda: made_anew(u.directory / "lower0", write("var/b", "theirs")))
    assert u.read("var/b") == "mine"
