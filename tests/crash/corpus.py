"""The layers that every case starts from, and the operations that are tried on them.

The upper is written as overlayfs.rst describes it, not by the union, and the
tree that all layers together show is planted as a plain directory too: so the
state before and after each operation is known without asking the union.
"""

import itertools
import os
import stat
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

from unionfs.host.syscalls import RENAME_EXCHANGE, RENAME_NOREPLACE
from unionfs.layers.iflags import APPEND, IMMUTABLE

from .client import Client
from .plain import Plain

Verbs = Client | Plain
LONG_AGO = 1_600_000_000  # seconds; the mtime of all that was planted
BIG = bytes(range(256)) * 600  # 150 KiB: more than one block, page and buffer

# Names for whose whiteouts aufs has no room, though kernel overlayfs has for redirects to them.
_TOP, _FREE = "r" * 252, "g" * 252
_FILE, _FULL, _EMPTY = (f"l/{letter * 252}" for letter in "nwe")


class Case(NamedTuple):
    """One operation on the corpus, perhaps after others that prepare it."""

    name: str
    do: Callable[[Verbs], None]
    prepare: Callable[[Verbs], None] = lambda _verbs: None


def _file(path: str, content: bytes, mode: int = 0o640, uid: int = 5) -> None:
    with open(path, "wb") as file:
        file.write(content)
    os.chmod(path, mode)
    os.chown(path, uid, uid)
    os.setxattr(path, "user.colour", b"blue")


def _directory(path: str, mode: int = 0o750) -> None:
    os.mkdir(path, mode)
    os.setxattr(path, "user.kind", b"directory")


def _plant_lower(top: str) -> None:
    _file(f"{top}/f", b"lower f" * 300)
    _file(f"{top}/big", BIG, 0o600)
    _file(f"{top}/h1", b"two names" * 99)
    os.link(f"{top}/h1", f"{top}/h2")
    os.symlink("f", f"{top}/s")
    os.mkfifo(f"{top}/fifo")
    os.mknod(f"{top}/dev", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    for name in ("d", "d/deep", "e", "m"):
        _directory(f"{top}/{name}")
    _file(f"{top}/d/x", b"lower x")
    _file(f"{top}/d/deep/y", b"lower y", 0o4755)
    _file(f"{top}/m/low", b"lower in m")
    for name in ("l", _FULL, f"{_FULL}/sub", _EMPTY):
        _directory(f"{top}/{name}")
    _file(f"{top}/{_FILE}", b"a long name")
    _file(f"{top}/{_TOP}", b"a long name in the root")
    _file(f"{top}/{_FULL}/sub/z", b"below a long name")
    _file(f"{top}/l/near", b"beside a long name")


def _plant_upper(top: str) -> None:
    _file(f"{top}/u", b"upper u")
    _file(f"{top}/u1", b"upper linked")
    os.link(f"{top}/u1", f"{top}/u2")
    for name in ("ud", "ue", "o", "me"):
        _directory(f"{top}/{name}")
    _file(f"{top}/ud/v", b"upper v")
    _file(f"{top}/o/new", b"in the opaque")
    _file(f"{top}/m/up", b"upper in m")
    _file(f"{top}/m/both", b"upper both")


def plant_lowers(lowers: tuple[str, str]) -> None:
    """Fill two lowers, top first; they are never changed."""
    top, bottom = lowers
    _plant_lower(bottom)
    for name in ("gone-directory", "o", "me"):
        _directory(f"{bottom}/{name}")
        _file(f"{bottom}/{name}/hidden", b"must never show")
    _file(f"{bottom}/gone", b"must never show")
    _file(f"{bottom}/m/both", b"must never show either")
    _directory(f"{top}/m")
    _file(f"{top}/m/mid", b"middle in m")
    _file(f"{top}/t", b"top lower t")
    for lower in lowers:
        _set_times(lower)


def plant_upper(upper: str, whiteout: str = "overlay") -> None:
    """Fill an upper for these lowers, with whiteouts as overlayfs or as aufs keeps them."""
    _directory(f"{upper}/m")
    _plant_upper(upper)
    hidden = ("gone", "gone-directory", "me/hidden")
    if whiteout == "aufs":
        marks = (f"{directory}.wh.{name}" for directory, name in map(_split, hidden))
        for mark in ("o/.wh..wh..opq", *marks):
            os.mknod(f"{upper}/{mark}", stat.S_IFREG | 0o444)
    else:
        os.setxattr(f"{upper}/o", "trusted.overlay.opaque", b"y")
        for name in hidden:
            os.mknod(f"{upper}/{name}", stat.S_IFCHR, 0)
    _set_times(upper)


def _split(path: str) -> tuple[str, str]:
    """Return the directory with its slash, if any, and the name."""
    directory, slash, name = path.rpartition("/")
    return directory + slash, name


def plant_plain(top: str) -> None:
    """Fill one directory with what the layers show together."""
    _plant_lower(top)
    _plant_upper(top)
    _file(f"{top}/m/mid", b"middle in m")
    _file(f"{top}/t", b"top lower t")
    _set_times(top)


def _set_times(top: str) -> None:
    for directory, _, files in os.walk(top):
        for name in files:
            os.utime(f"{directory}/{name}", (LONG_AGO, LONG_AGO), follow_symlinks=False)


def _call(verb: str, *args) -> Callable[[Verbs], None]:
    return lambda verbs: getattr(verbs, verb)(*args)


def _cases(verb: str, *rows: tuple) -> Iterator[Case]:
    for row in rows:
        words = (str(value)[:20] for value in row)
        yield Case(" ".join((verb, *words)), _call(verb, *row))


def _both(*calls: tuple) -> Callable[[Verbs], None]:
    def do(verbs: Verbs) -> None:
        for verb, *args in calls:
            getattr(verbs, verb)(*args)

    return do


def copy_ups() -> Iterator[Case]:
    files = ("f", "big", "t", "h1", "d/deep/y", "m/low", "u")
    yield from _cases("append", *[(name, b"more") for name in files])
    yield from _cases("overwrite", ("big", b"new"), ("d/x", b"new"))
    yield from _cases("empty", *[(name,) for name in files])
    yield from _cases("truncate", ("f", 10), ("big", 100_000), ("h2", 3), ("d/x", 0), ("t", 9000))
    everything = (*files, "dev", "fifo", "d", "e", "m", "ud", "d/deep")
    yield from _cases("chmod", *[(name, 0o711) for name in everything])
    yield from _cases("chown", *[(name, 7, 8) for name in (*everything, "s")])
    yield from _cases("utime", *[(name, 10**18) for name in ("f", "s", "d", "dev", "h1")])
    yield from _cases("setxattr", *[(name, "user.new", b"1") for name in ("f", "big", "d", "m")])
    yield from _cases("removexattr", ("f", "user.colour"), ("d", "user.kind"))


def flags() -> Iterator[Case]:
    """Yield changes of inode flags, and what follows them."""
    nodump, kept, append = 0x40, 0x40 | 0x80, APPEND
    names = ("f", "big", "t", "h1", "d", "m", "u", "ud", "d/deep/y")
    yield from _cases("set_flags", *[(n, f) for n in names for f in (nodump, IMMUTABLE, append)])
    for name in ("f", "u", "d"):
        yield Case(f"{name} free again", _call("set_flags", name, 0),
                   _call("set_flags", name, IMMUTABLE))  # fmt: skip
        yield Case(f"chmod flagged {name}", _call("chmod", name, 0o700),
                   _call("set_flags", name, kept))  # fmt: skip
    for call in (("overwrite", "big", b"new"), ("rename", "big", "d/x"), ("link", "big", "new"),
                 ("unlink", "big")):  # fmt: skip
        yield Case(f"flagged, then {call[0]}", _call(*call), _call("set_flags", "big", kept))
    yield Case("append to +a", _call("append", "f", b"more"), _call("set_flags", "f", append))


def after_metadata() -> Iterator[Case]:
    """Yield operations on what is in upper without its content."""
    for name, prepare in (
        ("changed", _call("chmod", "big", 0o611)),
        ("moved", _both(("chmod", "big", 0o611), ("rename", "big", "x"), ("rename", "x", "big"))),
        ("linked", _both(("chmod", "h1", 0o611), ("rename", "h1", "big"))),
    ):
        for call in (
            ("append", "big", b"more"), ("empty", "big"), ("truncate", "big", 70),
            ("unlink", "big"),
            ("link", "big", "d/new"), ("rename", "big", "d/x"), ("chown", "big", 3, 4),
        ):  # fmt: skip
            yield Case(f"{name}, then {call[0]}", _call(*call), prepare)


def links() -> Iterator[Case]:
    sources = ("f", "h1", "d/x", "u", "u1", "s", "dev")
    targets = ("new", "gone", "d/new", "ud/new")
    yield from _cases("link", *itertools.product(sources, targets))
    changed = _call("append", "h1", b"!")
    for call in (("append", "h2", b"?"), ("unlink", "h1"), ("unlink", "h2"), ("chmod", "h2", 0o600),
                 ("rename", "h2", "new"), ("rename", "h2", "h1"), ("link", "h2", "h3"),
                 ("rename", "h2", "f"), ("rename", "h2", "d/x", RENAME_EXCHANGE)):  # fmt: skip
        words = " ".join(str(word) for word in call)
        yield Case(f"h1 copied up, then {words}", _call(*call), changed)
    yield Case("the last of h1, h2", _call("unlink", "h2"), _both(("chmod", "h1", 0o600),
                                                                   ("unlink", "h1")))  # fmt: skip


def removals() -> Iterator[Case]:
    names = (
        "f",
        "t",
        "u",
        "u1",
        "h1",
        "s",
        "fifo",
        "dev",
        "d/x",
        "m/low",
        "m/mid",
        "m/both",
        "m/up",
    )
    yield from _cases("unlink", *[(name,) for name in names])
    yield from _cases("rmdir", ("e",), ("ue",), ("me",))
    yield Case("rmdir emptied d/deep", _call("rmdir", "d/deep"), _call("unlink", "d/deep/y"))
    emptied = _both(
        ("unlink", "m/low"), ("unlink", "m/mid"), ("unlink", "m/both"), ("unlink", "m/up")
    )
    yield Case("rmdir emptied m", _call("rmdir", "m"), emptied)
    yield Case("unlink copied up", _call("unlink", "f"), _call("append", "f", b"!"))


def creations() -> Iterator[Case]:
    names = (
        "new",
        "gone",
        "gone-directory",
        "d/new",
        "d/deep/new",
        "m/new",
        "me/hidden",
        "o/hidden",
    )
    yield from _cases("create", *[(name,) for name in names])
    yield from _cases("mkdir", *[(name,) for name in names])
    yield from _cases("symlink", *[("anywhere", name) for name in names[:4]])
    yield from _cases("mknod", *[(name, stat.S_IFIFO | 0o600) for name in names[:4]])
    yield from _cases("mknod", *[(n, stat.S_IFBLK | 0o600, os.makedev(7, 9)) for n in names[:4]])
    yield from _cases("link_unnamed", *[(name, b"content") for name in names])
    yield Case("mkdir over removed e", _call("mkdir", "e"), _call("rmdir", "e"))


def file_renames() -> Iterator[Case]:
    sources = ("f", "h1", "s", "dev", "d/x", "m/both", "m/low", "u", "u1", "ud/v")
    free = ("new", "gone", "gone-directory", "d/new", "ud/new", "m/new")
    taken = ("t", "h2", "d/deep/y", "m/mid", "m/up", "u2")
    yield from _cases("rename", *itertools.product(sources, free + taken))
    yield from _cases("rename", *[(s, t, RENAME_NOREPLACE) for s in sources for t in free[:2]])
    others = (*taken, "d", "ud", "m")
    yield from _cases(
        "rename",
        *[(s, t, RENAME_EXCHANGE) for s in sources for t in others if s.split("/")[0] != t],
    )


def directory_renames() -> Iterator[Case]:
    sources = ("d", "d/deep", "m", "o", "e", "ud", "ue")
    targets = ("new", "gone", "gone-directory", "me", "ue", "e", "ud/new", "m/new", "d/new")
    for source, target in itertools.product(sources, targets):
        if source != target and not target.startswith(source + "/"):
            yield from _cases("rename", (source, target))
    exchanges = [(s, t) for s, t in itertools.combinations(sources, 2) if not t.startswith(s + "/")]
    yield from _cases("rename", *[(s, t, RENAME_EXCHANGE) for s, t in exchanges])
    moved = _call("rename", "d", "moved")
    for call in (("rename", "moved", "again"), ("rename", "moved", "d"),
                 ("append", "moved/x", b"!"),
                 ("unlink", "moved/x"), ("rename", "moved/deep", "m/deep"),
                 ("chmod", "moved", 0o700),
                 ("mkdir", "d"), ("create", "d"), ("rename", "m", "d")):  # fmt: skip
        yield Case(f"d moved, then {' '.join(map(str, call))}", _call(*call), moved)


# Directories that show nothing though a lower holds something: their names, and how they got so.
_EMPTIED: dict[str, tuple[tuple, ...]] = {
    "me": (),
    "d": (("unlink", "d/x"), ("unlink", "d/deep/y"), ("rmdir", "d/deep")),
    "m": (("unlink", "m/low"), ("unlink", "m/mid"), ("unlink", "m/both"), ("unlink", "m/up")),
    "o": (("unlink", "o/new"),),
    "gone-directory": (("mkdir", "gone-directory"),),
    "refilled": (  # opaque by a later mkdir, and moved: nothing lies below that name
        ("rmdir", "me"), ("mkdir", "me"), ("rename", "me", "refilled"),
    ),
    "moved": (
        ("rename", "d", "moved"),
        ("unlink", "moved/x"), ("unlink", "moved/deep/y"), ("rmdir", "moved/deep"),
    ),
    "ud/moved": (
        ("rename", "m", "ud/moved"), ("unlink", "ud/moved/both"), ("unlink", "ud/moved/up"),
        ("unlink", "ud/moved/low"), ("unlink", "ud/moved/mid"),
    ),
    "e": (("rename", "d", "x"), ("rmdir", "e"), ("rename", "x", "e"), ("unlink", "e/x"),
          ("unlink", "e/deep/y"), ("rmdir", "e/deep")),
}  # fmt: skip


def emptied() -> Iterator[Case]:
    """Yield operations on directories that show nothing, and renames over them."""
    for name, calls in _EMPTIED.items():
        operations = [
            ("rmdir", name),
            ("create", f"{name}/new"), ("mkdir", f"{name}/x"), ("create", f"{name}/hidden"),
            ("link", "u", f"{name}/x"), ("chmod", name, 0o711),
            ("rename", name, "new"), ("rename", name, "gone"), ("rename", name, "ue"),
            ("rename", "h1", f"{name}/x"),
            ("rename", "f", name, RENAME_EXCHANGE), ("rename", "u1", name, RENAME_EXCHANGE),
            ("rename", name, "h2", RENAME_EXCHANGE),
        ]  # fmt: skip
        for other in ("e", "ue", "ud", "d", "d/deep", "m", "o"):
            moved = any(call[0] == "rename" and other.startswith(call[1]) for call in calls)
            apart = os.path.commonpath((name, other)) not in {name, other}
            if apart and not moved:
                operations += [("rename", other, name), ("rename", other, name, RENAME_EXCHANGE)]
        for call in operations:
            words = " ".join(str(word) for word in call)
            yield Case(f"{name} emptied, then {words}", _call(*call), _both(*calls))


ACL = "system.posix_acl_access"
# acl(5), linux/posix_acl_xattr.h: the owner rwx, user 9 rwx, the group r-x, mask rwx, others r-x.
_ENTRIES = ((1, 7, -1), (2, 7, 9), (4, 5, -1), (16, 7, -1), (32, 5, -1))
_ACL = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in _ENTRIES)


def privileges() -> Iterator[Case]:
    """Yield changes at which set-uid and set-gid bits fall, of files in upper and in a lower."""
    for name, mode in itertools.product(("f", "u", "h1", "d/deep/y"), (0o6755, 0o2745)):
        for verb, *args in (("truncate", 3), ("empty",), ("chown", 7, 8), ("setxattr", ACL, _ACL)):
            words = f"{verb} {name} of {mode:o} by a stranger"
            yield Case(words, _call("stranger", verb, name, *args), _call("chmod", name, mode))
    directory = _call("stranger", "setxattr", "m", ACL, _ACL)
    yield Case("an ACL for a set-gid directory", directory, _call("chmod", "m", 0o2755))


def long_names() -> Iterator[Case]:
    """Yield operations on names that are too long for a whiteout of aufs."""
    yield from _cases("unlink", (_FILE,), (_TOP,))
    yield from _cases("rmdir", (_EMPTY,))
    sources = (_FILE, _FULL, _EMPTY, _TOP, "l/near", "l", "f", "u", "d", "ud", "e")
    free, taken = ("l/" + _FREE, "l/new", _FREE, "new", "gone"), (_FILE, _EMPTY, "t", "ue")
    directories = (_FULL, _EMPTY, "l", "d", "ud", "e", "ue")
    for source, target in itertools.product(sources, free + taken):
        fit = target in free or (source in directories) == (target in directories)
        if fit and source != target and not target.startswith(source + "/"):
            yield from _cases("rename", (source, target))
    yield from _cases(
        "rename",
        *[(_FILE, other, RENAME_EXCHANGE) for other in ("f", "u", _FULL)],
        *[(_FULL, other, RENAME_EXCHANGE) for other in ("d", "ud", _EMPTY)],
    )


def after_long_names() -> Iterator[Case]:
    """Yield operations on directories of long names that were emptied, and beside such names."""
    for name, calls in (
        (_FULL, (("unlink", f"{_FULL}/sub/z"), ("rmdir", f"{_FULL}/sub"))),
        (_FREE, (("rename", "d", _FREE), ("unlink", f"{_FREE}/x"), ("unlink", f"{_FREE}/deep/y"),
                 ("rmdir", f"{_FREE}/deep"))),
    ):  # fmt: skip
        for call in (
            ("rmdir", name), ("rename", name, "new"), ("rename", "m", name), ("rename", "ud", name),
            ("rename", "f", name, RENAME_EXCHANGE), ("create", f"{name}/x"), ("chmod", name, 0o700),
        ):  # fmt: skip
            words = " ".join(str(word)[:8] for word in call)
            yield Case(f"{name[:6]} emptied, then {words}", _call(*call), _both(*calls))
    for before in (
        ("unlink", _FILE),
        ("rename", _FILE, "l/new"),
        ("append", _FULL + "/sub/z", b"!"),
    ):
        for call in (("create", "l/again"), ("unlink", "l/near"), ("rename", "l", "new"),
                     ("rmdir", _EMPTY), ("rename", _EMPTY, "new")):  # fmt: skip
            words = f"{before[0]} {before[1][:6]}, then {call[0]} {call[1][:6]}"
            yield Case(words, _call(*call), _call(*before))


KINDS: tuple[Callable[[], Iterator[Case]], ...] = (
    copy_ups, flags, after_metadata, links, removals, creations, file_renames, directory_renames,
    emptied, long_names, after_long_names,
)  # fmt: skip


def all_cases() -> Iterator[Case]:
    """Yield every case."""
    for kind in KINDS:
        yield from kind()
