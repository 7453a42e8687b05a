"""How an object, as it shows now, differs from the object that lies below.

Content is read only where type and size agree, and not at all where both names
show the content of one lower file (a metadata-only copy).  The modification
time counts only where the content is the same, and never for directories: it
changes with every name in them.
"""

import os
import stat
from collections.abc import Iterator

from unionfs.layers import iflags, markers
from unionfs.layers.layer import Layer, LayerPath
from unionfs.view.lookup_result import LookupResult

# Bytes compared at a time.
_CHUNK = 1 << 20

_OPEN = os.O_RDONLY | os.O_NOATIME | os.O_NONBLOCK  # a file may have become a FIFO by now

_TYPES = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "FIFO",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
}


def kind(st: os.stat_result) -> str:
    """Return the type of an object in words."""
    return _TYPES.get(stat.S_IFMT(st.st_mode), "object")


def between(old: LookupResult, new: LookupResult) -> list[str]:
    """Say in words how *new* differs from *old*; no words where it does not."""
    if stat.S_IFMT(old.st.st_mode) != stat.S_IFMT(new.st.st_mode):
        return [f"{kind(old.st)} -> {kind(new.st)}"]
    content = _content(old, new)
    metadata = _metadata(old.st, new.st, times=not content)
    return [*content, *metadata, *_attributes(old, new), *_flags(old, new)]


def _content(old: LookupResult, new: LookupResult) -> list[str]:
    mode = stat.S_IFMT(new.st.st_mode)
    if mode == stat.S_IFREG:
        return ["content"] if _content_differs(old, new) else []
    if mode == stat.S_IFLNK:
        return ["target"] if _target(old.lowers[0]) != _target(new.lowers[0]) else []
    if mode in (stat.S_IFCHR, stat.S_IFBLK) and old.st.st_rdev != new.st.st_rdev:
        return ["device number"]
    return []


def _target(place: LayerPath) -> bytes:
    return place.layer.readlink(place.path)


def _content_differs(old: LookupResult, new: LookupResult) -> bool:
    if old.st.st_size != new.st.st_size or _is_partial(new):
        return True
    one, other = old.lowers[-1], new.lowers[-1]
    if (one.layer, one.path) == (other.layer, other.path):
        return False
    return any(left != right for left, right in zip(_chunks(one), _chunks(other), strict=False))


def _is_partial(result: LookupResult) -> bool:
    """Tell whether a file has blocks of its own over the content of a lower one."""
    layer, path, _ = result.lowers[0]
    return len(result.lowers) > 1 and markers.read(layer, path).partial


def _chunks(place: LayerPath) -> Iterator[bytes]:
    """Yield the bytes of a file, and an empty end."""
    fd = place.layer.open(place.path, _OPEN)
    try:
        while data := os.read(fd, _CHUNK):
            yield data
        yield b""
    finally:
        os.close(fd)


def _metadata(old: os.stat_result, new: os.stat_result, *, times: bool) -> Iterator[str]:
    modes = stat.S_IMODE(old.st_mode), stat.S_IMODE(new.st_mode)
    if modes[0] != modes[1]:
        yield f"mode {modes[0]:04o} -> {modes[1]:04o}"
    if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid):
        yield f"owner {old.st_uid}:{old.st_gid} -> {new.st_uid}:{new.st_gid}"
    if times and not stat.S_ISDIR(new.st_mode) and old.st_mtime_ns != new.st_mtime_ns:
        yield "mtime"


def _attributes(old: LookupResult, new: LookupResult) -> list[str]:
    was, now = (_shown_attributes(*result.lowers[0][:2]) for result in (old, new))
    changed = sorted(name for name in was.keys() | now.keys() if was.get(name) != now.get(name))
    return [f"attributes {' '.join(changed)}"] if changed else []


def _shown_attributes(layer: Layer, path: bytes) -> dict[str, bytes | None]:
    """Return the extended attributes that users see, under the names on disk."""
    names = (name for name in layer.attributes(path) if not markers.is_private(name))
    return {name: layer.find_attribute(path, name) for name in names}


def _flags(old: LookupResult, new: LookupResult) -> list[str]:
    """Compare what lsattr(1) shows; an object of upper is protected by its mark."""
    if stat.S_IFMT(new.st.st_mode) not in (stat.S_IFREG, stat.S_IFDIR):
        return []
    was, now = _host_flags(old.lowers[0]), _host_flags(new.lowers[0])
    now |= markers.read(*new.lowers[0][:2]).protection
    gained, lost = iflags.letters(now & ~was), iflags.letters(was & ~now)
    words = [sign + letters for sign, letters in (("+", gained), ("-", lost)) if letters]
    return [f"flags {' '.join(words)}"] if words else []


def _host_flags(place: LayerPath) -> int:
    return iflags.FLAGS.flags(iflags.find(place.layer, place.path, iflags.FLAGS))
