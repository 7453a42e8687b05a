"""What is kept of listings, and how much."""

from unionfs.rosters import Rosters


class Directory:
    def __init__(self, *lowers):
        self.lowers = lowers


def test_a_name_is_asked_from_its_first_holder_on():
    rosters, directory = Rosters(), Directory("top", "middle", "bottom")
    rosters.keep(directory, [[b"a"], [b"a", b"b"], [b"b", b"c"]])
    held = {name: rosters.holders(directory, name, directory.lowers) for name in (b"a", b"c", b"d")}
    assert held == {b"a": ("top", "middle", "bottom"), b"c": ("bottom",), b"d": ()}


def test_without_a_listing_all_are_asked():
    rosters, directory = Rosters(), Directory("top", "bottom")
    assert rosters.holders(directory, b"a", directory.lowers) == ("top", "bottom")
    rosters.keep(directory, [[], []])
    changed = ("top",)
    assert rosters.holders(directory, b"a", changed) == changed


def test_the_oldest_are_let_go_of():
    rosters = Rosters(names=8)
    directories = [Directory("top", "bottom") for _ in range(3)]
    for directory in directories:
        rosters.keep(directory, [[b"a"], [b"b"]])
    rosters.keep(directories[-1], [[b"a"], [b"b"]])
    kept = [not rosters.holders(one, b"none", one.lowers) for one in directories]
    assert kept == [False, True, True]
    rosters.keep(directories[0], [[b"%d" % number for number in range(8)], []])
    assert all(rosters.holders(one, b"none", one.lowers) for one in directories)
