"""Directory trees as literals: how they are made, looked at and removed.

    {"source": "text", "target": {"inner": "text"}, "link": Symlink("source")}

A string is a file with that content, a mapping a directory.  All functions work
on the current directory, so that paths stay short and no permission on the
directories above it is needed.
"""

import contextlib
import os
import shutil
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class File:
    """A regular file with attributes of its own; the owner is set only by root."""

    text: str
    mode: int = 0o644
    owner: int = 0
    modified_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Symlink:
    """A symbolic link."""

    to: str


@dataclass(frozen=True, slots=True)
class Link:
    """Another name of a file that stands before it in the same directory."""

    to: str


@dataclass(frozen=True, slots=True)
class Other:
    """What only turns up when one looks: a device, a FIFO, a socket."""

    kind: str


Entry: TypeAlias = "str | File | Symlink | Link | Other | Tree"
Tree: TypeAlias = Mapping[str, Entry]


def half(tree: Tree, *, targets: bool) -> Tree:
    """Return the names that are renamed onto (`target...`), or all the others."""
    return {name: entry for name, entry in tree.items() if name.startswith("target") is targets}


def complete(tree: Tree, directory: str = "") -> None:
    """Make what is missing of *tree*; what already lies there is left alone."""
    for name, entry in tree.items():
        path = os.path.join(directory, name)
        if isinstance(entry, Mapping):
            with contextlib.suppress(FileExistsError):
                os.mkdir(path)
            complete(entry, path)
        elif not os.path.lexists(path):
            _make(path, entry)


def _make(path: str, entry: str | File | Symlink | Link | Other) -> None:
    if isinstance(entry, Symlink):
        os.symlink(entry.to, path)
    elif isinstance(entry, Link):
        os.link(os.path.join(os.path.dirname(path), entry.to), path)
    elif isinstance(entry, str):
        write(path, entry)
    elif isinstance(entry, File):
        _make_file(path, entry)


def _make_file(path: str, entry: File) -> None:
    write(path, entry.text)
    if os.geteuid() == 0:
        os.chown(path, entry.owner, entry.owner)
    os.chmod(path, entry.mode)
    if entry.modified_ns is not None:
        os.utime(path, ns=(entry.modified_ns, entry.modified_ns))


def write(path: str, text: str) -> None:
    """Create or overwrite a file."""
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def read(path: str) -> str:
    """Return a file's content."""
    with open(path, encoding="utf-8") as file:
        return file.read()


def harvest(directory: str = ".") -> Tree:
    """Return the tree that lies in *directory*."""
    return {name: _seen(os.path.join(directory, name)) for name in sorted(os.listdir(directory))}


def _seen(path: str) -> Entry:
    mode = os.lstat(path).st_mode
    if stat.S_ISDIR(mode):
        return harvest(path)
    if stat.S_ISREG(mode):
        return read(path)
    if stat.S_ISLNK(mode):
        return Symlink(os.readlink(path))
    return Other(stat.filemode(mode)[0])


def plain(tree: Tree) -> Tree:
    """Return *tree* as `harvest` would see it."""
    shown: dict[str, Entry] = {}
    for name, entry in tree.items():
        if isinstance(entry, Mapping):
            shown[name] = plain(entry)
        elif isinstance(entry, File):
            shown[name] = entry.text
        elif isinstance(entry, Link):
            shown[name] = shown[entry.to]
        else:
            shown[name] = entry
    return shown


def difference(seen: Tree, wanted: Tree, where: str = "") -> str | None:
    """Say the first thing in which *seen* is not *wanted*; None when they are equal."""
    for name in sorted({*seen, *wanted}):
        path = where + name
        if name not in seen:
            return f"{path} is missing"
        if name not in wanted:
            return f"{path} is there"
        have, want = seen[name], wanted[name]
        if isinstance(have, Mapping) and isinstance(want, Mapping):
            inside = difference(have, want, path + "/")
            if inside is not None:
                return inside
        elif have != want:
            return f"{path} is {_describe(have)}, not {_describe(want)}"
    return None


def _describe(entry: Entry) -> str:
    return "a directory" if isinstance(entry, Mapping) else repr(entry)


def remove(path: str) -> None:
    """Remove a tree, also one whose directories are read-only by now."""

    def allow_and_retry(function: Callable[[str], object], inside: str, _error: object) -> None:
        os.chmod(os.path.dirname(inside), 0o700)
        function(inside)

    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(path, onerror=allow_and_retry)
