"""Work on a source tree: unpack, copy, walk, read, compile, git."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, ClassVar

from bench.material import FILES_IN_LEAF, GIT, leaf
from bench.workload import Workload, count_files, expect, tool

if TYPE_CHECKING:
    from pathlib import Path

    from bench.material import Store
    from bench.sizes import Sizes
    from bench.workload import Mounted

WARM_WALKS = 3


def _entries(sizes: Sizes) -> int:
    """Return how many files and symlinks the source tree has."""
    leaves = -(-sizes.tree_files // FILES_IN_LEAF)
    return sizes.tree_files + leaves


class _OnTree(Workload):
    section = "Trees"

    def lowers(self, store: Store) -> tuple[Path, ...]:
        return (store.tree(),)


class Unpack(_OnTree):
    """Unpack an archive into a new directory."""

    name = "unpack"
    title = "unpack an archive"

    def lowers(self, store: Store) -> tuple[Path, ...]:
        self.archive, self.source = store.archive(), store.tree()
        return (store.empty(),)

    def run(self, place: Mounted) -> None:
        tool("tar", "xf", self.archive, "-C", place.root)

    def check(self, place: Mounted) -> None:
        expect("files", seen=count_files(place.root / "tree"), wanted=_entries(self.sizes))
        # not `tar --diff`: now and then unionfs-fuse 1.0 loses a time that tar set
        tool("diff", "-r", "--no-dereference", self.source / "tree", place.root / "tree")


class Copy(_OnTree):
    """Copy a tree of a lower, with all attributes, to a new directory."""

    name = "copy"
    title = "copy a tree"

    def run(self, place: Mounted) -> None:
        tool("cp", "-a", place.root / "tree", place.root / "copy")

    def check(self, place: Mounted) -> None:
        tool("diff", "-r", "--no-dereference", place.root / "tree", place.root / "copy")


class WalkCold(_OnTree):
    """Stat everything in a tree, with nothing cached."""

    name = "walk-cold"
    title = "walk a tree, cold"
    cold = True
    only_reads = True
    times: ClassVar[int] = 1

    def run(self, place: Mounted) -> None:
        self.seen = 0
        for _ in range(self.times):
            sizes = tool("find", place.root / "tree", "!", "-type", "d", "-printf", "%s\n")
            self.seen += sizes.count("\n")

    def check(self, place: Mounted) -> None:  # noqa: ARG002 - what was seen is the proof
        expect("files", seen=self.seen, wanted=_entries(self.sizes) * self.times)


class WalkWarm(WalkCold):
    """Stat everything in a tree again and again."""

    name = "walk-warm"
    title = "walk a tree, warm"
    cold = False
    times = WARM_WALKS

    def before(self, place: Mounted) -> None:
        tool("find", place.root / "tree", "-printf", "%s")


class ReadCold(_OnTree):
    """Read every file of a tree, with nothing cached."""

    name = "read-cold"
    title = "read a tree, cold"
    cold = True
    only_reads = True
    moves_data = True

    def lowers(self, store: Store) -> tuple[Path, ...]:
        tree = store.tree()
        files = (tree / "tree").rglob("m*.py")
        self.total = sum(path.lstat().st_size for path in files)
        return (tree,)

    def run(self, place: Mounted) -> None:
        read = 'find "$0" -type f -exec cat {} + | wc -c'
        self.seen = int(tool("sh", "-c", read, place.root / "tree"))

    def check(self, place: Mounted) -> None:  # noqa: ARG002 - what was read is the proof
        expect("bytes", seen=self.seen, wanted=self.total)


class ReadWarm(ReadCold):
    """Read every file of a tree that has just been read."""

    name = "read-warm"
    title = "read a tree, warm"
    cold = False

    def before(self, place: Mounted) -> None:
        self.run(place)


class Compile(_OnTree):
    """Compile Python modules of a lower; the byte code goes to upper."""

    name = "compile"
    title = "compile Python"

    def run(self, place: Mounted) -> None:
        leaves = {leaf(index): None for index in range(self.sizes.compiled)}
        tool(sys.executable, "-m", "compileall", "-q", *leaves, cwd=place.root)

    def check(self, place: Mounted) -> None:
        made = sum(1 for _ in (place.root / "tree").glob("b*/d*/__pycache__/m*.pyc"))
        expect("modules", seen=made, wanted=self.sizes.compiled)


class _OnRepository(Workload):
    section = "Trees"

    def lowers(self, store: Store) -> tuple[Path, ...]:
        return (store.repository(),)

    def before(self, place: Mounted) -> None:
        """Let git's index learn the inode numbers of this mount."""
        self.git(place, "status", "--porcelain")

    def git(self, place: Mounted, *words: str) -> str:
        return tool(*GIT, "-C", place.root / "repo", *words)

    def check(self, place: Mounted) -> None:
        expect("git status", seen=self.git(place, "status", "--porcelain"), wanted="")


class GitStatus(_OnRepository):
    """Ask git what has changed, in a tree that it has just looked at."""

    name = "git-status"
    title = "git status"

    def run(self, place: Mounted) -> None:
        self.git(place, "status", "--porcelain")


class GitCheckout(_OnRepository):
    """Switch to a branch in which a third of the files differs."""

    name = "git-checkout"
    title = "git checkout"

    def run(self, place: Mounted) -> None:
        self.git(place, "checkout", "-q", "second")

    def check(self, place: Mounted) -> None:
        expect("branch", seen=self.git(place, "branch", "--show-current"), wanted="second\n")
        super().check(place)


WORKLOADS = (
    Unpack,
    Copy,
    WalkCold,
    WalkWarm,
    ReadCold,
    ReadWarm,
    Compile,
    GitStatus,
    GitCheckout,
)
