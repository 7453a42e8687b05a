"""What can be wrong with the marks of one object, judged by its attributes alone.

An attribute that means nothing to any reader, or a number that is only a hint, can
be mended without a decision: the attribute is removed.  One that may once have hidden
or shown something cannot.  The formats are those of `markers`.
"""

import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from unionfs.layers import links, markers
from unionfs.layers.blockmap import BlockMap
from unionfs.layers.layer import Layer, WritableLayer

Mend = Callable[[WritableLayer, bytes], None]

_UNSETTLED = re.compile(rb"[0-9]{1,9}:-?[0-9]{1,9}")  # markers.prepare_links
_NLINK = re.compile(rb"[UL][+-][0-9]{1,9}")  # fs/overlayfs/inode.c, ovl_set_nlink_common
_CAPABILITY_BYTES = frozenset({12, 20, 24})  # struct vfs_ns_cap_data, in its three revisions
_NANOSECONDS = re.compile(rb"-?[0-9]{1,19}")
_INO = re.compile(rb"[0-9a-f]{1,16}")
_METACOPY_MIN = 4  # bytes: version, length, flags, digest algorithm (fs/overlayfs/overlayfs.h)


class Fault(NamedTuple):
    """Something wrong with one object."""

    kind: str  # a word for programs
    words: str  # for people
    mend: Mend | None = None  # None: it takes a decision


@dataclass(slots=True)
class Problem:
    """Something wrong, and how to mend it if that takes no decision."""

    where: Literal["upper", "work"]
    path: bytes
    kind: str  # a word for programs
    words: str  # for people
    mend: Callable[[], None] | None = None
    mended: bool = False


class _Subject(NamedTuple):
    """One attribute of one object."""

    value: bytes
    st: os.stat_result
    is_root: bool
    settled: bool  # the correction of the link count is in force

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.st.st_mode)

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.st.st_mode)


_Judge = Callable[[_Subject], tuple[str, bool] | None]  # words, and whether it may just go


def of_object(layer: Layer, path: bytes, st: os.stat_result) -> Iterator[Fault]:
    """Yield what is wrong with the marks of one object, each for itself."""
    names = layer.attributes(path)
    for name, judge in _JUDGES.items():
        value = layer.find_attribute(path, name) if name in names else None
        if value is None:
            continue
        settled = markers.UNSETTLED not in names
        verdict = judge(_Subject(value, st, path == b".", settled))
        if verdict is not None:
            words, removable = verdict
            yield Fault(markers.short(name), words, removing(name) if removable else None)


def removing(*names: str) -> Mend:
    """Return a mend that removes attributes, those that are there."""

    def mend(layer: WritableLayer, path: bytes) -> None:
        for name in names:
            if layer.find_attribute(path, name) is not None:
                layer.remove_attribute(path, name)

    return mend


def unlist(layer: WritableLayer, path: bytes) -> None:
    """Remove a file's mark that it is in the hard link index."""
    removing(markers.LINK, markers.NLINK)(layer, path)


def _opaque(subject: _Subject) -> tuple[str, bool] | None:
    if not subject.is_directory:
        return "is marked opaque but is no directory", True
    if subject.value == b"y":
        return None
    if subject.value == b"x":  # overlayfs.rst, "whiteouts and opaque directories": for lowers
        return "is marked opaque=x: whiteouts that are files count in lower layers only", False
    return f"the mark opaque is {subject.value!r}, neither y nor x, and so hides nothing", False


def _redirect(subject: _Subject) -> tuple[str, bool] | None:
    if subject.is_root or not (subject.is_directory or subject.is_file):
        return "has a redirect but is neither a file nor a directory with a name", True
    if markers.redirect_is_legal(subject.value):
        return None
    return f"illegal redirect {subject.value!r}: nothing below is shown", False


def _metacopy(subject: _Subject) -> tuple[str, bool] | None:
    if not subject.is_file:
        return "is marked as metadata only but is no file", True
    value = subject.value
    if value in {b"", markers.BARRED} or (
        len(value) >= _METACOPY_MIN and value[:3] == bytes((0, len(value) & 255, 0))
    ):
        return None
    return f"the mark metacopy is {value!r}, which kernel overlayfs refuses", False


def _impure(subject: _Subject) -> tuple[str, bool] | None:
    if subject.is_directory and subject.value == b"y":
        return None
    return f"the mark impure is {subject.value!r} or not on a directory", True


def _whiteout(subject: _Subject) -> tuple[str, bool] | None:
    if not subject.is_file or subject.st.st_size:
        return "has the attribute of a whiteout but is no empty file", True
    return "has the attribute of a whiteout, which counts in lower layers only: it shows", False


def _nlink(subject: _Subject) -> tuple[str, bool] | None:
    if subject.is_directory:
        return "has a correction of the link count but is a directory", True
    if not _NLINK.fullmatch(subject.value):
        return f"damaged correction of the link count {subject.value!r}", True
    in_force = subject.settled and subject.value.startswith(b"U")
    if in_force and subject.st.st_nlink + int(subject.value[1:]) < 1:
        return f"its link count is less than one with the correction {subject.value!r}", True
    return None


def _protattr(subject: _Subject) -> tuple[str, bool] | None:
    if not (subject.is_file or subject.is_directory):
        return "is marked as protected but is neither a file nor a directory", True
    if subject.value and markers.protection_is_legal(subject.value):
        return None
    return f"the mark protattr is {subject.value!r}, which protects from nothing", False


def _unsettled(subject: _Subject) -> tuple[str, bool] | None:
    if _UNSETTLED.fullmatch(subject.value):
        return None
    return f"damaged note on a change of the link count {subject.value!r}", True


def _mtime(subject: _Subject) -> tuple[str, bool] | None:
    if subject.is_file and _NANOSECONDS.fullmatch(subject.value):
        return None
    return f"damaged modification time {subject.value!r}", True


def _blocks(subject: _Subject) -> tuple[str, bool] | None:
    if not subject.is_file:
        return "is marked as a copy of some blocks but is no file", True
    try:
        BlockMap.decoded(subject.value, subject.st.st_size)
    except ValueError as exc:
        return f"the mark of its blocks cannot be read: {exc}", False
    return None


def _capability(subject: _Subject) -> tuple[str, bool] | None:
    if subject.is_file and len(subject.value) in _CAPABILITY_BYTES:
        return None
    return f"damaged capability {subject.value!r}", True


def _ino(subject: _Subject) -> tuple[str, bool] | None:
    if _INO.fullmatch(subject.value) and int(subject.value, 16):
        return None
    return f"damaged inode number {subject.value!r}", True


def _link(subject: _Subject) -> tuple[str, bool] | None:
    if not subject.is_directory and links.is_key(subject.value):
        return None
    return f"damaged entry of the hard link index {subject.value!r}", True


def _of_root(subject: _Subject) -> tuple[str, bool] | None:
    return None if subject.is_root else ("has an attribute that belongs on upper's root", True)


_JUDGES: dict[str, _Judge] = {
    markers.OPAQUE: _opaque,
    markers.REDIRECT: _redirect,
    markers.METACOPY: _metacopy,
    markers.IMPURE: _impure,
    markers.WHITEOUT: _whiteout,
    markers.NLINK: _nlink,
    markers.PROTATTR: _protattr,
    markers.UNSETTLED: _unsettled,
    markers.MTIME: _mtime,
    markers.KEPT_CAPABILITY: _capability,
    markers.BLOCKS: _blocks,
    markers.INO: _ino,
    markers.LINK: _link,
    markers.LOWERS: _of_root,
    markers.WORK: _of_root,
    markers.SCRATCH: _of_root,
    markers.INCOMPLETE: _of_root,
}
