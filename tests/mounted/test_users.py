"""Who may do what: the kernel decides by what the union shows of owners and modes."""

import os

import pytest

from tests.mounted.witness import as_user, failure
from tests.trees import File, harvest


def _closed(path):
    for name, bits in (("none", 0o700), ("look", 0o755), ("write", 0o777), ("sticky", 0o1777)):
        (path / name).chmod(bits)
    (path / "look/own").chmod(0o600)
    os.chown(path / "look/own", 65534, 65534)


ROOMS = {
    "none": {"f": "text"},
    "look": {"f": File("text", 0o644), "own": "text", "secret": File("", 0o600)},
    "write": {"f": "text", "d": {}},
    "sticky": {"f": "text"},
}


@pytest.mark.tree(ROOMS, prepare=_closed)
@pytest.mark.parametrize(
    ("call", "names", "error"),
    [
        (os.listdir, ["none"], "EACCES"),
        (os.stat, ["none/f"], "EACCES"),
        (os.listdir, ["look"], ""),
        (os.unlink, ["look/f"], "EACCES"),
        (os.unlink, ["look/own"], "EACCES"),
        (os.mkdir, ["look/new"], "EACCES"),
        (os.chmod, ["look/f", 0o777], "EPERM"),
        (os.chmod, ["look/own", 0o640], ""),
        (os.chown, ["look/own", 1, -1], "EPERM"),
        (os.utime, ["look/f", (1, 1)], "EPERM"),
        (os.utime, ["look/own", (1, 1)], ""),
        (os.open, ["look/f", os.O_WRONLY], "EACCES"),
        (os.open, ["look/secret", os.O_RDONLY], "EACCES"),
        (os.truncate, ["look/f", 0], "EACCES"),
        (os.setxattr, ["look/f", "user.a", b""], "EACCES"),
        (os.unlink, ["write/f"], ""),
        (os.rmdir, ["write/d"], ""),
        (os.unlink, ["sticky/f"], "EPERM"),
        (os.rename, ["sticky/f", "sticky/g"], "EPERM"),
        (os.rename, ["write/f", "look/g"], "EACCES"),
        (os.rename, ["write/f", "write/g"], ""),
        (os.mkdir, ["sticky/new"], ""),
        (os.mknod, ["write/null", 0o20666, os.makedev(1, 3)], "EPERM"),
    ],
)
def test_another_user_may_do_what_the_modes_allow(tree, call, names, error):
    words = [
        f"{tree}/{word}" if isinstance(word, str) and "." not in word else word for word in names
    ]
    if call is os.rename:
        words = [f"{tree}/{word}" for word in names]
    before = harvest(tree)
    assert failure(as_user, call, *words) == error
    if error:
        assert harvest(tree) == before


@pytest.mark.tree({"d": {}}, prepare=lambda path: (path / "d").chmod(0o777))
def test_new_things_belong_to_their_maker(tree):
    def make():
        (tree / "d/f").write_text("")
        (tree / "d/e").mkdir()
        (tree / "d/l").symlink_to("x")
        os.mkfifo(tree / "d/p")
        os.link(tree / "d/f", tree / "d/h")

    as_user(make, uid=1234, gid=4321)
    owners = {(os.lstat(tree / "d" / n).st_uid, os.lstat(tree / "d" / n).st_gid) for n in "felph"}
    assert owners == {(1234, 4321)}
    (tree / "d/root").write_text("")
    assert (tree / "d/root").stat().st_uid == 0


def _of_groups(path):
    os.chown(path / "f", 0, 4321)
    (path / "f").chmod(0o640)


@pytest.mark.tree({"f": "text"}, prepare=_of_groups)
def test_supplementary_groups_count(tree):
    assert as_user((tree / "f").read_text, groups=[4321]) == "text"
    assert failure(as_user, (tree / "f").read_text, groups=[4322]) == "EACCES"


@pytest.mark.tree({"f": File("text", 0o444)}, prepare=lambda p: os.chown(p / "f", 65534, 65534))
def test_a_file_that_is_read_only_for_its_owner_can_be_changed_by_root(tree):
    assert failure(as_user, os.open, tree / "f", os.O_WRONLY) == "EACCES"
    (tree / "f").write_text("new")
    as_user((tree / "f").chmod, 0o644)
    as_user((tree / "f").write_text, "own")
    st = (tree / "f").stat()
    assert (st.st_uid, st.st_mode & 0o777) == (65534, 0o644)


@pytest.mark.tree({"d": {"f": "text"}}, prepare=lambda p: os.chown(p / "d/f", 65534, 65534))
def test_what_a_user_writes_under_anothers_directory_is_copied_up_all_the_same(tree):
    as_user((tree / "d/f").write_text, "new")
    assert (tree / "d/f").read_text() == "new"
    assert (tree / "d").stat().st_uid == 0
    assert failure(as_user, os.unlink, tree / "d/f") == "EACCES"


@pytest.mark.tree({"f": "text"})
def test_access_2_tells_what_open_2_will_say(tree):
    (tree / "f").chmod(0o640)
    assert os.access(tree / "f", os.R_OK | os.W_OK)
    assert not os.access(tree / "f", os.X_OK)
    assert not as_user(os.access, tree / "f", os.R_OK)
    (tree / "f").chmod(0o755)
    assert as_user(os.access, tree / "f", os.R_OK | os.X_OK)
