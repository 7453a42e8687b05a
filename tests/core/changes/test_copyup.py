"""Copy-up: what is copied, when, and who sees it."""

import errno
import os

import pytest

from tests.trees import Same, harvest
from unionfs.host import content, syscalls

METACOPY = "trusted.overlay.metacopy"


def test_a_reader_of_the_lower_file_sees_what_is_written_later(union):
    u = union({}, {"f": "old"})
    fd = u.open("f")
    u.append("f", "+new")
    assert os.pread(fd, 100, 0) == b"old+new"


def test_metadata_alone_is_copied_where_only_metadata_changes(union):
    u = union({}, {"f": "content"})
    u.change("f", mode=0o600)
    assert METACOPY in os.listxattr(u.upper / "f")
    assert os.stat(u.upper / "f").st_blocks * 512 <= 4096
    assert u.read("f") == "content"
    assert u.stat("f").st_mode & 0o777 == 0o600
    u.append("f", "!")
    assert METACOPY not in os.listxattr(u.upper / "f")
    assert u.read("f") == "content!"


def test_without_metacopy_the_content_comes_along(union):
    u = union({}, {"f": "content"}, metacopy=False)
    u.change("f", mode=0o600)
    assert harvest(u.upper) == {"f": "content"}
    assert METACOPY not in os.listxattr(u.upper / "f")


def test_a_metadata_copy_survives_renames_and_links(union):
    u = union({}, {"d": {"f": "content"}, "e": {}})
    u.change("d/f", mode=0o600)
    u.rename("d/f", "e/g")
    u.link("e/g", "h")
    again = u.remount()
    assert again.tree() == {"d": {}, "e": {"g": "content"}, "h": "content"}
    again.append("h", "!")
    assert again.read("e/g") == "content!"
    assert again.remount().tree() == {"d": {}, "e": {"g": "content!"}, "h": "content!"}


def test_truncating_copies_no_byte_beyond_the_new_size(union):
    u = union({}, {"f": "0123456789", "g": "0123456789"})
    copied = []
    original = os.copy_file_range
    try:
        os.copy_file_range = lambda s, t, n, *rest: copied.append(n) or original(s, t, n, *rest)
        u.change("f", size=4)
        u.open_to_write("g", truncate=True)
    finally:
        os.copy_file_range = original
    assert u.tree() == {"f": "0123", "g": ""}
    assert copied in ([4], [])


def test_times_of_the_file_and_its_parents_are_those_of_before(union):
    u = union({}, {"d": {"e": {"f": "x"}}})
    for path in ("d", "d/e", "d/e/f", ""):
        os.utime(u.directory / "lower0" / path, ns=(1_000_000_007, 2_000_000_009))
    os.utime(u.upper, ns=(1_000_000_007, 2_000_000_009))
    u.open_to_write("d/e/f")
    found = {path: u.stat(path).st_mtime_ns for path in ("", "d", "d/e", "d/e/f")}
    assert found == dict.fromkeys(found, 2_000_000_009)


def test_times_of_a_directory_that_comes_up_whole_are_those_of_before(union):
    """A name of a file with several is a link, and no copy."""
    u = union({}, {"f": "x", "d": {"e": {"g": Same("f")}}}, redirect_dir=False)
    os.utime(u.directory / "lower0/d/e", ns=(1_000_000_007, 2_000_000_009))
    u.append("f", "y")
    u.rename("d", "moved")
    assert u.tree() == {"f": "xy", "moved": {"e": {"g": "xy"}}}
    assert os.stat(u.upper / "moved/e/g").st_nlink > 1
    assert u.stat("moved/e").st_mtime_ns == 2_000_000_009


def test_holes_stay_holes(union, tmp_path):
    u = union({}, {"f": ""})
    size = 1 << 26
    with open(tmp_path / "lower0" / "f", "r+b") as file:
        file.truncate(size)
        file.seek(size // 2)
        file.write(b"x" * 4096)
    u.open_to_write("f")
    st = os.stat(u.upper / "f")
    assert st.st_size == size
    assert st.st_blocks * 512 < 1 << 20


def test_unlinked_files_stay_usable(union):
    u = union({"u": "up"}, {"l": "low", "m": "meta"})
    u.change("m", mode=0o600)
    nodes = {name: u.node(name) for name in "ulm"}
    fds = {name: u.open(name) for name in "ulm"}
    for name in "ulm":
        u.unlink(name)
    for name, node in nodes.items():
        assert u.union.shown(node, u.union.attributes(node))[0] == 0, name
        u.attributes.change(node, u_wish(mode=0o711))
        assert u.union.attributes(node).st_mode & 0o777 == 0o711
        u.attributes.change(node, u_wish(size=2))
        assert os.pread(fds[name], 10, 0) == {"u": b"up", "l": b"lo", "m": b"me"}[name]
    assert u.tree() == {}
    for node in nodes.values():
        u.union.nodes.forget(node.ino, node.lookups)
    assert os.listdir(u.work / "work") == []


def u_wish(**fields):
    from unionfs.changes.attributes import NewAttributes  # noqa: PLC0415 (beside its only use)

    return NewAttributes(**fields)


def test_a_copy_that_another_request_made_needless_is_dropped(union):
    u = union({}, {"f": "0123456789"})
    node = u.node("f")
    copy = u.copyup.begin(node)
    u.change("f", size=3)
    copy.fill()
    u.copyup.publish(copy)
    assert u.read("f") == "012"
    assert os.listdir(u.work / "work") == []


def test_attributes_that_change_while_the_content_is_copied_stay(union):
    u = union({}, {"f": "text"})
    node = u.node("f")
    copy = u.copyup.begin(node)
    u.change("f", mode=0o600, uid=5, mtime_ns=7)
    copy.fill()
    u.copyup.publish(copy)
    assert METACOPY not in os.listxattr(u.upper / "f")
    st = u.stat("f")
    assert (st.st_mode & 0o777, st.st_uid, st.st_mtime_ns) == (0o600, 5, 7)
    assert u.read("f") == "text"


def test_the_copy_of_a_metadata_only_copy_in_a_lower_has_the_attributes_of_that(union):
    u = union({}, {}, {"f": "text"})
    mark = {METACOPY: b"", "user.more": b"x"}
    os.mknod(u.directory / "lower0/f", 0o604)
    os.truncate(u.directory / "lower0/f", 4)
    for name, value in mark.items():
        os.setxattr(u.directory / "lower0/f", name, value)
    u.append("f", "!")
    assert u.read("f") == "text!"
    assert u.stat("f").st_mode & 0o777 == 0o604
    assert os.getxattr(u.upper / "f", "user.more") == b"x"


@pytest.mark.parametrize("name", ["file", "link"])
def test_what_is_of_another_kind_by_now_is_not_copied(union, name):
    u = union({}, {"file": "text"})
    lower = u.directory / "lower0"
    (lower / "link").symlink_to("file")
    node = u.node(name)
    (lower / name).unlink()
    (lower / name).mkdir()
    with pytest.raises(OSError, match="Stale"):
        u.copyup.whole(node)
    assert (os.listdir(u.upper), os.listdir(u.work / "work")) == ([], [])


def test_no_reflink_is_tried_where_blocks_are_never_shared(union, monkeypatch):
    u = union({}, {"f": "text"})
    tried = []
    monkeypatch.setattr(content, "share", lambda *_: bool(tried.append(1)))
    u.append("f", "!")
    assert bool(tried) != syscalls.never_shares(u.stack.work.fd)
    assert not (syscalls.never_shares(u.stack.work.fd) and syscalls.may_share(u.stack.work.fd))


def test_a_file_linked_while_it_is_copied_stays_one_file(union):
    u = union({}, {"f": "text"})
    node = u.node("f")
    copy = u.copyup.begin(node)
    u.link("f", "g")
    copy.fill()
    u.copyup.publish(copy)
    u.append("g", "!")
    assert os.listdir(u.work / "work") == []
    again = u.remount()
    assert again.tree() == {"f": "text!", "g": "text!"}
    assert os.path.samefile(u.upper / "f", u.upper / "g")


def test_a_file_removed_while_it_is_copied_is_copied_for_its_readers_only(union):
    u = union({}, {"f": "text"})
    node = u.node("f")
    copy = u.copyup.begin(node)
    u.unlink("f")
    copy.fill()
    u.copyup.publish(copy)
    assert u.tree() == {}
    assert u.union.attributes(node).st_size == 4
    assert os.listdir(u.work / "work") == []


def test_no_room_is_told_before_anything_is_copied(union, monkeypatch):
    u = union({}, {"f": "x" * 100_000})
    real = os.fstatvfs

    def full(fd):
        fields = list(real(fd))
        fields[3] = fields[4] = 1
        return os.statvfs_result(fields)

    monkeypatch.setattr(os, "fstatvfs", full)
    with pytest.raises(OSError) as raised:  # noqa: PT011 (the errno is compared)
        u.open_to_write("f")
    assert raised.value.errno == errno.ENOSPC
    assert harvest(u.upper) == {}


def test_an_interrupted_copy_leaves_nothing_after_the_next_mount(union):
    u = union({}, {"f": "x", "g": Same("f")})
    (u.work / "work" / "#99").mkdir()
    (u.work / "work" / "#99" / "left").write_text("over")
    assert u.remount().tree() == {"f": "x", "g": "x"}
    assert os.listdir(u.work / "work") == []
