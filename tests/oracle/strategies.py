"""Random stacks of layers and random programs, small names so that they collide."""

import dataclasses
import itertools
import os
import stat
from collections import Counter
from typing import NamedTuple

from hypothesis import strategies as st

from unionfs.host.syscalls import RENAME_EXCHANGE, RENAME_NOREPLACE

from .steps import Step
from .trees import PLANTED, WHITEOUT, Directory, Leaf, leaves, merged

UPPER = 0
LOWERS = 3

_PATHS = ("a", "b", "c", "a/a", "a/b", "b/a", "b/b", "c/a", "a/a/a", "a/a/b", "a/b/a", "b/a/a")
_SIZES = (0, 1, 10, 4096, 5000, 70_000, (1 << 20) + 5)
_MODES = (0o644, 0o600, 0o755, 0o777, 0o444, 0o4755, 0o2755, 0o2775, 0o1777, 0o000)
_OWNERS = ((0, 0), (0, 0), (1000, 1000), (1000, 0), (1001, 1000))

# acl(5) as the kernel encodes it: user::rwx user:1000:rw- group::r-x mask::rwx other::r--
_ACL = bytes.fromhex(
    "02000000 01000700ffffffff 02000600e8030000 04000500ffffffff 10000700ffffffff 20000400ffffffff"
)
_ATTRIBUTES = (
    ("user.one", b"1"),
    ("user.empty", b""),
    ("trusted.two", b"2" * 40),
    ("trusted.overlay.opaque", b"y"),
    ("trusted.overlay.overlay.own", b"nested"),
    ("security.three", b"3"),
    ("system.posix_acl_access", _ACL),
    ("system.posix_acl_default", _ACL),
)


class Entry(NamedTuple):
    """One object to plant; parents are made, and what does not fit is left out."""

    layer: int
    path: str
    kind: str
    mode: int
    owner: tuple[int, int]
    size: int
    attribute: tuple[str, bytes] | None

    def __str__(self) -> str:
        more = [f"{self.mode:o}", self.owner, self.size, self.attribute]
        return f"layer {self.layer}: {self.path} {self.kind} {more}"


def _list_of(element: st.SearchStrategy, most: int) -> st.SearchStrategy[list]:
    """Return lists of which all lengths are as likely: those of `lists` are short mostly."""
    return st.integers(1, most).flatmap(
        lambda size: st.lists(element, min_size=size, max_size=size)
    )


_KINDS = ("file", "file", "file", "dir", "dir", "link", "symlink", "fifo", "device")
_MARKS = ("whiteout", "whiteout", "opaque")


def entries(*, links: bool = True, marks: bool = True) -> st.SearchStrategy[list[Entry]]:
    kinds = [kind for kind in _KINDS if links or kind != "link"] + list(_MARKS if marks else ())
    entry = st.builds(
        Entry,
        st.integers(UPPER, LOWERS),
        st.sampled_from(_PATHS),
        st.sampled_from(kinds),
        st.sampled_from(_MODES),
        st.sampled_from(_OWNERS),
        st.sampled_from(_SIZES[:-1]),
        st.none() | st.sampled_from(_ATTRIBUTES[:-2]),
    )
    return _list_of(entry, 20)


# Stacks


Stack = list[Directory | None]  # top first, upper at 0


def stack_of(planned: list[Entry]) -> Stack:
    """Return the layers that *planned* asks for."""
    layers: Stack = [None] * (LOWERS + 1)
    layers[LOWERS] = Directory()
    for count, entry in enumerate(planned):
        layer = layers[entry.layer] = layers[entry.layer] or Directory()
        _add(layer, entry, count)
    _untie_hidden_links(layers)
    upper = layers[UPPER]
    if upper is not None:
        _drop_useless_whiteouts(upper, merged(layers[1:]))
    return layers


def _add(layer: Directory, entry: Entry, count: int) -> None:
    *parents, name = entry.path.split("/")
    directory = layer
    for parent in parents:
        child = directory.entries.setdefault(parent, Directory(mtime=PLANTED + 1))
        if not isinstance(child, Directory):
            return
        directory = child
    if name not in directory.entries:
        directory.entries[name] = _thing(layer, entry, count)


def _thing(layer: Directory, entry: Entry, count: int) -> Leaf | Directory | None:
    if entry.kind == "whiteout":
        return WHITEOUT
    if entry.kind == "link":
        return next(leaves(layer), None) or _leaf(entry, count)
    if entry.kind in ("dir", "opaque"):
        directory = Directory(opaque=entry.kind == "opaque")
        _finish(directory, entry, count)
        directory.mode = entry.mode | 0o700
        return directory
    return _leaf(entry, count)


_FORMATS = {"symlink": stat.S_IFLNK, "fifo": stat.S_IFIFO, "device": stat.S_IFCHR}


def _leaf(entry: Entry, count: int) -> Leaf:
    form = _FORMATS.get(entry.kind, stat.S_IFREG)
    leaf = Leaf(form | entry.mode)
    if form == stat.S_IFLNK:
        leaf.content = (b"a", b"../b", b"nowhere")[count % 3]
    elif form == stat.S_IFREG:
        leaf.content = (b"%d " % count * entry.size)[: entry.size]
    _finish(leaf, entry, count)
    return leaf


def _finish(thing: Leaf | Directory, entry: Entry, count: int) -> None:
    thing.owner = entry.owner
    thing.mtime = PLANTED + 1000 * count + 7
    plain = isinstance(thing, Directory) or stat.S_ISREG(thing.mode)
    if entry.attribute and (plain or not entry.attribute[0].startswith("user.")):
        thing.attributes = dict([entry.attribute])


def _untie_hidden_links(layers: Stack) -> None:
    """Make separate files of links that do not all show: st_nlink is the inode's in a lower."""
    shown = Counter(map(id, leaves(merged(layers))))
    for layer in layers:
        if layer is not None:
            held = Counter(map(id, leaves(layer)))
            _untie(layer, {leaf for leaf, count in held.items() if count != shown[leaf]})


def _untie(tree: Directory, tied: set[int]) -> None:
    for name, thing in tree.entries.items():
        if isinstance(thing, Directory):
            _untie(thing, tied)
        elif id(thing) in tied and thing is not None:
            tree.entries[name] = dataclasses.replace(thing)


def without_useless_whiteouts(layers: Stack) -> Stack:
    """Return layers of which none has a whiteout that hides nothing."""
    for number, layer in enumerate(layers):
        if layer is not None:
            _drop_useless_whiteouts(layer, merged(layers[number + 1 :]))
    return layers


def _drop_useless_whiteouts(upper: Directory, below: Directory | None) -> None:
    for name, thing in list(upper.entries.items()):
        under = below.entries.get(name) if below and not upper.opaque else None
        if thing is WHITEOUT and under is None:
            del upper.entries[name]
        elif isinstance(thing, Directory):
            _drop_useless_whiteouts(thing, under if isinstance(under, Directory) else None)


# Programs


_path = st.sampled_from(_PATHS)
_slot = st.integers(0, 2)
_size = st.sampled_from(_SIZES)
_offset = st.sampled_from((0, 0, 3, 4095, 5000))
_data = st.sampled_from((b"x", b"y" * 7, b"z" * 5000))
_mode = st.sampled_from(_MODES)
_times = st.sampled_from((PLANTED + 123_456_789, PLANTED // 2, 1))
_ids = st.sampled_from((-1, 0, 1000, 1001))
_flags = st.sampled_from((0, 0, os.O_CREAT, os.O_TRUNC, os.O_APPEND, os.O_CREAT | os.O_TRUNC))
_rename_flags = st.sampled_from((0, 0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE))
_attribute = st.sampled_from(_ATTRIBUTES)
_name = st.sampled_from([name for name, _ in _ATTRIBUTES])
_ways = st.sampled_from((os.O_RDONLY, os.O_RDONLY, os.O_RDWR, os.O_WRONLY, os.O_RDWR | os.O_APPEND))
_nodes = st.sampled_from(
    ((stat.S_IFIFO | 0o644, 0), (stat.S_IFSOCK | 0o600, 0), (stat.S_IFREG | 0o640, 0))
)


def _step(verb: str, *args: st.SearchStrategy) -> st.SearchStrategy[Step]:
    return st.tuples(*args).map(lambda drawn: Step(verb, drawn))


_NAMES = [
    _step("create", _path, _mode),
    _step("mkdir", _path, _mode),
    st.tuples(_path, _nodes).map(lambda drawn: Step("mknod", (drawn[0], *drawn[1]))),
    _step("symlink", st.sampled_from(("a", "../b", "nowhere")), _path),
    _step("link", _path, _path),
    _step("unlink", _path),
    _step("unlink", _path),
    _step("rmdir", _path),
    *[_step("rename", _path, _path, _rename_flags)] * 4,
]
_CONTENTS = [
    _step("write", _path, _flags, _offset, _data),
    _step("write", _path, _flags, _offset, _data),
    _step("truncate", _path, _size),
    _step("chmod", _path, _mode),
    _step("chown", _path, _ids, _ids),
    _step("utime", _path, _times, _times),
    _attribute.flatmap(
        lambda pair: st.tuples(
            _path, st.sampled_from((0, 0, os.XATTR_CREATE, os.XATTR_REPLACE))
        ).map(lambda drawn: Step("setxattr", (drawn[0], *pair, drawn[1])))
    ),
    _step("removexattr", _path, _name),
]
_LOOKS = [
    _step("stat", _path),
    _step("read", _path),
    _step("list", st.sampled_from((".", "a", "b", "a/a"))),
    _step("attributes", _path),
]
_FILES = [
    *[_step("open", _slot, _path, _ways)] * 3,
    _step("open", _slot, st.sampled_from((".", "a", "b", "a/a")), st.just(os.O_RDONLY)),
    _step("close", _slot),
    *[_step("fread", _slot, _offset, _size)] * 2,
    *[_step("fwrite", _slot, _offset, _data)] * 2,
    _step("fstat", _slot),
    _step("fstat", _slot),
    _step("ftruncate", _slot, _size),
    _step("fchmod", _slot, _mode),
    _step("fchown", _slot, _ids, _ids),
    _step("futime", _slot, _times),
    _attribute.flatmap(lambda pair: _slot.map(lambda slot: Step("fsetxattr", (slot, *pair)))),
    _step("fattributes", _slot),
    _step("fsync", _slot),
    _step("flist", _slot),
    _step("fcreate", _slot, st.sampled_from(("a", "b"))),
    _step("flink", _slot, _path),
    _step("map_read", _slot),
    _step("map_write", _slot, _data),
]
_BECOME = [_step("become", st.sampled_from((0, 1000)))]

_LINKING = frozenset({"link", "flink"})

_CHANGES = st.one_of([*_NAMES, *_CONTENTS])
_FILE = st.one_of(_FILES)


@st.composite
def _while_open(draw: st.DrawFn) -> list[Step]:
    """Open a file, change it or its name by way of its path, and use the descriptor."""
    slot, path = draw(_slot), draw(_path)
    steps = [Step("open", (slot, path, draw(_ways)))]
    for _ in range(draw(st.integers(1, 3))):
        steps.append(_moved(draw(_CHANGES), path))
        steps.append(_in_slot(draw(_FILE), slot))
    return [*steps, Step("fread", (slot, 0, 5000)), Step("fstat", (slot,))]


@st.composite
def _again_and_again(draw: st.DrawFn) -> list[Step]:
    """Change one path several times."""
    path = draw(_path)
    return [_moved(draw(_CHANGES), path) for _ in range(draw(st.integers(2, 4)))]


def _moved(step: Step, path: str) -> Step:
    """Return *step*, done to *path*."""
    first, *others = step.args
    if step.verb == "symlink":
        return Step(step.verb, (first, path))
    return Step(step.verb, (path, *others))


def _in_slot(step: Step, slot: int) -> Step:
    """Return *step*, done to what is open in *slot*."""
    return Step(step.verb, (slot, *step.args[1:]))


@st.composite
def _renamed_while_open(draw: st.DrawFn) -> list[Step]:
    """Make a file, rename it to and fro while it is open, and give it further names."""
    slot, first = draw(_slot), draw(_path)
    steps = [Step("create", (first, 0o640)), Step("open", (slot, first, os.O_RDWR))]
    for _ in range(draw(st.integers(1, 4))):
        verb, second = draw(st.sampled_from(("rename", "rename", "link", "unlink"))), draw(_path)
        args = {"rename": (first, second, draw(_rename_flags)), "link": (first, second)}
        steps.append(Step(verb, args.get(verb, (second,))))
        steps.append(Step("fwrite", (slot, draw(_offset), draw(_data))))
        steps.append(Step("stat", (second,)))
        first = draw(st.sampled_from((first, second)))
    return [*steps, Step("fread", (slot, 0, 5000)), Step("fstat", (slot,))]


# Files that are copied up by blocks


LARGE = 140_000  # bytes; the last block is none of the lower's alone
_far = st.sampled_from((0, 5, 4095, 70_000, LARGE - 7, LARGE, LARGE + 50, LARGE + 9000))
_far_size = st.sampled_from((0, 70_000, 131_072, LARGE - 1, LARGE + 1, 300_000))
_IN_LARGE = [
    *[_step("fwrite", _slot, _far, _data)] * 4,
    *[_step("fread", _slot, _far, _size)] * 2,
    *[_step("ftruncate", _slot, _far_size)] * 2,
    _step("map_write", _slot, _data),
    _step("map_read", _slot),
    _step("fsync", _slot),
    _step("fstat", _slot),
]


def large_files() -> st.SearchStrategy[list[Entry]]:
    """Return files to plant in lowers, before others, that are copied up by blocks."""
    entry = st.builds(
        Entry,
        st.integers(UPPER + 1, LOWERS),
        st.sampled_from(_PATHS),
        st.just("file"),
        st.sampled_from((0o644, 0o4755)),
        st.sampled_from(_OWNERS),
        st.just(LARGE),
        st.none() | st.sampled_from(_ATTRIBUTES[:-2]),
    )
    return _list_of(entry, 6)


@st.composite
def in_large(draw: st.DrawFn, planted: list[Entry]) -> list[Step]:
    """Change parts of some of the files *planted*, and their names, while they are open."""
    steps = []
    for _ in range(draw(st.integers(1, 4))):
        slot, path = draw(_slot), draw(st.sampled_from(planted)).path
        steps.append(Step("open", (slot, path, draw(st.sampled_from((os.O_RDONLY, os.O_RDWR))))))
        steps.append(Step("write", (path, 0, draw(_far), draw(_data))))
        for _ in range(draw(st.integers(1, 6))):
            steps.append(_in_slot(draw(st.one_of(_IN_LARGE)), slot))
            verb, other = (
                draw(st.sampled_from(("rename", "rename", "link", "write", ""))),
                draw(_path),
            )
            args = {"rename": (path, other, draw(_rename_flags)), "link": (path, other)}
            change = Step(verb, args.get(verb, (path, draw(_flags), draw(_far), draw(_data))))
            steps.append(change if verb else _moved(draw(_CHANGES), path))
            if verb == "rename":
                path = draw(st.sampled_from((path, other, other)))
        steps += [Step("fread", (slot, 0, 1 << 20)), Step("read", (path,))]
    return steps


def with_program(planted: list[Entry]) -> st.SearchStrategy[tuple[list[Entry], list[Step]]]:
    """Return files to plant, with what is done to them."""
    return st.tuples(st.just(planted), in_large(planted))


def renames() -> st.SearchStrategy[list[Step]]:
    """Return programs that mostly rename files."""
    parts = st.one_of([_renamed_while_open()] * 3 + [_again_and_again(), _while_open()])
    return _list_of(parts, 8).map(lambda drawn: list(itertools.chain.from_iterable(drawn)))


def programs(*, files: bool = True, links: bool = True) -> st.SearchStrategy[list[Step]]:
    """Return programs, where asked with open files, and with hard links."""
    singles = [*_NAMES, *_CONTENTS, *_LOOKS, *_BECOME]
    parts = [_again_and_again()] * 6
    if files:
        singles += _FILES
        parts += [_while_open()] * 8
    parts += [single.map(lambda step: [step]) for single in singles]
    several = _list_of(st.one_of(parts), 12)

    def joined(drawn: list[list[Step]]) -> list[Step]:
        steps = itertools.chain.from_iterable(drawn)
        return [step for step in steps if links or step.verb not in _LINKING]

    return several.map(joined)
