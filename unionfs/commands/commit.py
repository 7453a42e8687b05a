"""`unionfs commit`: carry chosen changes from a live union into the lower below it.

"I have tried it, keep it": the lower becomes what the union shows, path by path.

* Each file is written aside, synced, and renamed over the old one; a deleted object is
  first renamed away.  So the lower holds the old object or the new one.  After a commit
  that was broken off, call it again: the paths that are done are no changes any more.
* The union shows the same as before.  First its daemon makes the objects below new and
  renamed names independent (`rootattributes`); all others are in upper anyway.
* Directories are made before their content; deletions come last.

Upper keeps its copies.  The copies of a RAM upper are gone with the next boot; those of a state
side persist.
"""

import argparse
import contextlib
import errno
import functools
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from typing import NamedTuple

from unionfs.audit import paths, sides
from unionfs.audit.comparison import Change
from unionfs.commands import diff, offline, selection, truelower
from unionfs.commands.committedlinks import CommittedLinks
from unionfs.fuse.rootattributes import ALONE
from unionfs.host import content
from unionfs.layers import walk
from unionfs.layers.attribute_copies import Model, copy_attributes
from unionfs.layers.layer import Layer, WritableLayer, join
from unionfs.layers.persistence import Rules
from unionfs.layers.whiteouts import BOTTOM
from unionfs.mounting.options import Refused

_FAILED = 1  # exit status

# In the lower's root: files written aside, and objects renamed away to be deleted.
_STAGING = b".unionfs-commit"

# How many times a file is read anew because it was changed meanwhile.
_TRIES = 3

_EPILOG = """\
PATH is a file or directory as the union shows it, or one that was deleted; all below it is
meant, too.  Without one: all changes of the union at /.  In a union with two sides, what persists
is carried only if PATH itself persists: it stays anyway, and host keys or accounts are not meant
for every machine of an image.

The lower of the union is made writable meanwhile, and read-only again afterwards; if it is
the root of this machine, it is /ro.  The union shows the same as before.  Committed paths
are no changes any more: unionfs diff does not list them.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.epilog = _EPILOG
    parser.add_argument("paths", metavar="PATH", nargs="*", default=["/"], help="what to carry")
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask")
    parser.add_argument(
        "-n", "--dry-run", action="store_true", help="only list what would be carried"
    )


def run(arguments: argparse.Namespace) -> int:
    """Show the changes, ask, and carry them; the exit status is 1 if some are left."""
    offline.require_root()
    mounted, wanted = selection.union_of(arguments.paths)
    lower = truelower.find(mounted)
    stack = mounted.open_stack()
    if stack.upper is None:
        raise Refused(f"'{mounted.mountpoint}' is mounted without an upper: nothing can change")
    found = sides.of_both(stack, diff.whiteout_of(mounted))
    chosen = list(selection.chosen(found, wanted, mounted.rules()))
    paths.let_stdout_write_any_name()
    for change in chosen:
        print(change.line())
    if not chosen:
        print("unionfs: nothing to carry")
    if not chosen or arguments.dry_run or not (arguments.yes or _agreed(lower.name)):
        return 0
    union = Layer(os.open(mounted.mountpoint, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    with truelower.writable(lower, mounted.mountpoint) as place:
        fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            layer = WritableLayer(fd, number=BOTTOM, name=lower.name)
            left = _Commit(union, layer, found, mounted.rules()).carry(chosen)
        finally:
            os.fchdir(union.fd)  # not in the lower, which is to be read-only again
            os.close(fd)
    print(f"unionfs: {len(chosen) - left} carried into '{lower.name}', {left} left")
    return _FAILED if left else 0


def _agreed(name: str) -> bool:
    sys.stdout.flush()
    if not sys.stdin.isatty():
        raise Refused("there is no terminal to ask: say --yes")
    return input(f"Carry this into '{name}'? [y/N] ").strip().lower() in {"y", "yes"}


class _Names(NamedTuple):
    """The names of one file of the union in the lower."""

    paths: list[bytes]
    done: bool  # they are names of the new file already


class _Commit:
    """The changes of one union on their way into its lower."""

    def __init__(
        self, union: Layer, lower: WritableLayer, found: list[Change], rules: Rules
    ) -> None:
        self._union = union  # as mounted
        self._lower = lower
        self._rules = rules
        self._number = 0
        self._changed = {change.path for change in found}
        self._found = found
        self._links = CommittedLinks(union, lower)

    def carry(self, chosen: list[Change]) -> int:
        """Carry the chosen changes; return how many are left."""
        if self._lower.find(_STAGING) is not None:  # left by a commit that was broken off
            _remove_tree(self._lower, _STAGING)
        self._lower.mkdir(_STAGING, 0o700)
        try:
            with self._links.held():
                return self._carry_all(chosen)
        finally:
            _remove_tree(self._lower, _STAGING)
            os.sync()

    def _carry_all(self, chosen: list[Change]) -> int:
        left = 0
        self._make_independent(chosen)
        for change in (*_with(chosen, deleted=False), *_with(chosen, deleted=True)):
            try:
                self._carry(change)
            except OSError as exc:
                left += 1
                print(f"unionfs: {paths.shown(change.path)}: {exc.strerror}", file=sys.stderr)
        return left

    def _make_independent(self, chosen: list[Change]) -> None:
        """Let the daemon keep all that new or renamed names show of the lower."""
        for change in self._found:
            if change.origin:
                self._stand_alone(change.path)
        for change in chosen:
            if change.kind == "added" and not change.origin:
                self._stand_alone(change.path)

    def _stand_alone(self, path: bytes) -> None:
        st = self._union.find(path)
        if st is not None and (stat.S_ISDIR(st.st_mode) or stat.S_ISREG(st.st_mode)):
            with _at(self._union, path) as name:
                os.setxattr(name, ALONE, b"", follow_symlinks=False)

    def _carry(self, change: Change) -> None:
        if change.unreadable:
            raise OSError(errno.EIO, change.detail)
        path = change.path or b"."
        st = self._union.find(path)
        if change.kind == "deleted" or st is None:
            self._remove(path)
        elif stat.S_ISDIR(st.st_mode):
            self._carry_directory(path, st)
            if change.origin:
                self._carry_content(path)
        else:
            self._carry_file(path, st)
        self._stand_alone(b".")  # the daemon forgets what it knew of the lower

    def _staged(self) -> bytes:
        self._number += 1
        return join(_STAGING, b"%d" % self._number)

    def _remove(self, path: bytes) -> None:
        """Remove an object of the lower in one step; it is deleted later."""
        if self._lower.find(path) is not None:
            self._links.note(path)
            staged = self._staged()
            self._lower.move(path, self._lower, staged)
            _remove_tree(self._lower, staged)
            self._links.renew()

    def _put(self, staged: bytes, path: bytes) -> None:
        """Give a staged object its name, in place of another of whatever kind."""
        self._links.note(path)
        old = self._lower.find(path)
        new = self._lower.stat(staged)
        if old is None or not (stat.S_ISDIR(old.st_mode) or stat.S_ISDIR(new.st_mode)):
            self._lower.move(staged, self._lower, path)
        else:
            self._lower.exchange(staged, self._lower, path)
            _remove_tree(self._lower, staged)
        self._links.renew()

    # Directories

    def _carry_directory(self, path: bytes, st: os.stat_result) -> None:
        old = self._lower.find(path)
        if old is not None and stat.S_ISDIR(old.st_mode):
            self._dress(path, path, st)
            return
        staged = self._staged()
        self._lower.mkdir(staged, 0o700)
        self._dress(path, staged, st)
        self._put(staged, path)

    def _carry_content(self, top: bytes) -> None:
        """Carry the whole content of a renamed directory, of which only changes are listed."""
        directories = [top]
        while directories:
            directory = directories.pop()
            shown = {entry.name for entry in self._union.scan(directory)}
            for name in {entry.name for entry in self._lower.scan(directory)} - shown:
                self._remove(join(directory, name))
            for name in shown:
                path = join(directory, name)
                st = self._union.stat(path)
                if stat.S_ISDIR(st.st_mode):
                    self._carry_directory(path, st)
                    directories.append(path)
                else:
                    self._carry_file(path, st)

    def _dress(self, path: bytes, target: bytes, st: os.stat_result) -> None:
        """Give *target* in the lower the owner, mode, attributes and times of *path*."""
        self._lower.chown(target, st.st_uid, st.st_gid)
        if not stat.S_ISLNK(st.st_mode):
            self._lower.chmod(target, stat.S_IMODE(st.st_mode))
        shown = set(self._union.attributes(path))
        for name in self._lower.attributes(target):
            if name not in shown:
                self._lower.remove_attribute(target, name)
        copy_attributes(Model(self._union, path, st), self._lower, target, private=False)
        self._lower.utime(target, st.st_atime_ns, st.st_mtime_ns)

    # Everything else

    def _carry_file(self, path: bytes, st: os.stat_result) -> None:
        if st.st_nlink == 1:
            staged = self._staged()
            self._copy(path, staged, st)
            self._put(staged, path)
            return
        held = self._union.hold(path)  # so that no other file gets its number meanwhile
        try:
            self._carry_linked(path, os.fstat(held))
        finally:
            os.close(held)

    def _carry_linked(self, path: bytes, st: os.stat_result) -> None:
        """Carry a file that has several names in the union."""
        staged = self._staged()
        names = self._names.setdefault(st.st_ino, _Names([], done=False))
        names.paths[:] = [name for name in names.paths if self._shows(name, st)]
        if not names.paths or (not names.done and self._is_old(path, names)):
            self._carry_all_names(path, st, names)
        elif path not in names.paths:
            self._links.note(names.paths[0])
            self._lower.link(names.paths[0], self._lower, staged)
            self._put(staged, path)
            names.paths.append(path)

    def _is_old(self, path: bytes, names: "_Names") -> bool:
        """Tell whether the lower's file with these names may differ from the union's.

        For a file with names on both sides, the list has those in scratch with the file's old form.
        """
        sides = {self._rules.at(name).persisted for name in (path, *names.paths)}
        return len(sides) > 1 or not self._changed.isdisjoint(names.paths)

    def _carry_all_names(self, path: bytes, st: os.stat_result, names: "_Names") -> None:
        """Copy a file, and give the copy all names of the old one that show it in the union."""
        for name in names.paths:
            self._stand_alone(name)
        staged = self._staged()
        self._copy(path, staged, st)
        self._put(staged, path)
        for name in names.paths:
            if name != path:
                staged = self._staged()
                self._lower.link(path, self._lower, staged)
                self._put(staged, name)
        self._names[st.st_ino] = _Names([path, *names.paths], done=True)

    def _shows(self, path: bytes, st: os.stat_result) -> bool:
        now = self._union.find(path)
        return now is not None and now.st_ino == st.st_ino

    @functools.cached_property
    def _names(self) -> dict[int, "_Names"]:
        """Map the union's inode numbers of files with several names to their names in the lower."""
        found: dict[int, _Names] = {}
        for path, _ in walk.non_directories(self._lower):
            now = self._union.find(path)
            if now is not None and now.st_nlink > 1:
                found.setdefault(now.st_ino, _Names([], done=False)).paths.append(path)
        return found

    def _copy(self, path: bytes, staged: bytes, st: os.stat_result) -> None:
        kind = stat.S_IFMT(st.st_mode)
        if kind == stat.S_IFLNK:
            self._lower.symlink(self._union.readlink(path), staged)
        elif kind != stat.S_IFREG:
            self._lower.mknod(staged, st.st_mode, st.st_rdev)
        else:
            self._copy_content(path, staged)
            st = self._union.stat(path)
        self._dress(path, staged, st)
        if kind == stat.S_IFREG:
            with _opened(self._lower, staged, os.O_RDONLY) as fd:
                os.fsync(fd)

    def _copy_content(self, path: bytes, staged: bytes) -> None:
        """Copy a file as it was at one moment."""
        with _opened(self._union, path, os.O_RDONLY) as source:
            target = self._lower.create(staged, os.O_RDWR, 0o600)
            try:
                for _ in range(_TRIES):
                    before = os.fstat(source)
                    content.copy(source, target, before.st_size)
                    after = os.fstat(source)
                    if (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns):
                        return
            finally:
                os.close(target)
        raise OSError(errno.EBUSY, "it is being written to: left as it was")


def _with(chosen: list[Change], *, deleted: bool) -> Iterator[Change]:
    return (change for change in chosen if (change.kind == "deleted") == deleted)


def _remove_tree(layer: WritableLayer, path: bytes) -> None:
    """Remove an object of any kind."""
    if stat.S_ISDIR(layer.stat(path).st_mode):
        shutil.rmtree(path, dir_fd=layer.fd)
    else:
        layer.unlink(path)


@contextlib.contextmanager
def _opened(layer: Layer, path: bytes, flags: int) -> Iterator[int]:
    fd = layer.open(path, flags)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def _at(layer: Layer, path: bytes) -> Iterator[bytes]:
    """Enter the root of *layer*, as extended attributes have no *at() calls."""
    os.fchdir(layer.fd)
    yield path
