"""What an upper changes: the paths that were added, changed and deleted against the lower layers.

Upper is walked, the lowers are only asked about the names in it, so the work is
proportional to what was changed.  Two views are compared: upper over the
lowers, as mounted, and the lowers alone.

* **deleted** is the topmost path that is gone; paths below it are not listed.
  In a directory that was deleted and made anew (opaque), names that are not there
  again are deleted.
* A directory copied up only for its content, and a file that is like the one below in
  all but its inode, are not changes.
* A renamed lower directory or a metadata-only copy says where it came from: the
  new path is added (or changed, where it replaced something), "renamed from" the
  old path; the old path is deleted, "renamed to" the new one.  Below a renamed
  directory the changes are those against the directory at the old path.
* A file with several names in a lower layer is listed under those of its names
  that are in upper; finding the others would mean to walk the lowers.
"""

import contextlib
import errno
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from unionfs.audit import differences, paths
from unionfs.layers import markers
from unionfs.layers.layer import Layer, LayerPath, join
from unionfs.layers.stack import Stack, is_own_work
from unionfs.view.lookup_result import LookupResult
from unionfs.view.node import directory_of
from unionfs.view.union import Features, Union

Kind = Literal["added", "changed", "deleted"]
Whiteout = Literal["overlay", "aufs"]

_VANISHED = frozenset({errno.ENOENT, errno.ESTALE, errno.ENOTDIR})  # of a live mount


@dataclass(frozen=True, slots=True)
class Change:
    """One path of the union, without a leading slash, that is not what the lowers hold."""

    path: bytes
    kind: Kind
    detail: str = ""
    origin: bytes = b""  # where it was renamed from, or linked to
    unreadable: bool = False  # it may be changed or not: `detail` says why nobody knows

    def line(self) -> str:
        """Return the line for people."""
        detail = f" ({self.detail})" if self.detail else ""
        return f"{self.kind:8} {paths.shown(self.path)}{detail}"


class _Entry(NamedTuple):
    """A change, and the paths in the lowers that it is about."""

    path: bytes
    kind: Kind
    words: list[str]
    old: bytes = b""  # the path in the lowers below the path itself
    origin: bytes = b""  # the path in the lowers that it shows instead: it was renamed from there
    directory: bool = False
    unreadable: bool = False


class _Directory(NamedTuple):
    """A directory of upper, and the lower directories that it is compared with."""

    path: bytes  # in the union
    upper: LayerPath
    merged: tuple[LayerPath, ...]  # the lower directories that show through
    before: tuple[LayerPath, ...]  # those that lie below, though it may be opaque
    old: bytes  # the path of `before` in the union of the lowers


def changes(stack: Stack, whiteout: Whiteout = "overlay") -> Iterator[Change]:
    """Yield what upper changes, in the order of the paths, each directory before its content."""
    if stack.upper is None:
        return
    upper = Layer(stack.upper.fd, number=len(stack.lowers) + 1, name=stack.upper.name)
    found = _Comparison(upper, stack.lowers, whiteout).walk()
    renamed = {entry.origin: entry.path for entry in found if entry.origin}
    gone = {entry.old for entry in found if entry.kind == "deleted" or entry.origin}
    for entry in sorted(found, key=lambda entry: entry.path.split(b"/")):
        words = entry.words
        if entry.kind == "deleted" and entry.old in renamed:
            words = [f"renamed to {paths.shown(renamed[entry.old])}"]
        elif entry.origin:
            verb = "renamed from" if entry.directory or entry.origin in gone else "linked to"
            words = [f"{verb} {paths.shown(entry.origin)}", *words]
        path = b"" if entry.path == b"." else entry.path
        yield Change(path, entry.kind, ", ".join(words), entry.origin, entry.unreadable)


class _Comparison:
    """The walk through one upper."""

    def __init__(self, upper: Layer, lowers: tuple[Layer, ...], whiteout: Whiteout) -> None:
        # A union without an upper: nothing is written, and the real upper is its top lower.
        stack = Stack(None, None, (upper, *lowers))
        self.union = Union(stack, Features(whiteout=whiteout))
        self.before = self.union.columns.roots(lowers)
        self.found: list[_Entry] = []
        self.directories: list[_Directory] = []  # still to be walked

    def walk(self) -> list[_Entry]:
        """Return all changes."""
        upper, *merged = self.union.root.lowers
        root = _Directory(b".", _as_upper(upper), tuple(merged), self.before, b".")
        self._compare_roots(root)
        self.directories.append(root)
        while self.directories:
            directory = self.directories.pop()
            with self._reporting(directory.path, directory.old):
                self._visit_all(directory)
        return self.found

    @contextlib.contextmanager
    def _reporting(self, path: bytes, old: bytes) -> Iterator[None]:
        """Report objects that cannot be read; objects that vanished meanwhile are no change."""
        try:
            yield
        except markers.DamagedError:
            self._report(path, old, "damaged: see unionfs check")
        except OSError as exc:
            if exc.errno not in _VANISHED:
                self._report(path, old, exc.strerror or str(exc))

    def _report(self, path: bytes, old: bytes, why: str) -> None:
        self.found.append(_Entry(path, "changed", [why], old, unreadable=True))

    def _compare_roots(self, root: _Directory) -> None:
        if root.before:
            old, new = (
                LookupResult(0, places[0].layer.stat(b"."), upper=False, named=False, below=places)
                for places in (root.before, (root.upper,))
            )
            if words := differences.between(old, new):
                self.found.append(_Entry(root.path, "changed", words, root.old))

    def _visit_all(self, directory: _Directory) -> None:
        names = self.union.whiteouts.listing(directory.upper)
        for name, hint in names.items():
            if is_own_work(directory.path, name):
                continue
            with self._reporting(join(directory.path, name), join(directory.old, name)):
                self._visit(directory, name, shows=hint != 0)
        if directory.before and not directory.merged:
            for name in self.union.listing(directory_of(directory.before)):
                if name not in names:
                    path, old = join(directory.path, name), join(directory.old, name)
                    self.found.append(_Entry(path, "deleted", [], old))

    def _visit(self, directory: _Directory, name: bytes, *, shows: bool) -> None:
        path, old = join(directory.path, name), join(directory.old, name)
        before = self._look(directory.before, name)
        now = self._look((directory.upper, *directory.merged), name) if shows else None
        if now is None:
            if before is not None:
                self.found.append(_Entry(path, "deleted", [], old))
            return
        origin = self._origin(directory, name, now, before)
        if origin == old:
            self._compare(path, old, before, now)
        else:
            kind: Kind = "added" if before is None else "changed"
            self._compare_renamed(_Entry(path, kind, [], old, origin, now.is_directory), now)

    def _look(self, places: tuple[LayerPath, ...], name: bytes) -> LookupResult | None:
        return self.union.lookup.find(directory_of(places), name) if places else None

    def _origin(
        self, directory: _Directory, name: bytes, now: LookupResult, before: LookupResult | None
    ) -> bytes:
        """Return the path in the lowers of the lower object in *now*; its own path if none."""
        own = join(directory.old, name)
        below = now.lowers[1:]
        if not below or (before is not None and below == before.lowers[-len(below) :]):
            return own
        upper = now.lowers[0]
        redirect = markers.read(upper.layer, upper.path).redirect
        if redirect.startswith(b"/"):
            return redirect[1:]
        return join(directory.old, redirect) if redirect else own

    def _compare(
        self, path: bytes, old: bytes, before: LookupResult | None, now: LookupResult
    ) -> None:
        if before is None:
            self.found.append(_Entry(path, "added", [], old))
        elif words := differences.between(before, now):
            self.found.append(_Entry(path, "changed", words, old))
        if now.is_directory:
            below = before.lowers if before is not None and before.is_directory else ()
            self.directories.append(
                _Directory(path, _as_upper(now.lowers[0]), now.lowers[1:], below, old)
            )

    def _compare_renamed(self, entry: _Entry, now: LookupResult) -> None:
        before = self._resolve(entry.origin)
        words = [] if before is None else differences.between(before, now)
        self.found.append(entry._replace(words=words))
        if now.is_directory:
            upper, *below = now.lowers
            merged = tuple(below)
            self.directories.append(
                _Directory(entry.path, _as_upper(upper), merged, merged, entry.origin)
            )

    def _resolve(self, path: bytes) -> LookupResult | None:
        """Return what the lowers alone show at *path*."""
        places = self.before
        result = None
        for name in path.split(b"/"):
            if result is not None and not result.is_directory:
                return None
            result = self._look(places, name)
            if result is None:
                return None
            places = result.lowers
        return result


def _as_upper(place: LayerPath) -> LayerPath:
    """Return a directory of upper, where whiteouts that are files do not count."""
    return place._replace(whiteouts_are_files=False)
