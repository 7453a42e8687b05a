"""Operations of several steps, each of which may fail: all is as it was, or all is done.

`tests/crash/test_faults.py` lets every call of many operations fail; here is what went wrong
once, each by itself.
"""

import contextlib
import errno
import functools
import os

import pytest

from tests.core.changes.test_changes import failing
from tests.trees import WHITEOUT, Opaque, harvest
from unionfs.changes.attributes import NewAttributes
from unionfs.changes.changes import Caller
from unionfs.host import syscalls
from unionfs.host.credentials import Credentials, Requester
from unionfs.layers import mount_record
from unionfs.layers.staging import Staging

MODULES = {"renameat2": syscalls}
FORMATS = pytest.mark.parametrize("whiteout", ["overlay", "aufs"])


@pytest.fixture
def broken(monkeypatch):
    """Make some system calls fail with EIO for a while, or *times* only."""

    @contextlib.contextmanager
    def broken(*names, times=1000):
        left = [None] * times
        with monkeypatch.context() as patch:
            for name in names:
                module = MODULES.get(name, os)
                patch.setattr(module, name, functools.partial(call, getattr(module, name), left))
            yield

    def call(function, left, *arguments, **words):
        if not left:
            return function(*arguments, **words)
        left.pop()
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    return broken


LOWER = {"d": {"a": "1", "b": "2"}, "s": {"f": "3"}}


@pytest.fixture
def emptied(union, whiteout):
    """A union whose directory `d` has lost its names one by one, and is known to the kernel."""
    u = union({}, LOWER, whiteout=whiteout)
    u.list("d")
    u.unlink("d/a")
    u.unlink("d/b")
    u.change("s", mode=0o700)  # it is in upper: a rename of it is one step
    return u


@FORMATS
@pytest.mark.parametrize("calls", [["rename", "renameat2"], ["unlink"], ["setxattr", "mknod"]])
def test_a_failed_rename_over_an_emptied_directory_brings_no_name_back(emptied, broken, calls):
    before = emptied.stat("d").st_mtime_ns
    with broken(*calls):
        failing(errno.EIO, emptied.rename, "s", "d")
    for u in (emptied, emptied.remount()):
        assert u.tree() == {"d": {}, "s": {"f": "3"}}
        assert u.stat("d").st_mtime_ns == before or "unlink" in calls
    emptied.rename("s", "d")
    assert emptied.tree() == {"d": {"f": "3"}}


@FORMATS
def test_nor_does_one_over_an_emptied_directory_that_was_moved(emptied, broken):
    emptied.rename("d", "moved")
    with broken("rename", "renameat2"):
        failing(errno.EIO, emptied.rename, "s", "moved")
    for u in (emptied, emptied.remount()):
        assert u.tree() == {"moved": {}, "s": {"f": "3"}}
    emptied.rmdir("moved")


@FORMATS
@pytest.mark.parametrize("calls", [["unlink", "rename"], ["rmdir"]])
def test_nor_a_failed_rmdir_of_a_directory_that_was_moved(emptied, broken, calls):
    emptied.rename("d", "moved")
    with broken(*calls):
        failing(errno.EIO, emptied.rmdir, "moved")
    for u in (emptied, emptied.remount()):
        assert u.tree() == {"moved": {}, "s": {"f": "3"}}
    emptied.rmdir("moved")
    assert emptied.list() == ["s"]


def test_nor_does_one_over_an_opaque_directory_that_has_kept_its_redirect(union, broken):
    """As after an error at the end of bringing it up as a whole."""
    u = union({"d": {".wh..wh..opq": ""}, "s": {}}, {"low": {"f": "hidden"}}, whiteout="aufs")
    os.setxattr(u.upper / "d", "trusted.overlay.redirect", b"/low")
    u = u.remount()
    with broken("rename"):
        failing(errno.EIO, u.rename, "s", "d")
    for again in (u, u.remount()):
        assert again.tree() == {"d": {}, "s": {}, "low": {"f": "hidden"}}


def test_whiteouts_that_stay_in_a_directory_brought_up_as_a_whole_say_nothing(
    union, broken, caplog
):
    u = union({}, LOWER, redirect_dir=False, metacopy=False)
    u.unlink("d/a")
    with broken("unlink"):
        u.rename("d", "moved")
    assert (u.list("moved"), u.remount().list("moved")) == (["b"], ["b"])
    assert "keeps whiteouts" in caplog.text
    os.unlink(u.upper / "moved/a")


def test_an_older_whiteout_beside_a_directory_outlives_a_failed_rename(union, broken):
    u = union({"d": {"own": "1"}, ".wh.d": ""}, {}, {"d": {"gone": "x"}}, whiteout="aufs")
    with broken("rename"):
        failing(errno.EIO, u.rename, "d", "new")
    assert u.remount().tree() == {"d": {"own": "1"}}
    os.unlink(u.upper / "d/own")
    os.rmdir(u.upper / "d")


def test_a_whiteout_beside_a_directory_that_was_moved_says_nothing(union):
    u = union({}, {}, {"d": {"f": "1"}}, whiteout="aufs")
    u.rename("d", "e")
    (u.upper / ".wh.e").touch()  # as after a crash before the end of a rename
    assert u.remount().tree() == {"e": {"f": "1"}}
    (u.upper / ".wh.e").unlink()


@pytest.mark.parametrize("lower", [{}, {"o": {"x": "below"}}])
@pytest.mark.parametrize(
    "make",
    [
        lambda u: u.create("o/x"),
        lambda u: u.mkdir("o/x"),
        lambda u: u.link("f", "o/x"),
        lambda u: u.rename("f", "o/x"),
        lambda u: u.rename("d", "o/x"),
    ],
)
def test_a_whiteout_that_hides_nothing_is_in_nobodys_way(union, lower, make):
    u = union({"o": Opaque({"x": WHITEOUT}), "f": "1", "d": {}}, lower)
    make(u)
    assert u.list("o") == ["x"]
    assert u.remount().list("o") == ["x"]


def test_a_whiteout_that_cannot_be_removed_after_a_rename_stays(union, broken, caplog):
    u = union({"d": {"f": "1"}, "t": WHITEOUT}, {"t": "below"})
    with broken("unlink"):
        u.rename("d", "t")
    assert u.tree() == u.remount().tree() == {"t": {"f": "1"}}
    assert "is left" in caplog.text
    u.create("d")


@pytest.mark.parametrize("kind", ["create", "mkdir", "symlink"])
def test_what_was_made_by_way_of_work_is_made_though_work_is_not_tidied(
    union, monkeypatch, caplog, kind
):
    u = union({"d": {"x": WHITEOUT}}, {"d": {"x": "below"}})
    os.chown(u.upper / "d", 0, 7)
    (u.upper / "d").chmod(0o2755)  # so it takes a stand-in
    with monkeypatch.context() as patch:
        patch.setattr(Staging, "discard", lambda *_: os.rmdir("/nonexistent"))
        {"create": u.create, "mkdir": u.mkdir, "symlink": lambda p: u.symlink(p, "to")}[kind]("d/x")
    assert u.list("d") == ["x"]
    assert "left in work" in caplog.text
    assert u.remount().list("d") == ["x"]


@pytest.mark.parametrize("under", [{}, {"n": WHITEOUT}])
@pytest.mark.parametrize("kind", ["mkdir", "mknod", "symlink", "link"])
def test_what_cannot_be_looked_at_after_it_was_made_is_taken_back(union, monkeypatch, under, kind):
    u = union({**under, "f": "1"}, {"n": "below"} if under else {})
    make = {
        "mkdir": u.mkdir,
        "mknod": u.mknod,
        "symlink": lambda path: u.symlink(path, "to"),
        "link": lambda path: u.link("f", path),
    }[kind]
    made = type(u.union.upper.layer).stat
    seen = "f" if kind == "link" else "n"

    def stat(layer, path):
        seen_now = layer is u.union.upper.layer and path == seen.encode()
        if seen_now and os.path.lexists(u.upper / "n"):
            st = os.lstat(u.upper / "n")
            if st.st_rdev or st.st_mode & 0o170000 != 0o020000:  # it is no whiteout
                failed.append(path)
                if len(failed) == 1:
                    raise OSError(errno.EIO, "no attributes")
        return made(layer, path)

    failed, before = [], harvest(u.upper)
    with monkeypatch.context() as patch:
        patch.setattr(type(u.union.upper.layer), "stat", stat)
        failing(errno.EIO, make, "n")
    assert failed
    assert harvest(u.upper) == before
    assert u.tree() == {"f": "1"}


def test_of_several_attributes_all_are_changed_or_none(union, broken):
    u = union({"f": "text"}, {})
    path = u.upper / "f"
    os.chown(path, 5, 6)
    path.chmod(0o4755)
    capability = bytes.fromhex("0100000202000000000000000000000000000000")
    os.setxattr(path, "security.capability", capability)
    before = u.stat("f")
    with broken("chmod", times=1):
        failing(errno.EIO, u.change, "f", uid=7, gid=8, mode=0o600)
    with broken("ftruncate"):
        failing(errno.EIO, u.change, "f", size=1, mode=0o600)
    with broken("utime"):
        failing(errno.EIO, u.change, "f", mode=0o600, atime_ns=1, mtime_ns=1)
    st = u.stat("f")
    assert st[:3] + st[4:7] == before[:3] + before[4:7]
    assert st.st_mtime_ns == before.st_mtime_ns
    assert os.getxattr(path, "security.capability") == capability
    u.change("f", uid=7, gid=8, mode=0o600)
    assert path.stat()[4:6] == (7, 8)


def test_where_only_the_end_of_an_undoing_fails_it_is_told(union, broken, caplog):
    u = union({"f": "text"}, {})
    with broken("chmod"):
        failing(errno.EIO, u.change, "f", uid=7, mode=0o600)
    assert "has only some of its new attributes" in caplog.text
    assert u.stat("f").st_uid == u.remount().stat("f").st_uid


def test_a_size_that_was_set_is_no_error_though_the_times_are(union, broken, caplog):
    u = union({"f": "text"}, {})
    with broken("utime"):
        u.change("f", size=1, mtime_ns=1)
    assert u.read("f") == "t"
    assert "has its new size, but not its new times" in caplog.text


def test_an_upper_at_its_quota_is_mounted(union, monkeypatch, caplog):
    u = union({"f": "1"}, {})

    def full(*_arguments):
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    with monkeypatch.context() as patch:
        patch.setattr(mount_record, "set_layers", full)
        assert u.remount().tree() == {"f": "1"}
    assert "no room" in caplog.text


ACL = b"system.posix_acl_access"
# acl(5), linux/posix_acl_xattr.h: the owner rwx, the group r-x, others r-x.
MINIMAL = bytes.fromhex("02000000") + b"".join(
    bytes.fromhex(entry) for entry in ("01000700ffffffff", "04000500ffffffff", "20000500ffffffff")
)
STRANGER = Requester(1000, 1000, 0)  # whose groups nobody can tell


class Bare(Requester):
    """Somebody without groups and capabilities."""

    def credentials(self):
        return Credentials(self.uid, frozenset(), 0)


def cut(u, node):
    with u.attributes.privileges_dropped(node, STRANGER):
        u.attributes.change(node, NewAttributes(size=1))


@pytest.mark.parametrize(
    ("mode", "call", "change"),
    [
        (0o2755, "setxattr", lambda u, node: u.attributes.set(node, ACL, MINIMAL, 0, STRANGER)),
        (
            0o2745,
            "chmod",
            lambda u, node: u.attributes.change(node, NewAttributes(gid=7), -1, STRANGER),
        ),
        (0o6755, "ftruncate", cut),
    ],
)
def test_bits_that_fall_come_back_where_the_change_fails(union, broken, mode, call, change):
    u = union({"f": "text"}, {})
    (u.upper / "f").chmod(mode)
    before = u.stat("f")
    with broken(call, times=1):
        failing(errno.EIO, change, u, u.node("f"))
    assert u.stat("f")[:7] == before[:7]
    change(u, u.node("f"))
    assert u.stat("f").st_mode & 0o7777 == mode & 0o777


def test_bits_that_do_not_come_back_are_told_of(union, broken, caplog):
    u = union({"f": "text"}, {})
    (u.upper / "f").chmod(0o6755)
    dropped = u.attributes.privileges_dropped(u.node("f"), STRANGER)
    dropped.__enter__()
    error = OSError(errno.EIO, os.strerror(errno.EIO))
    with broken("chmod"):
        assert not dropped.__exit__(OSError, error, None)  # it is raised on
    assert "has lost its set-uid bits" in caplog.text


def test_set_gid_that_stays_with_a_file_given_away_by_root_is_told_of(union, broken, caplog):
    """Root's chown(2) is one step, so nothing is known of what was there before."""
    u = union({"f": "text"}, {})
    (u.upper / "f").chmod(0o2745)
    with broken("chmod"):
        st = u.attributes.change(u.node("f"), NewAttributes(gid=7), -1, Bare(0, 0, 0))
    assert (st.st_gid, st.st_mode & 0o7777) == (7, 0o2745)
    assert "still set-gid" in caplog.text


@FORMATS
def test_what_the_union_makes_for_itself_is_roots(union, whiteout):
    """Whoever made something last pays nothing for it, though the host takes us for that one."""
    u = union({"own": {}}, {"f": "1", "g": "2", "d": {"h": "3"}}, whiteout=whiteout)
    u.create("own/by-a-user", caller=Caller(1000, 1000, 0o22))
    u.unlink("f")
    u.rename("g", "own/g")
    u.rename("d", "own/d")
    found = {path.lstat().st_uid for path in u.upper.rglob("*") if path.name != "by-a-user"}
    assert found == {0}
    assert (u.upper / "own/by-a-user").stat().st_uid == 1000
