"""What is wrong in a work directory: leftovers of interrupted changes, stale index entries.

The next mount empties the staging area anyway; the mend here does the same.  An
entry of the hard link index is stale when no name shows it any more, or when its
layer is not there.
"""

import functools
import os
import stat
from collections.abc import Callable, Iterator

from unionfs.audit import faults
from unionfs.audit.faults import Problem
from unionfs.layers import incomplete, links, markers, staging
from unionfs.layers.layer import WritableLayer, join
from unionfs.layers.staging import Staging

# Made by a mount of kernel overlayfs that never syncs: overlayfs.rst, "Volatile mount".
_INCOMPATIBLE = b"work/incompat"
_VOLATILE = join(_INCOMPATIBLE, b"volatile")


def problems(work: WritableLayer, layers: int, judged: set[int]) -> Iterator[Problem]:
    """Yield the problems of *work*; *judged* are inode numbers of files known from upper."""
    yield from _staging(work)
    if links.is_usable(work):
        yield from _index(work, layers, judged)
        return
    for path in (b"unionfs", links.DIRECTORY):
        st = work.find(path)
        if st is not None and not stat.S_ISDIR(st.st_mode):
            yield Problem("work", path, "index", "is no directory: no union can be mounted")
            return


def _staging(work: WritableLayer) -> Iterator[Problem]:
    path = staging.DIRECTORY
    st = work.find(path)
    if st is None:
        return
    if not stat.S_ISDIR(st.st_mode):
        yield Problem("work", path, "leftover", "is no directory: no union can be mounted")
    elif _is_volatile(work):
        words = "says that kernel overlayfs was mounted volatile: upper may be torn by a crash"
        yield Problem("work", _VOLATILE, "volatile", words)
    elif count := sum(1 for entry in work.scan(path) if not _is_kept(work, entry.name)):
        words = f"{count} leftover(s) of interrupted changes, which the next mount removes"
        yield Problem("work", path, "leftover", words, functools.partial(_empty, work))


def _is_kept(work: WritableLayer, name: bytes) -> bool:
    """Tell whether an entry stays until all files are whole."""
    return name == staging.INCOMPATIBLE and incomplete.bars_kernel(work)


def _is_volatile(work: WritableLayer) -> bool:
    st = work.find(_INCOMPATIBLE)
    return st is not None and stat.S_ISDIR(st.st_mode) and work.find(_VOLATILE) is not None


def _empty(work: WritableLayer) -> None:
    Staging(work)  # making the record of the area empties it


def _index(work: WritableLayer, layers: int, judged: set[int]) -> Iterator[Problem]:
    names = sorted(entry.name for entry in work.scan(links.DIRECTORY))
    inodes = {name: work.stat(join(links.DIRECTORY, name)).st_ino for name in names}
    for name in names:
        path = join(links.DIRECTORY, name)
        st = work.stat(path)
        if stat.S_ISDIR(st.st_mode):
            yield Problem("work", path, "index", "is a directory, not an entry")
            continue
        verdict = _entry(work, name, st, layers)
        if verdict is not None:
            yield verdict
            continue
        if st.st_ino not in judged:
            judged.add(st.st_ino)
            yield from _attributes(work, path, st)
        yield from _listed_as(work, name, inodes)


def _entry(work: WritableLayer, name: bytes, st: os.stat_result, layers: int) -> Problem | None:
    """Return the fault of an index entry, if any; a file's only name is never removed unasked."""
    path = join(links.DIRECTORY, name)
    remove = functools.partial(_remove, work, path) if st.st_nlink > 1 else None
    if not links.is_key(name):
        return Problem("work", path, "index", "is not named as an entry is", remove)
    if not links.may_be_of(name, layers):
        return Problem("work", path, "index", "is an entry of a layer that is not there", remove)
    if st.st_nlink == 1 and _extra_links(work, path) < 0:
        drop = functools.partial(work.unlink, path)
        return Problem("work", path, "index", "is a stale entry: no name shows it", drop)
    return None


def _extra_links(work: WritableLayer, path: bytes) -> int:
    try:
        return markers.read(work, path).links
    except OSError:
        return 0  # damaged, which is reported for itself


def _remove(work: WritableLayer, path: bytes) -> None:
    faults.unlist(work, path)
    work.unlink(path)


def _attributes(work: WritableLayer, path: bytes, st: os.stat_result) -> Iterator[Problem]:
    for kind, words, mend in faults.of_object(work, path, st):
        call: Callable[[], None] | None = functools.partial(mend, work, path) if mend else None
        yield Problem("work", path, kind, words, call)


def _listed_as(work: WritableLayer, name: bytes, inodes: dict[bytes, int]) -> Iterator[Problem]:
    """Check that a file in the index names its entry, and has just one."""
    path = join(links.DIRECTORY, name)
    said = work.find_attribute(path, markers.LINK)
    if said == name:
        return
    if said is not None and inodes.get(said) == inodes[name]:
        words = f"is a second entry of the file in {os.fsdecode(said)}"
        yield Problem("work", path, "index", words, functools.partial(work.unlink, path))
    else:
        mend = functools.partial(markers.set_link, work, path, name)
        yield Problem("work", path, "index", "the file does not say that it is this entry", mend)
