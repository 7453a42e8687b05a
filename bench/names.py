"""Work on names: create and remove, replace, open and close, rename, remove, list."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from bench.workload import Workload, count_files, expect, tool

if TYPE_CHECKING:
    from pathlib import Path

    from bench.material import Store
    from bench.workload import Mounted

CONTENT = b"a few words\n" * 8


def create_files(directory: Path, count: int) -> None:
    """Make a directory of *count* small files."""
    os.mkdir(directory)
    fd = os.open(directory, os.O_RDONLY)
    for number in range(count):
        file = os.open(f"f{number}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=fd)
        os.write(file, CONTENT)
        os.close(file)
    os.close(fd)


def remove_files(directory: Path, count: int) -> None:
    """Remove what `create_files` made."""
    fd = os.open(directory, os.O_RDONLY)
    for number in range(count):
        os.unlink(f"f{number}", dir_fd=fd)
    os.close(fd)
    os.rmdir(directory)


class SmallFiles(Workload):
    """Create many small files in one directory, then remove them."""

    name = "small-files"
    title = "small files: create, remove"
    section = "Names"

    def run(self, place: Mounted) -> None:
        create_files(place.root / "small", self.sizes.small_files)
        self.seen = len(os.listdir(place.root / "small"))
        remove_files(place.root / "small", self.sizes.small_files)

    def check(self, place: Mounted) -> None:
        expect("files", seen=self.seen, wanted=self.sizes.small_files)
        expect("directory left", seen=(place.root / "small").exists(), wanted=False)


class Passwd(Workload):
    """Replace a file as passwd(1) does: write a new one beside it, rename it over the old."""

    name = "passwd"
    title = "write aside, rename over"
    section = "Names"

    def lowers(self, store: Store) -> tuple[Path, ...]:
        return (store.etc(),)

    def run(self, place: Mounted) -> None:
        old, new = os.fspath(place.root / "etc/passwd"), os.fspath(place.root / "etc/passwd+")
        for number in range(self.sizes.replacements):
            fd = os.open(old, os.O_RDONLY)
            text = os.read(fd, 1 << 16)
            os.close(fd)
            fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            os.write(fd, b"%d\n" % number + text[text.index(b"\n") + 1 :])
            os.close(fd)
            os.rename(new, old)

    def check(self, place: Mounted) -> None:
        first = (place.root / "etc/passwd").read_text().split("\n", 1)[0]
        expect("last version", seen=first, wanted=str(self.sizes.replacements - 1))
        names = sorted(os.listdir(place.root / "etc"))
        expect("names", seen=names, wanted=["group", "gshadow", "passwd", "shadow"])


class OpenClose(Workload):
    """Open and close one file of a lower."""

    name = "open-close"
    title = "open and close"
    section = "Names"
    only_reads = True
    moves_data = True

    def lowers(self, store: Store) -> tuple[Path, ...]:
        return (store.etc(),)

    def run(self, place: Mounted) -> None:
        path = os.fspath(place.root / "etc/passwd")
        for _ in range(self.sizes.opens):
            os.close(os.open(path, os.O_RDONLY))

    def check(self, place: Mounted) -> None:
        expect("bytes", seen=bool((place.root / "etc/passwd").read_bytes()), wanted=True)


class RenameDirectory(Workload):
    """Rename a full directory of a lower with mv(1), which copies where rename(2) gives EXDEV."""

    name = "rename-directory"
    title = "rename a lower directory"
    section = "Copying up"

    def lowers(self, store: Store) -> tuple[Path, ...]:
        return (store.directory(),)

    def run(self, place: Mounted) -> None:
        tool("mv", place.root / "many", place.root / "renamed")

    def check(self, place: Mounted) -> None:
        expect("old name left", seen=(place.root / "many").exists(), wanted=False)
        expect("files", seen=count_files(place.root / "renamed"), wanted=self.sizes.directory)


class RemoveTree(Workload):
    """Remove a tree of a lower."""

    name = "remove-tree"
    title = "remove a lower tree"
    section = "Names"

    def lowers(self, store: Store) -> tuple[Path, ...]:
        return (store.tree(),)

    def run(self, place: Mounted) -> None:
        tool("rm", "-r", place.root / "tree")

    def check(self, place: Mounted) -> None:
        # not an empty root: unionfs-fuse shows its own directory there
        expect("tree left", seen=(place.root / "tree").exists(), wanted=False)


class Listing(Workload):
    """List a huge directory, without asking for attributes."""

    name = "listing"
    title = "list a huge directory"
    section = "Names"
    only_reads = True

    def lowers(self, store: Store) -> tuple[Path, ...]:
        return (store.listing(),)

    def run(self, place: Mounted) -> None:
        self.seen = len(os.listdir(place.root / "many"))

    def check(self, place: Mounted) -> None:  # noqa: ARG002 - what was seen is the proof
        expect("entries", seen=self.seen, wanted=self.sizes.listing)


WORKLOADS = (SmallFiles, Passwd, OpenClose, RemoveTree, Listing, RenameDirectory)
