"""All that is wrong in an upper and its work directory, found by walking both once.

`faults` judges each object by itself.  This module compares the objects with each
other and with the lowers: whiteouts that hide nothing, redirects that lead nowhere
or to an object that is shown elsewhere, metadata without content, numbers given
twice, entries of the hard link index that nobody needs.  Faults that depend on the
lowers are only judged where the lowers are known.  They are not known below a
directory whose own redirect is damaged or leads nowhere: a whiteout there may be
needed again.

Finding changes nothing; `Problem.mend` does, where no decision is needed.
"""

import errno
import functools
import os
import stat
from collections.abc import Callable
from typing import NamedTuple

from unionfs.audit import faults, leftovers, paths
from unionfs.audit.comparison import Whiteout
from unionfs.audit.faults import Problem, unlist
from unionfs.layers import incomplete, links, markers, whiteouts
from unionfs.layers.layer import Layer, LayerPath, WritableLayer, join
from unionfs.layers.markers import Marks
from unionfs.layers.stack import Stack, is_own_work
from unionfs.view.lookup_result import LookupResult
from unionfs.view.node import directory_of
from unionfs.view.union import Features, Union


class _Directory(NamedTuple):
    """A directory of upper."""

    path: bytes
    place: LayerPath
    merged: tuple[LayerPath, ...]  # the lower directories that show through
    certain: bool  # is `merged` all of them?


class Examination:
    """One walk through upper and work."""

    def __init__(
        self,
        upper: WritableLayer,
        work: WritableLayer | None,
        lowers: tuple[Layer, ...],
        whiteout: Whiteout,
    ) -> None:
        # A union without an upper: nothing is written, and the real upper is its top lower.
        self.upper = WritableLayer(upper.fd, number=len(lowers) + 2, name=upper.name)
        stack = Stack(None, None, (self.upper, *lowers))
        self.union = Union(stack, Features(whiteout=whiteout))
        self.work = work
        self._layers = len(lowers)
        self.problems: list[Problem] = []
        self.objects = 0  # looked at
        self.in_part = 0  # files of which upper has a part (copyup=blocks)
        self._directories: list[_Directory] = []  # still to be walked
        self._judged: set[int] = set()  # inode numbers of files with several names
        self._numbers: dict[int, tuple[int, bytes]] = {}  # number given -> host's number, path
        self._shown: dict[tuple[Layer, bytes], bytes] = {}  # lower directory -> path in the union
        self._redirected: list[
            tuple[bytes, bytes, LayerPath]
        ] = []  # path, redirect, what it leads to
        self._entries = self._scan_entries()  # hard link index: entry -> host's number

    def run(self) -> list[Problem]:
        """Return all problems, those of upper first."""
        lowers = self.union.root.lowers[1:]
        self._judge(b".", self.upper.stat(b"."))
        self._directories.append(
            _Directory(b".", self._place(b"."), lowers, certain=self._layers > 0)
        )
        while self._directories:
            directory = self._directories.pop()
            names = sorted(entry.name for entry in self.upper.scan(directory.path))
            for name in names:
                if not is_own_work(directory.path, name):
                    self._visit(directory, name)
        for redirected in self._redirected:
            self._judge_old_place(*redirected)
        self.problems.sort(key=lambda problem: problem.path.split(b"/"))
        if self.work is not None:
            self.problems += leftovers.problems(self.work, self._layers, self._judged)
            self._judge_incomplete(self.work)
        return self.problems

    def _place(self, path: bytes) -> LayerPath:
        """Return a directory of upper, where whiteouts that are files do not count."""
        return LayerPath(self.upper, path)

    def _report(
        self, path: bytes, kind: str, words: str, mend: Callable[[], None] | None = None
    ) -> None:
        self.problems.append(Problem("upper", path, kind, words, mend))

    # One name of upper

    def _visit(self, directory: _Directory, name: bytes) -> None:
        path = join(directory.path, name)
        st = self.upper.find(path)
        if st is None:  # removed since it was listed
            return
        self.objects += 1
        hidden = self.union.whiteouts.hidden_by(name)
        if hidden is not None:
            self._judge_whiteout(directory, path, hidden)
        elif whiteouts.is_whiteout(st):
            self._judge_whiteout(directory, path, name)
        elif not self.union.whiteouts.reserved(name):
            self._judge(path, st)
            if stat.S_ISDIR(st.st_mode):
                self._visit_directory(directory, name)
            else:
                self._visit_file(directory, name, st)

    def _judge_whiteout(self, directory: _Directory, path: bytes, hidden: bytes) -> None:
        mend = functools.partial(_remove, self.upper, directory.path, path)
        if hidden in {b"", b".", b".."}:
            self._report(path, "whiteout", "is a whiteout of no name", mend)
        elif directory.certain and not self._shows_below(directory, hidden):
            self._report(path, "whiteout", "is a whiteout of nothing: useless", mend)

    def _shows_below(self, directory: _Directory, name: bytes) -> bool:
        try:
            return self.union.lookup.shows_below(directory_of(directory.merged), name)
        except OSError:
            return True  # a lower that cannot be read: nothing is known to be useless

    def _judge(self, path: bytes, st: os.stat_result) -> None:
        if not stat.S_ISDIR(st.st_mode) and st.st_nlink > 1:
            if st.st_ino in self._judged:
                return
            self._judged.add(st.st_ino)
        found = faults.of_object(self.upper, path, st)
        for kind, words, mend in found:
            call = functools.partial(mend, self.upper, path) if mend else None
            self._report(path, kind, words, call)

    def _visit_directory(self, directory: _Directory, name: bytes) -> None:
        path = join(directory.path, name)
        marks = self._marks(path)
        result = self._look(directory, name) if marks is not None else None
        if marks is None or result is None:  # damaged, which is reported: its content is judged
            self._directories.append(_Directory(path, self._place(path), (), certain=False))
            return
        self._judge_number(path, marks, result.st)
        merged = result.lowers[1:]
        lost = bool(marks.redirect) and not marks.opaque and not merged
        certain = marks.opaque or (directory.certain and not lost)
        if lost and directory.certain:
            words = f"its redirect {marks.redirect!r} leads to no directory of the lower layers"
            self._report(path, "redirect", words)
        if merged:
            self._judge_place(path, directory, marks.redirect, merged[0])
        self._directories.append(_Directory(path, self._place(path), merged, certain))

    def _marks(self, path: bytes) -> Marks | None:
        """Return the marks of an object, None where they are damaged."""
        try:
            return markers.read(self.upper, path)
        except OSError as exc:
            if exc.errno != errno.EIO:
                raise
            return None

    def _look(self, directory: _Directory, name: bytes) -> LookupResult | None:
        try:
            return self.union.lookup.find(directory_of((directory.place, *directory.merged)), name)
        except OSError as exc:
            path = join(directory.path, name)
            self._report(path, "unreadable", f"cannot be looked at: {exc.strerror}")
            return None

    def _judge_place(
        self, path: bytes, directory: _Directory, redirect: bytes, shown: LayerPath
    ) -> None:
        """Check that no lower directory is shown under two names."""
        key = (shown.layer, shown.path)
        first = self._shown.setdefault(key, path)
        if first != path:
            words = f"shows the same lower directory as {paths.shown(first)}"
            self._report(path, "redirect", words)
        elif redirect:
            old = redirect[1:] if redirect.startswith(b"/") else join(directory.path, redirect)
            self._redirected.append((path, old, shown))

    def _judge_old_place(self, path: bytes, old: bytes, shown: LayerPath) -> None:
        """Check that a redirected directory does not show at its old place, too."""
        places: tuple[LayerPath, ...] = self.union.root.lowers
        try:
            for name in old.split(b"/"):
                result = self.union.lookup.find(directory_of(places), name)
                if result is None or not result.is_directory:
                    return
                places = result.lowers
        except OSError:
            return  # what is in the way is reported for itself
        if shown in places and places[0].layer is not self.upper:
            words = f"shows the same lower directory as {paths.shown(old)}"
            self._report(path, "redirect", words)

    def _visit_file(self, directory: _Directory, name: bytes, st: os.stat_result) -> None:
        path = join(directory.path, name)
        marks = self._marks(path)
        if marks is None:
            return
        self._judge_number(path, marks, st)
        if links.is_key(marks.link):
            self._judge_link(path, marks.link, st)
        if marks.metacopy and stat.S_ISREG(st.st_mode) and self._knows(directory, marks):
            self._judge_content(directory, name, st, marks)

    def _knows(self, directory: _Directory, marks: Marks) -> bool:
        """Tell whether the content that a metadata-only copy should find is known."""
        if marks.redirect.startswith(b"/"):
            return len(self.union.lowers) > 1
        return directory.certain

    def _judge_content(
        self, directory: _Directory, name: bytes, st: os.stat_result, marks: Marks
    ) -> None:
        path = join(directory.path, name)
        self.in_part += marks.partial
        try:
            result = self.union.lookup.find(
                directory_of((directory.place, *directory.merged)), name
            )
        except OSError as exc:
            words = "holds metadata only, and its content is not in the lower layers"
            if exc.errno != errno.EIO:
                words += f" ({exc.strerror})"
            self._report(path, "metacopy", words)
            return
        if result is not None:
            content = result.lowers[-1]
            size = content.layer.stat(content.path).st_size
            if marks.partial:
                self._judge_blocks(path, size)
            elif size != st.st_size:
                words = f"has {st.st_size} bytes, but its content in the lower layer {size}"
                self._report(path, "metacopy", words)

    def _judge_blocks(self, path: bytes, size: int) -> None:
        """Check that the lower file, of *size* bytes, has all that a file in part shows of it."""
        try:
            blocks = markers.blocks(self.upper, path)
        except OSError:  # damaged, which is reported for itself
            return
        if blocks is not None and blocks.limit > size:
            words = f"shows {blocks.limit} bytes of the lower layer, which has {size} of them"
            self._report(path, "metacopy", words)

    def _judge_incomplete(self, work: WritableLayer) -> None:
        """Check that upper has the signs which keep others off its files in part."""
        if not self.in_part or (incomplete.is_said(self.upper) and incomplete.bars_kernel(work)):
            return
        words = "has files in part, and nothing keeps kernel overlayfs from it"
        say = functools.partial(incomplete.say, self.upper, work, syncs=True)
        self._report(b".", "incomplete", words, say)

    # Numbers and hard links

    def _judge_number(self, path: bytes, marks: Marks, st: os.stat_result) -> None:
        if not marks.ino:
            return
        home, first = self._numbers.setdefault(marks.ino, (st.st_ino, path))
        if home != st.st_ino:
            words = f"has the inode number {marks.ino:x} of {paths.shown(first)}"
            drop = faults.removing(markers.INO)
            self._report(path, "unionfs.ino", words, functools.partial(drop, self.upper, path))

    def _judge_link(self, path: bytes, entry: bytes, st: os.stat_result) -> None:
        held = self._entries.get(entry)
        if self.work is None or (held != st.st_ino and st.st_ino in self._entries.values()):
            return  # the index is not known, or speaks of the file itself
        if not links.may_be_of(entry, self._layers):
            words = f"its entry {os.fsdecode(entry)} is of no lower layer"
            self._report(path, "unionfs.link", words, functools.partial(unlist, self.upper, path))
        elif held is None:
            words = f"its entry {os.fsdecode(entry)} in the hard link index is gone"
            mend = functools.partial(self.upper.link, path, self.work, links.LinkIndex.path(entry))
            self._entries[entry] = st.st_ino
            self._report(path, "unionfs.link", words, mend)
        elif held != st.st_ino:
            words = f"its entry {os.fsdecode(entry)} in the hard link index is another file"
            self._report(path, "unionfs.link", words, functools.partial(unlist, self.upper, path))

    def _scan_entries(self) -> dict[bytes, int]:
        if self.work is None or not links.is_usable(self.work):
            return {}
        names = [entry.name for entry in self.work.scan(links.DIRECTORY)]
        return {name: self.work.stat(links.LinkIndex.path(name)).st_ino for name in names}


def _remove(layer: WritableLayer, parent: bytes, path: bytes) -> None:
    """Remove a whiteout that hides nothing, which is no change of its directory."""
    st = layer.stat(parent)
    layer.unlink(path)
    layer.utime(parent, st.st_atime_ns, st.st_mtime_ns)
