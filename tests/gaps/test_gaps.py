"""While one request waits, each other may come: the end is as if one had come after the other.

Each program that waits, in each state of its file, meets each other program in each gap.  What
both were told and what is there then, at once and after a remount, is what a plain directory shows
where the one or the other was first.
"""

import errno
import itertools
import os
import random
import shutil
import tempfile

import pytest
import trio

from tests.crash.client import Dirs
from tests.crash.sample import SEED, chosen
from tests.crash.trees import differences
from tests.gaps.desk import Desk, Gaps, Table
from unionfs.fuse import content_copies
from unionfs.fuse.reading import Reading
from unionfs.host import closing, syscalls
from unionfs.view.union import Features

OLD, SET = 10**18, 2 * 10**17  # ns: mtimes in 2001 and 1976
TEXT = b"0123456789" * 800


def plant(top):
    """Make what both the lower and the plain directory hold."""
    os.makedirs(f"{top}/d")
    os.makedirs(f"{top}/e")
    for name, text in (("d/f", TEXT), ("d/s", b"0123456789"), ("e/o", b"other")):
        with open(f"{top}/{name}", "wb") as file:
            file.write(text)
        os.setxattr(f"{top}/{name}", "trusted.a", b"1")
        os.setxattr(f"{top}/{name}", "security.capability", CAPABILITY)
        os.chmod(f"{top}/{name}", 0o644)


# cap_net_raw=ep: capabilities(7), struct vfs_cap_data
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")
OTHER_CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")


# State of d/f -> whether it has a second name, d/g, and what is done to it before
SCENES = {
    "lower": (False, ()),
    "lower, linked": (True, ()),
    "metadata in upper": (False, (("chmod", "d/f", 0o600),)),
    "metadata in upper, linked": (True, (("chmod", "d/f", 0o600),)),
    "metadata in upper, linked there": (False, (("link", "d/f", "e/k"),)),
    "in upper": (False, (("append", "d/f", b"+"), ("utime", "d/f", OLD))),
}

# What waits, and the features with which it does
WAITING = {
    "open": (("open", "d/f"), {}),
    "write": (("overwrite", "d/f", b"new"), {}),
    "append": (("append", "d/f", b"new"), {}),
    "empty": (("empty", "d/f"), {}),
    "truncate": (("truncate", "d/f", 5), {}),
    "truncate to more": (("truncate", "d/f", 20_000), {}),
    "read": (("read", "d/f"), {}),
    "sync": (("sync", "d/f"), {"fsync": "auto"}),
    "sync the directory": (("syncdir", "d"), {"fsync": "auto"}),
    "write without an open": (("poke", "d/f", b"new"), {}),
    "allocate": (("allocate", "d/f", 20_000), {}),
    "copy from": (("copy", "d/f", "e/o"), {}),
    "copy to": (("copy", "e/o", "d/f"), {}),
    "chmod with the content": (("chmod", "d/f", 0o640), {"metacopy": False}),
    "setxattr with the content": (("setxattr", "d/f", "trusted.b", b"2"), {"metacopy": False}),
    "link with the content": (("link", "d/f", "e/l"), {"metacopy": False}),
    "open, with directories copied whole": (
        ("open", "d/f"),
        {"redirect_dir": False, "metacopy": True},
    ),
}

_EXCHANGE = syscalls.RENAME_EXCHANGE

# What comes in between: verbs
OTHERS = {
    "look": (("look",),),
    "read": (("read", "d/f"),),
    "chmod": (("chmod", "d/f", 0o711),),
    "chown": (("chown", "d/f", 5, 6),),
    "utime": (("utime", "d/f", SET),),
    "utime, look": (("utime", "d/f", SET), ("look",)),
    "setxattr": (("setxattr", "d/f", "trusted.b", b"3"),),
    "set a capability": (("setxattr", "d/f", "security.capability", OTHER_CAPABILITY),),
    "remove a capability": (("removexattr", "d/f", "security.capability"),),
    "removexattr": (("removexattr", "d/f", "trusted.a"),),
    "truncate to less": (("truncate", "d/f", 3),),
    "truncate to more": (("truncate", "d/f", 9_999),),
    "write": (("overwrite", "d/f", b"other"),),
    "append": (("append", "d/f", b"other"),),
    "write and utime": (("append", "d/f", b"other"), ("utime", "d/f", SET)),
    "empty": (("empty", "d/f"),),
    "open": (("open", "d/f"),),
    "sync": (("sync", "d/f"),),
    "unlink": (("unlink", "d/f"),),
    "unlink the other name": (("unlink", "d/g"),),
    "replace": (("unlink", "d/f"), ("create", "d/f"), ("append", "d/f", b"next")),
    "link": (("link", "d/f", "e/x"),),
    "link, unlink": (("link", "d/f", "e/x"), ("unlink", "d/f")),
    "rename": (("rename", "d/f", "d/r"),),
    "rename to another directory": (("rename", "d/f", "e/r"),),
    "rename another over it": (("rename", "e/o", "d/f"),),
    "rename it over another": (("rename", "d/f", "e/o"),),
    "exchange": (("rename", "d/f", "e/o", _EXCHANGE),),
    "write aside and rename": (
        ("create", "d/t"), ("append", "d/t", b"aside"), ("rename", "d/t", "d/f"),
    ),
    "rmdir of its directory": (("rmdir", "d"),),
    "rename of its directory": (("rename", "d", "D"),),
    "exchange of its directory": (("rename", "d", "e", _EXCHANGE),),
    "create beside it": (("create", "d/x"),),
    "copy to it": (("copy", "e/o", "d/f"),),
    "copy from it": (("copy", "d/f", "e/o"),),
    "allocate": (("allocate", "d/f", 9_000),),
}  # fmt: skip


# What changes the file itself or its links, for which the kernel takes the file's lock
_CHANGES_FILE = {
    name
    for name, steps in OTHERS.items()
    if any(verb not in {"look", "read", "open", "sync", "rmdir"} for verb, *_ in steps)
    and not name.endswith("its directory")
} - {"create beside it", "copy from it"}

# What cannot come in between, as the kernel keeps it waiting (filesystems/locking.rst), and what is
# not one step on a plain directory either.  While a rename waits, nothing comes by either name.
EXCLUDED = {
    **dict.fromkeys(("truncate", "truncate to more", "write without an open"), _CHANGES_FILE),
    **dict.fromkeys(("chmod with the content", "setxattr with the content"), _CHANGES_FILE),
    "link with the content": _CHANGES_FILE,
    "copy from": {"copy to it"},
    "copy to": {"copy from it"},
}


class Field:
    """Where it happens: a lower, upper and work, or a plain directory."""

    def __init__(self, top, scene, gaps):
        self.top = top
        self.linked, self.before = SCENES[scene]
        self.gaps = gaps
        self.dirs = Dirs((f"{top}/lower",), f"{top}/upper", f"{top}/work")
        shutil.rmtree(self.dirs.lowers[0], ignore_errors=True)
        self._plant(self.dirs.lowers[0])

    def _plant(self, path):
        plant(path)
        if self.linked:
            os.link(f"{path}/d/f", f"{path}/d/g")
        for top, _, names in os.walk(path):
            for name in names:
                os.utime(f"{top}/{name}", ns=(OLD, OLD))

    def on_the_union(self, features, gap, first, other, *, failing=False):
        """Return what both said, and what is there then; whether there was such a gap."""
        for path in (self.dirs.upper, self.dirs.work):
            shutil.rmtree(path, ignore_errors=True)
            os.mkdir(path)
        gaps = self.gaps
        with Desk(self.dirs, features, gaps) as desk:
            gaps.at = -1

            async def story():
                await desk.do(*self.before)
                gaps.begin(gap, failing=failing)
                second = desk.another()
                said = await gaps.run(lambda: desk.do(first), lambda: second.do(*other))
                return said, await desk.do(("look",))

            said, tree = trio.run(story)
            met = gaps.seen > gap
        assert os.listdir(f"{self.dirs.work}/work") == []
        with Desk(self.dirs, features, gaps) as desk:
            assert trio.run(desk.do, ("look",)) == tree, "it looks different after a remount"
        return met, (*said, tree)

    def on_a_plain_directory(self, *programs):
        """Return what each program said in turn, and what is there then."""
        path = f"{self.top}/plain"
        self._plant(path)
        table = Table(path)
        try:
            said = [_said(table, steps) for steps in (self.before, *programs)]
            return (*said[1:], table.look())
        finally:
            shutil.rmtree(path)


def _said(table, steps):
    said = None
    try:
        for verb, *args in steps:
            said = getattr(table, verb)(*args)
    except OSError as exc:
        return errno.errorcode[exc.errno]
    return said


@pytest.fixture
def top():
    path = tempfile.mkdtemp(prefix="unionfs-gaps-", dir="/dev/shm")
    yield path
    shutil.rmtree(path)


@pytest.fixture
def gaps(monkeypatch):
    """Gaps in all that may wait, however small: what is copied, cut, read."""
    monkeypatch.setattr(content_copies, "THREAD_BYTES", 0)
    monkeypatch.setattr(closing, "_LARGE", 1)
    monkeypatch.setattr(closing, "_room", lambda _fd: 0)  # nothing is closed by a thread
    monkeypatch.setattr(Reading, "at_once", lambda *_arguments: None)
    return Gaps().patch(monkeypatch)


def _pairs(waiting, scenes=tuple(SCENES)):
    """Return states of the file, and who comes in between."""
    excluded = EXCLUDED.get(waiting, ())
    return [pair for pair in itertools.product(scenes, OTHERS) if pair[1] not in excluded]


def _try(pairs, attempt):
    """Try some of *pairs*, as `sample` says, and more until one has a gap: not all scenes wait."""
    some = chosen(pairs, share=0.25)
    more = [pair for pair in pairs if pair not in some]
    tried, wrong = 0, {}
    for at, pair in enumerate([*some, *random.Random(SEED).sample(more, len(more))]):
        if at >= len(some) and tried:
            break
        count, words = attempt(*pair)
        tried += count
        wrong |= {pair: words} if words else {}
    _tell(tried, wrong)


def _orders(field, first, other):
    """Return what both say, and what is there then, if one comes after the other."""
    one = field.on_a_plain_directory((first,), other)
    two = field.on_a_plain_directory(other, (first,))
    return [one, (two[1], two[0], two[2])]


def _wrong(field, features, first, other, right, *, failing=False):
    """Try each gap; return how many there are, and what is wrong in which."""
    wrong = {}
    for gap in itertools.count():
        met, end = field.on_the_union(features, gap, first, other, failing=failing)
        if not met:
            return gap, wrong
        if end not in right:
            wrong[gap] = _words(right, end)
    raise AssertionError


def _words(right, end):
    """Say in words how *end* differs from what it may be."""
    words = []
    for each in right:
        said = [
            f"said {is_!r} for {may!r}"
            for is_, may in zip(end[:2], each[:2], strict=True)
            if is_ != may
        ]
        words.append([*said, *differences(each[2], end[2])])
    return words


def _tell(tried, wrong):
    assert tried > 0
    assert not wrong, f"UNIONFS_CRASH_SEED={SEED}: " + "\n".join(
        f"{scene}, {name}, in gap {gap}: {words}"
        for (scene, name), gaps in wrong.items()
        for gap, words in gaps.items()
    )


@pytest.mark.parametrize("waiting", WAITING)
def test_the_end_is_as_if_one_had_come_after_the_other(top, gaps, waiting):
    first, features = WAITING[waiting]
    features = Features(**{"fsync": "off", **features})

    def attempt(scene, name):
        field, other = Field(top, scene, gaps), OTHERS[name]
        return _wrong(field, features, first, other, _orders(field, first, other))

    _try(_pairs(waiting), attempt)


# To empty a file takes no room, so it does not fail.
@pytest.mark.parametrize("waiting", ["open", "truncate", "append", "link with the content"])
def test_where_the_disk_fails_in_the_end_only_the_other_has_done_anything(top, gaps, waiting):
    """Where the other waits, too, it does what it needs itself.

    A disk that is full is asked again (`fullness`), which is the other order of the two.
    """
    first, features = WAITING[waiting]
    features = Features(**{"fsync": "off", **features})

    def attempt(scene, name):
        field, other = Field(top, scene, gaps), OTHERS[name]
        right = [("EIO", *field.on_a_plain_directory(other))]
        return _wrong(field, features, first, other, right, failing=True)

    # Of a file in upper much may be cut off before the disk fails, there as on a plain directory.
    _try(_pairs("", tuple(SCENES)[:-1]), attempt)
