"""What `check` finds and repairs: one wrong thing each, then several that interact."""

import os

import pytest

from tests.audit.check.conftest import mark
from tests.trees import WHITEOUT, File, Link, Opaque, harvest
from unionfs.layers.blockmap import BlockMap

LOWER = {"f": "12", "d": {"a": "", "s": {}}, "w": ""}
KEY = b"1-2-3"


def test_an_upper_in_order_has_nothing_wrong(patient):
    upper = {"w": WHITEOUT, "n": "new", "d": Opaque({"a": ""}), "l": Link("x"), "f": "\0\0"}
    healthy = patient(upper, LOWER)
    mark(healthy.path / "upper", impure=b"y")
    mark(healthy.path / "upper" / "f", metacopy=b"", redirect=b"/f", unionfs_ino=b"1000000000007")
    assert healthy.check() == []


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"opaque": b"n"}, "- upper/d: the mark opaque is b'n', neither y nor x, and so hides n"),
        ({"opaque": b"x"}, "- upper/d: is marked opaque=x: whiteouts that are files count in"),
        ({"redirect": b"../etc"}, "- upper/d: illegal redirect b'../etc'"),
        ({"redirect": b"/../etc"}, "- upper/d: illegal redirect b'/../etc'"),
        ({"redirect": b"a/b"}, "- upper/d: illegal redirect b'a/b'"),
        ({"redirect": b""}, "- upper/d: illegal redirect b''"),
        ({"redirect": b"//a"}, "- upper/d: illegal redirect b'//a'"),
        ({"redirect": b"x" * 256}, "- upper/d: illegal redirect b'xxxx"),
        ({"redirect": b"a\0b"}, "- upper/d: illegal redirect b'a\\x00b'"),
        ({"redirect": b"/nowhere"}, "- upper/d: its redirect b'/nowhere' leads to no directory"),
        ({"redirect": b"/f"}, "- upper/d: its redirect b'/f' leads to no directory"),
        ({"metacopy": b""}, "+ upper/d: is marked as metadata only but is no file"),
        ({"impure": b"z"}, "+ upper/d: the mark impure is b'z'"),
        ({"whiteout": b""}, "+ upper/d: has the attribute of a whiteout but is no empty file"),
        ({"nlink": b"U+1"}, "+ upper/d: has a correction of the link count but is a directory"),
        ({"protattr": b""}, "- upper/d: the mark protattr is b'', which protects from nothing"),
        ({"protattr": b"ix"}, "- upper/d: the mark protattr is b'ix', which protects from noth"),
        ({"unionfs_ino": b"zz"}, "+ upper/d: damaged inode number b'zz'"),
        ({"unionfs_ino": b"0"}, "+ upper/d: damaged inode number b'0'"),
        ({"unionfs_link": KEY}, "+ upper/d: damaged entry of the hard link index"),
        ({"unionfs_lowerdir": b"/"}, "+ upper/d: has an attribute that belongs on upper's root"),
    ],
)
def test_marks_of_a_directory(patient, attributes, expected):
    sick = patient({"d": {}}, LOWER)
    mark(sick.path / "upper" / "d", **attributes)
    assert [line[: len(expected)] for line in sick.check()] == [expected]
    assert_repair_is_stable(sick)


def assert_repair_is_stable(sick):
    found, after = sick.check(mend=True), sick.check()
    assert after == [line for line in found if line.startswith("-")]
    assert sick.check(mend=True) == after


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"opaque": b"y"}, "+ upper/f: is marked opaque but is no directory"),
        ({"metacopy": b"", "redirect": b"/d"}, "- upper/f: holds metadata only, and its content"),
        ({"metacopy": b"", "redirect": b"/f"}, "- upper/f: has 1 bytes, but its content in the l"),
        ({"metacopy": b"", "redirect": b"/w"}, "- upper/f: has 1 bytes, but its content in the l"),
        ({"metacopy": b"1", "redirect": b"/f"}, "- upper/f: the mark metacopy is b'1', which"),
        ({"redirect": b".."}, "- upper/f: illegal redirect b'..'"),
        ({"whiteout": b""}, "+ upper/f: has the attribute of a whiteout but is no empty file"),
        ({"nlink": b"two"}, "+ upper/f: damaged correction of the link count b'two'"),
        ({"nlink": b"U-1"}, "+ upper/f: its link count is less than one with the correction"),
        ({"unionfs_mtime": b"noon"}, "+ upper/f: damaged modification time b'noon'"),
        ({"unionfs_link": b"../../x"}, "+ upper/f: damaged entry of the hard link index"),
        ({"unionfs_link": KEY}, "+ upper/f: its entry 1-2-3 in the hard link index is gone"),
        ({"unionfs_link": b"2-2-3"}, "+ upper/f: its entry 2-2-3 is of no lower layer"),
    ],
)
def test_marks_of_a_file(patient, attributes, expected):
    sick = patient({"f": "1"}, LOWER)
    mark(sick.path / "upper" / "f", **attributes)
    assert expected in [line[: len(expected)] for line in sick.check()]
    assert_repair_is_stable(sick)


def test_an_empty_file_with_the_attribute_of_a_whiteout_may_have_hidden_something(patient):
    upper = {"f": File("", xattrs=(("trusted.overlay.whiteout", b""),))}
    words = "has the attribute of a whiteout, which counts in lower layers only: it shows"
    assert patient(upper, LOWER).check() == [f"- upper/f: {words}"]


def test_metadata_without_content_below(patient):
    sick = patient({"n": "1"}, LOWER)
    mark(sick.path / "upper" / "n", metacopy=b"")
    words = "holds metadata only, and its content is not in the lower layers"
    assert sick.check() == [f"- upper/n: {words}"]
    assert sick.check(lowers=False) == []


def test_useless_whiteouts_go_and_others_stay(patient):
    upper = {
        "no": WHITEOUT,
        "w": WHITEOUT,
        "new": {"w": WHITEOUT},
        "d": Opaque({"a": WHITEOUT}),
    }
    sick = patient(upper, LOWER)
    before = os.stat(sick.path / "upper" / "new").st_mtime_ns
    assert sick.check(lowers=False) == ["+ upper/d/a: is a whiteout of nothing: useless"]
    assert sick.check(mend=True) == [
        "+ upper/d/a: is a whiteout of nothing: useless",
        "+ upper/new/w: is a whiteout of nothing: useless",
        "+ upper/no: is a whiteout of nothing: useless",
    ]
    assert harvest(sick.path / "upper") == {"w": WHITEOUT, "new": {}, "d": Opaque({})}
    assert os.stat(sick.path / "upper" / "new").st_mtime_ns == before
    assert sick.check() == []


def test_a_whiteout_below_a_lost_redirect_may_be_needed_again(patient):
    sick = patient({"e": {"a": WHITEOUT}}, LOWER)
    mark(sick.path / "upper" / "e", redirect=b"/gone")
    assert [line[:9] for line in sick.check()] == ["- upper/e"]


def test_names_of_aufs(patient):
    upper = {".wh.f": "", ".wh.no": "", ".wh...": "", "d": {".wh..wh..opq": "", ".wh.a": ""}}
    sick = patient(upper, LOWER)
    assert sick.check(mend=True, whiteout="aufs") == [
        "+ upper/.wh...: is a whiteout of no name",
        "+ upper/.wh.no: is a whiteout of nothing: useless",
        "+ upper/d/.wh.a: is a whiteout of nothing: useless",
    ]
    assert sick.check(whiteout="aufs") == []


def test_a_lower_directory_shown_twice(patient):
    sick = patient({"d": {"e": {}}, "x": {}}, LOWER)
    mark(sick.path / "upper" / "d" / "e", redirect=b"/d")  # a loop, were it followed
    mark(sick.path / "upper" / "x", redirect=b"/d/s")
    assert sick.check() == [
        "- upper/d/e: shows the same lower directory as /d",
        "- upper/x: shows the same lower directory as /d/s",
    ]


def test_numbers_given_twice(patient):
    sick = patient({"a": "", "b": ""}, LOWER)
    for name in "ab":
        mark(sick.path / "upper" / name, unionfs_ino=b"77")
    assert sick.check(mend=True) == ["+ upper/b: has the inode number 77 of /a"]
    assert sick.check() == []


def test_leftovers_in_work(patient):
    sick = patient({}, LOWER)
    (sick.path / "work" / "work" / "#1").mkdir()
    (sick.path / "work" / "work" / "#2").write_text("")
    words = "2 leftover(s) of interrupted changes, which the next mount removes"
    assert sick.check(mend=True) == [f"+ work/work: {words}"]
    assert sick.check() == []
    assert sick.check(work=False) == []


def test_what_a_volatile_mount_of_the_kernel_left_is_not_removed(patient):
    sick = patient({}, LOWER)
    (sick.path / "work" / "work" / "incompat" / "volatile").mkdir(parents=True)
    assert [line[:30] for line in sick.check(mend=True)] == ["- work/work/incompat/volatile:"]
    assert (sick.path / "work" / "work" / "incompat" / "volatile").exists()


def entry(sick, name, text=""):
    path = sick.path / "work" / "unionfs" / "links" / name
    path.write_text(text)
    mark(path, unionfs_link=os.fsencode(name))
    return path


def test_index_entries(patient):
    sick = patient({"mine": "", "other": ""}, LOWER)
    os.link(entry(sick, "1-1-1"), sick.path / "upper" / "good")
    mark(entry(sick, "1-2-1"), nlink=b"U-1")
    entry(sick, "9-1-1")
    os.link(entry(sick, "name"), sick.path / "upper" / "linked")
    mark(entry(sick, "1-3-1"), unionfs_link=b"1-9-9")
    mark(sick.path / "upper" / "mine", unionfs_link=b"1-4-1")
    mark(sick.path / "upper" / "other", unionfs_link=b"1-1-1")
    assert sick.check(mend=True) == [
        "+ upper/linked: damaged entry of the hard link index b'name'",
        "+ upper/mine: its entry 1-4-1 in the hard link index is gone",
        "+ upper/other: its entry 1-1-1 in the hard link index is another file",
        "+ work/unionfs/links/1-2-1: is a stale entry: no name shows it",
        "+ work/unionfs/links/1-3-1: the file does not say that it is this entry",
        "- work/unionfs/links/9-1-1: is an entry of a layer that is not there",
        "+ work/unionfs/links/name: is not named as an entry is",
    ]
    assert sick.check() == ["- work/unionfs/links/9-1-1: is an entry of a layer that is not there"]
    index = sick.path / "work" / "unionfs" / "links"
    assert sorted(os.listdir(index)) == ["1-1-1", "1-3-1", "1-4-1", "9-1-1"]
    assert os.path.samefile(index / "1-4-1", sick.path / "upper" / "mine")


def test_no_symlink_leads_out_of_work(patient):
    sick = patient({}, LOWER)
    links = sick.path / "work" / "unionfs" / "links"
    links.rmdir()
    (sick.path / "outside").mkdir()
    (sick.path / "outside" / "links").mkdir()
    (sick.path / "outside" / "links" / "file").write_text("")
    links.parent.rmdir()
    links.parent.symlink_to(sick.path / "outside")
    words = "is no directory: no union can be mounted"
    assert sick.check(mend=True) == [f"- work/unionfs: {words}"]
    assert (sick.path / "outside" / "links" / "file").exists()


def _in_part(sick, name, blocks):
    mark(sick.path / "upper" / name, metacopy=b"p", redirect=b"/f", unionfs_blocks=blocks.encoded())


def _told(sick):
    mark(sick.path / "upper", unionfs_incomplete=b"y")
    (sick.path / "work" / "work" / "incompat" / "unionfs-blocks").mkdir(parents=True)


TEXT = "0123456789abcdef" * (40 << 10 >> 4)


def test_a_file_in_part_is_in_order(patient):
    sick = patient({"f": TEXT}, {"f": TEXT}, LOWER)
    _in_part(sick, "f", BlockMap.unmarked(len(TEXT)).marked(5000, 9000))
    _told(sick)
    os.truncate(sick.path / "upper" / "f", 2 * len(TEXT))  # it may have grown
    assert sick.check() == []


def test_the_map_of_a_file_in_part_is_damaged(patient):
    sick = patient({"f": TEXT}, {"f": TEXT}, LOWER)
    _in_part(sick, "f", BlockMap.unmarked(len(TEXT)))
    _told(sick)
    mark(sick.path / "upper" / "f", unionfs_blocks=b"\7")
    assert sick.check(mend=True) == [
        "- upper/f: the mark of its blocks cannot be read: it is too short"
    ]


def test_a_file_in_part_shows_more_than_the_lower_has(patient):
    sick = patient({"f": TEXT}, {"f": TEXT[:-1]}, LOWER)
    _in_part(sick, "f", BlockMap.unmarked(len(TEXT)))
    _told(sick)
    words = f"shows {len(TEXT)} bytes of the lower layer, which has {len(TEXT) - 1} of them"
    assert sick.check(mend=True) == [f"- upper/f: {words}"]


def test_that_there_are_files_in_part_is_told_again(patient):
    sick = patient({"f": TEXT}, {"f": TEXT}, LOWER)
    _in_part(sick, "f", BlockMap.unmarked(len(TEXT)))
    words = "has files in part, and nothing keeps kernel overlayfs from it"
    assert sick.check(mend=True) == [f"+ upper/.: {words}"]
    assert sick.check() == []
    assert (sick.path / "work" / "work" / "incompat" / "unionfs-blocks").exists()


def test_a_file_in_part_whose_lower_is_gone(patient):
    sick = patient({"f": TEXT}, {}, {"w": ""})
    _in_part(sick, "f", BlockMap.unmarked(len(TEXT)))
    _told(sick)
    words = "holds metadata only, and its content is not in the lower layers"
    assert sick.check() == [f"- upper/f: {words}"]
