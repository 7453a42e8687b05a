"""Attributes: modes, owners, times, extended attributes, lists of access."""

import os
import stat
import struct
import subprocess

import pytest

from tests.mounted.witness import as_user, failure
from tests.trees import File, Link

ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"
CAPABILITY = "security.capability"
CAP_NET_RAW = struct.pack(
    "<5I", 0x02000001, 1 << 13, 0, 0, 0
)  # vfs_cap_data, permitted + effective


def run(*words):
    return subprocess.run([str(word) for word in words], check=True, capture_output=True, text=True)


def acl(path):
    return run("getfacl", "-cEp", path).stdout.split()


def mode(path):
    return stat.S_IMODE(os.lstat(path).st_mode)


THINGS = {"f": "text", "d": {"x": ""}, "l": Link("f")}


@pytest.mark.tree(THINGS)
@pytest.mark.parametrize("name", ["f", "d"])
@pytest.mark.parametrize("bits", [0, 0o1777, 0o2755, 0o4755, 0o6777, 0o644])
def test_chmod_sets_all_twelve_bits(tree, name, bits):
    (tree / name).chmod(bits)
    assert mode(tree / name) == bits
    assert (tree / "d" / "x").read_text() == ""


@pytest.mark.tree(THINGS)
@pytest.mark.parametrize("name", ["f", "d", "l"])
def test_chown_sets_owner_and_group_of_the_thing_itself(tree, name):
    os.chown(tree / name, 1234, -1, follow_symlinks=False)
    os.chown(tree / name, -1, 4321, follow_symlinks=False)
    st = os.lstat(tree / name)
    assert (st.st_uid, st.st_gid) == (1234, 4321)
    others = {"f", "d", "l"} - {name}
    assert {os.lstat(tree / other).st_uid for other in others} == {0}


@pytest.mark.tree(THINGS)
@pytest.mark.parametrize("name", ["f", "d", "l"])
def test_times_have_nanoseconds(tree, name):
    times = (1234567890123456789, 987654321987654321)
    os.utime(tree / name, ns=times, follow_symlinks=False)
    st = os.lstat(tree / name)
    assert (st.st_atime_ns, st.st_mtime_ns) == times
    assert st.st_ctime_ns > times[0]


@pytest.mark.tree(THINGS)
def test_one_time_is_set_and_the_other_kept(tree):
    os.utime(tree / "f", ns=(111, 222))
    run("touch", "-m", "-d", "@5", tree / "f")
    assert (tree / "f").stat().st_atime_ns == 111
    assert (tree / "f").stat().st_mtime_ns == 5 * 10**9
    run("touch", "-a", tree / "f")
    assert (tree / "f").stat().st_atime_ns > 10**18
    assert (tree / "f").stat().st_mtime_ns == 5 * 10**9


@pytest.mark.tree(THINGS)
def test_changing_attributes_changes_ctime(tree):
    for change in (
        lambda f: f.chmod(0o600),
        lambda f: os.chown(f, 1, 1),
        lambda f: os.setxattr(f, "user.a", b""),
        lambda f: os.link(f, tree / "f2"),
        lambda f: f.with_name("f2").unlink(),
    ):
        before = (tree / "f").stat()
        change(tree / "f")
        after = (tree / "f").stat()
        assert after.st_ctime_ns > before.st_ctime_ns
        assert after.st_mtime_ns == before.st_mtime_ns


@pytest.mark.tree(THINGS)
@pytest.mark.parametrize("name", ["f", "d"])
@pytest.mark.parametrize("attribute", ["user.a", "trusted.a", "security.a"])
def test_extended_attributes_come_and_go(tree, name, attribute):
    path = tree / name
    assert failure(os.getxattr, path, attribute) == "ENODATA"
    assert failure(os.removexattr, path, attribute) == "ENODATA"
    assert failure(os.setxattr, path, attribute, b"1", os.XATTR_REPLACE) == "ENODATA"
    os.setxattr(path, attribute, b"one", os.XATTR_CREATE)
    assert failure(os.setxattr, path, attribute, b"2", os.XATTR_CREATE) == "EEXIST"
    os.setxattr(path, attribute, b"two", os.XATTR_REPLACE)
    os.setxattr(path, attribute + "b", b"")
    assert sorted(os.listxattr(path)) == [attribute, attribute + "b"]
    assert os.getxattr(path, attribute) == b"two"
    assert os.getxattr(path, attribute + "b") == b""
    os.removexattr(path, attribute)
    os.removexattr(path, attribute + "b")
    assert os.listxattr(path) == []


@pytest.mark.tree(THINGS)
def test_symlinks_and_special_files_take_no_user_attributes(tree):
    os.mkfifo(tree / "p")
    for name in ("l", "p"):
        assert failure(os.setxattr, tree / name, "user.a", b"", follow_symlinks=False) == "EPERM"
        os.setxattr(tree / name, "trusted.a", b"1", follow_symlinks=False)
        assert os.getxattr(tree / name, "trusted.a", follow_symlinks=False) == b"1"
    assert os.listxattr(tree / "f") == []  # the link was not followed


@pytest.mark.tree(THINGS)
def test_large_values_and_wrong_names(tree):
    os.setxattr(tree / "f", "user.big", b"x" * 3000)
    assert os.getxattr(tree / "f", "user.big") == b"x" * 3000
    assert failure(os.setxattr, tree / "f", "user." + "n" * 251, b"") == "ERANGE"
    assert failure(os.setxattr, tree / "f", "none.a", b"") == "EOPNOTSUPP"
    assert failure(os.setxattr, tree / "f", "user.a", b"x" * 65537) == "E2BIG"


@pytest.mark.tree(THINGS)
def test_trusted_attributes_are_for_root_alone(tree):
    (tree / "f").chmod(0o666)
    os.setxattr(tree / "f", "trusted.a", b"1")
    assert as_user(os.listxattr, tree / "f") == []
    assert failure(as_user, os.getxattr, tree / "f", "trusted.a") == "ENODATA"
    assert failure(as_user, os.setxattr, tree / "f", "trusted.a", b"2") == "EPERM"
    as_user(os.setxattr, tree / "f", "user.a", b"2")
    assert os.getxattr(tree / "f", "user.a") == b"2"


@pytest.mark.tree({"f": File("text", xattrs=(("user.a", b"1"), ("trusted.b", b"2")))})
def test_a_copied_file_keeps_its_attributes(tree):
    (tree / "f").write_text("new")
    (tree / "f").rename(tree / "g")
    os.setxattr(tree / "g", "user.c", b"3")
    assert {name: os.getxattr(tree / "g", name) for name in os.listxattr(tree / "g")} == {
        "user.a": b"1",
        "trusted.b": b"2",
        "user.c": b"3",
    }


@pytest.mark.unions_only
@pytest.mark.tree({"f": "text", "d": {"e": {}}})
def test_attributes_of_the_union_do_not_show_and_those_of_users_do(tree):
    (tree / "d").rename(tree / "D")
    (tree / "f").chmod(0o600)
    (tree / "D/e").rmdir()
    (tree / "D/e").mkdir()
    for name in (".", "f", "D", "D/e"):
        assert os.listxattr(tree / name) == []
        assert failure(os.getxattr, tree / name, "trusted.overlay.opaque") == "ENODATA"
        os.setxattr(tree / name, "trusted.overlay.opaque", b"mine")
        assert os.listxattr(tree / name) == ["trusted.overlay.opaque"]
        assert os.getxattr(tree / name, "trusted.overlay.opaque") == b"mine"
    assert os.listdir(tree / "D") == ["e"]


def _with_default_acl(path):
    run("setfacl", "-d", "-m", "u:1234:rwx,g::rx,o::-", path / "d")


# Without the handshake FUSE_DONT_MASK cannot be had: the kernel applies the umask itself.
@pytest.mark.without("handshake=off")
@pytest.mark.tree({"d": {}}, prepare=_with_default_acl)
def test_default_acls_are_inherited_and_no_umask_applies(tree):
    umask = os.umask(0o077)
    (tree / "d/f").write_text("")
    (tree / "d/e").mkdir()
    os.umask(umask)
    assert acl(tree / "d/f") == [
        "user::rw-",
        "user:1234:rwx",
        "group::r-x",
        "mask::rw-",
        "other::---",
    ]
    assert mode(tree / "d/f") == 0o660
    assert acl(tree / "d/e")[5:] == [f"default:{entry}" for entry in acl(tree / "d/e")[:5]]
    assert mode(tree / "d/e") == 0o770


@pytest.mark.without("handshake=off")  # as above
@pytest.mark.tree({"d": {"f": "old", "e": {}}}, prepare=_with_default_acl)
def test_default_acls_are_inherited_over_what_was_deleted(tree):
    (tree / "d/f").unlink()
    (tree / "d/e").rmdir()
    (tree / "d/f").write_text("new")
    (tree / "d/e").mkdir()
    assert acl(tree / "d/f")[1] == "user:1234:rwx"
    assert mode(tree / "d/f") == 0o660
    assert acl(tree / "d/e")[5:] == [f"default:{entry}" for entry in acl(tree / "d/e")[:5]]


@pytest.mark.tree({"d": {}})
@pytest.mark.parametrize(("umask", "file", "directory"), [(0, 0o666, 0o777), (0o27, 0o640, 0o750)])
def test_the_umask_applies_where_no_default_acl_is(tree, umask, file, directory):
    before = os.umask(umask)
    (tree / "d/f").write_text("")
    (tree / "d/e").mkdir()
    os.mkfifo(tree / "d/p")
    os.umask(before)
    assert [mode(tree / "d" / name) for name in "fep"] == [file, directory, file]


@pytest.mark.tree({"f": "text"})
def test_an_access_acl_is_obeyed_and_moves_the_group_bits(tree):
    (tree / "f").chmod(0o600)
    run("setfacl", "-m", "u:1234:r", tree / "f")
    assert mode(tree / "f") == 0o640
    assert as_user((tree / "f").read_text, uid=1234) == "text"
    assert failure(as_user, (tree / "f").read_text, uid=1235) == "EACCES"
    (tree / "f").chmod(0o600)  # the mask
    assert failure(as_user, (tree / "f").read_text, uid=1234) == "EACCES"
    run("setfacl", "-b", tree / "f")
    assert os.listxattr(tree / "f") == []


@pytest.mark.tree({"f": "text"}, prepare=lambda path: run("setfacl", "-m", "u:9:rw", path / "f"))
def test_an_acl_goes_with_the_file(tree):
    before = acl(tree / "f")
    (tree / "f").write_text("new")
    (tree / "f").rename(tree / "g")
    assert acl(tree / "g") == before


# Privileges that fall


def _privileged(bits):
    def prepare(path):
        os.chown(path / "f", 65534, 65534)
        (path / "f").chmod(bits)

    return prepare


def _write(path):
    with open(path, "r+b", buffering=0) as file:
        file.write(b"x")


def _open_and_truncate(path):
    os.close(os.open(path, os.O_WRONLY | os.O_TRUNC))


def _truncate(path):
    os.truncate(path, 1)


def _ftruncate(path):
    with open(path, "r+b") as file:
        file.truncate(1)


def _chown_to_oneself(path):
    os.chown(path, 65534, 65534)


CHANGES = (_write, _open_and_truncate, _truncate, _ftruncate, _chown_to_oneself)


@pytest.mark.tree({"f": "text"}, prepare=_privileged(0o6777))
@pytest.mark.parametrize("change", CHANGES)
def test_set_id_bits_fall_when_a_user_changes_a_file(tree, change):
    as_user(change, tree / "f")
    assert mode(tree / "f") == 0o777


@pytest.mark.tree({"f": "text"}, prepare=_privileged(0o6777))
@pytest.mark.parametrize("change", [_write, _truncate, _ftruncate, _open_and_truncate])
def test_set_id_bits_stay_when_root_writes(tree, change):
    change(tree / "f")
    assert mode(tree / "f") == 0o6777


@pytest.mark.tree({"f": "text"}, prepare=_privileged(0o6777))
def test_set_id_bits_fall_when_root_gives_a_file_away(tree):
    os.chown(tree / "f", 1, 1)
    assert mode(tree / "f") == 0o777


def _allocate(path):
    with open(path, "r+b") as file:
        os.posix_fallocate(file.fileno(), 0, 8192)


def _everybodys(path):
    (path / "f").chmod(0o6777)


@pytest.mark.tree({"f": "text"}, prepare=_everybodys)
@pytest.mark.parametrize("change", [_write, _open_and_truncate, _truncate, _ftruncate, _allocate])
def test_set_id_bits_fall_when_a_user_changes_anothers_file(tree, change):
    as_user(change, tree / "f")
    assert mode(tree / "f") == 0o777


@pytest.mark.tree({"f": "text" * 100_000}, prepare=lambda path: (path / "f").chmod(0o755))
def test_set_id_bits_fall_when_a_user_writes_by_roots_descriptor(tree):
    with open(tree / "f", "r+b", buffering=0) as file:
        os.fchmod(file.fileno(), 0o6755)
        assert as_user(file.write, b"x") == 1
        assert mode(tree / "f") == 0o755


@pytest.mark.tree({"f": "text"}, prepare=_everybodys)
@pytest.mark.without("noopen=on")  # the bits stay there, too, without the error: test_limits
def test_set_id_bits_of_anothers_file_stay_at_a_chown_that_names_nobody(tree):
    assert failure(as_user, os.chown, tree / "f", -1, -1) == "EPERM"
    assert mode(tree / "f") == 0o6777


def _open_for_writing_and_chown(path):
    for _ in range(50):
        with open(path, "r+b"):
            pass
        assert failure(os.chown, path, -1, -1) == "EPERM"


@pytest.mark.tree({"f": "text"}, prepare=_everybodys)
@pytest.mark.without("noopen=on")  # as above
def test_who_has_closed_a_file_writes_to_it_no_more(tree):
    as_user(_open_for_writing_and_chown, tree / "f")
    assert mode(tree / "f") == 0o6777


@pytest.mark.tree({"f": "text"}, prepare=_privileged(0o2767))
def test_set_gid_without_execute_is_no_privilege_for_its_group(tree):
    as_user(_write, tree / "f")
    assert mode(tree / "f") == 0o2767


def _capable(path):
    _privileged(0o777)(path)
    os.setxattr(path / "f", CAPABILITY, CAP_NET_RAW)


@pytest.mark.tree({"f": "text"}, prepare=_capable)
def test_a_capability_shows_and_moves_along(tree):
    (tree / "f").chmod(0o755)
    (tree / "f").rename(tree / "g")
    assert os.getxattr(tree / "g", CAPABILITY) == CAP_NET_RAW
    assert "cap_net_raw" in run("getcap", tree / "g").stdout


@pytest.mark.tree({"f": "text"}, prepare=_capable)
@pytest.mark.parametrize("who", ["user", "root"])
@pytest.mark.parametrize("change", [_write, _open_and_truncate, _truncate, _ftruncate])
def test_a_capability_falls_when_the_file_changes(tree, change, who):
    if who == "user":
        as_user(change, tree / "f")
    else:
        change(tree / "f")
    assert os.listxattr(tree / "f") == []
    assert mode(tree / "f") == 0o777


@pytest.mark.tree({"f": "text"}, prepare=_capable)
def test_a_capability_falls_when_the_owner_changes(tree):
    os.chown(tree / "f", 1, 1)
    assert os.listxattr(tree / "f") == []


def _shared_directory(path):
    os.chown(path / "d", 0, 4321)
    (path / "d").chmod(0o2777)


@pytest.mark.tree({"d": {}}, prepare=_shared_directory)
def test_new_things_in_a_set_gid_directory_belong_to_its_group(tree):
    def make():
        (tree / "d/f").write_text("")
        (tree / "d/e").mkdir()
        (tree / "d/l").symlink_to("x")
        os.mkfifo(tree / "d/p")

    as_user(make)
    assert {name: os.lstat(tree / "d" / name).st_gid for name in "felp"} == dict.fromkeys(
        "felp", 4321
    )
    assert mode(tree / "d/e") == 0o2755
    assert {os.lstat(tree / "d" / name).st_uid for name in "felp"} == {65534}


@pytest.mark.tree({"d": {"f": "old", "e": {}}}, prepare=_shared_directory)
def test_and_so_do_those_made_over_what_was_deleted(tree):
    (tree / "d/f").unlink()
    (tree / "d/e").rmdir()
    as_user((tree / "d/f").write_text, "new")
    as_user((tree / "d/e").mkdir)
    for name in "fe":
        st = (tree / "d" / name).stat()
        assert (st.st_uid, st.st_gid) == (65534, 4321)
    assert mode(tree / "d/e") == 0o2755


@pytest.mark.tree({"f": "text"}, prepare=_privileged(0o755))
def test_a_user_outside_the_group_cannot_make_a_file_set_gid(tree):
    os.chown(tree / "f", 65534, 4321)
    as_user((tree / "f").chmod, 0o2755)
    assert mode(tree / "f") == 0o755
