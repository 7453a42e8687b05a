"""What the work is done on: trees, archives and big files, made once per run.

All of it is generated from a fixed seed, so that two machines work on the same
bytes.  Material is the lower layers of the unions: made once, then only read.
Contenders see it through a read-only bind mount, because not every one can be
trusted: mergerfs 2.33 writes to files of a branch that it was told is RO, and
unlinks there what was renamed over.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from typing import TYPE_CHECKING

from bench.sizes import MiB

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from bench.sizes import Sizes

FILES_IN_LEAF = 16
LEAVES_IN_BRANCH = 8
LINES = 900  # distinct functions that the source files are put together from
STACK_DIRECTORIES = 20
GIT = ("git", "-c", "user.name=bench", "-c", "user.email=bench@localhost", "-c", "gc.auto=0")


def write_big(path: Path, size: int) -> None:
    """Fill *path* with *size* bytes that no layer below could store as a hole."""
    block = random.Random(1).randbytes(MiB)
    with path.open("wb", buffering=0) as file:
        for _ in range(size // MiB):
            file.write(block)


def leaf(index: int) -> str:
    """Return the directory of the source file *index*."""
    number = index // FILES_IN_LEAF
    return f"tree/b{number // LEAVES_IN_BRANCH:02}/d{number:03}"


def _functions(rng: random.Random) -> list[str]:
    return [
        f"def work_{n}(a, b={rng.randrange(99)}):\n"
        f'    """Return what {rng.random()} becomes."""\n'
        f"    for c in range(b):\n        a += c * {rng.random()}\n"
        f"    return a, {rng.choices(range(1000), k=8)}\n\n\n"
        for n in range(LINES)
    ]


def _sources(count: int) -> Iterator[tuple[str, str]]:
    """Yield path and text of Python modules; most are small, a few are large."""
    rng = random.Random(2)
    functions = _functions(rng)
    for index in range(count):
        length = min(int(rng.lognormvariate(2.3, 0.9)) + 1, LINES)
        yield f"{leaf(index)}/m{index:04}.py", "".join(rng.choices(functions, k=length))


class Store:
    """The material of one run, each piece made when first asked for."""

    def __init__(self, made: Path, shown: Path, sizes: Sizes) -> None:
        """Make pieces below *made*, and hand them out as they show, read-only, below *shown*."""
        self.made = made
        self.shown = shown
        self.sizes = sizes

    def _once(self, name: str, make: Callable[[Path], None]) -> Path:
        path = self.made / name
        if not path.exists():
            path.mkdir(parents=True)
            make(path)
        return self.shown / name

    def empty(self) -> Path:
        """Return a lower with nothing in it."""
        return self._once("empty", lambda _path: None)

    def tree(self) -> Path:
        """Return a lower with a source tree: `tree/bNN/dNNN/mNNNN.py` and some symlinks."""
        return self._once("source", self._make_tree)

    def _make_tree(self, path: Path) -> None:
        for name, text in _sources(self.sizes.tree_files):
            file = path / name
            if not file.parent.exists():
                file.parent.mkdir(parents=True)
                (file.parent / "first.py").symlink_to(file.name)
            file.write_text(text)

    def archive(self) -> Path:
        """Return the source tree as a tar file, uncompressed: not the codec is measured."""
        directory = self._once(
            "archive",
            lambda path: _tool("tar", "cf", path / "tree.tar", "-C", self.tree(), "tree"),
        )
        return directory / "tree.tar"

    def repository(self) -> Path:
        """Return a lower with `repo`: the tree in git, on `first`; `second` differs in a third."""
        return self._once("repository", self._make_repository)

    def _make_repository(self, path: Path) -> None:
        repo = path / "repo"
        shutil.copytree(self.tree() / "tree", repo, symlinks=True)
        _git(repo, "init", "-q", "-b", "first")
        _git(repo, "add", "-A")
        _git(repo, "commit", "-q", "-m", "first")
        _git(repo, "checkout", "-q", "-b", "second")
        for number, file in enumerate(sorted(repo.glob("b*/*/m*.py"))):
            if number % 6 == 0:
                file.write_text(f"# changed\n{file.read_text()}")
            elif number % 6 == 1:
                file.rename(file.with_suffix(".txt"))
        _git(repo, "add", "-A")
        _git(repo, "commit", "-q", "-m", "second")
        _git(repo, "checkout", "-q", "first")

    def etc(self) -> Path:
        """Return a lower with `etc/passwd` and its neighbours."""
        return self._once("etc", _make_etc)

    def big(self) -> Path:
        """Return a lower with `big`, the file that is read and copied up."""
        return self._once("large", lambda path: write_big(path / "big", self.sizes.big))

    def directory(self) -> Path:
        """Return a lower with `many`, the directory that is renamed."""
        return self._once("directory", lambda path: _crowd(path / "many", self.sizes.directory))

    def listing(self) -> Path:
        """Return a lower with `many`, the directory that is listed."""
        return self._once("listing", lambda path: _crowd(path / "many", self.sizes.listing))

    def known(self) -> Path:
        """Return a lower with many files in directories of at most a thousand."""
        return self._once("known", self._make_known)

    def _make_known(self, path: Path) -> None:
        for start in range(0, self.sizes.known, 1000):
            _crowd(path / f"k{start // 1000:03}", min(1000, self.sizes.known - start))

    def stack(self, depth: int) -> tuple[Path, ...]:
        """Return *depth* lowers that share directories; together they hold the same number."""
        return tuple(self._stacked(depth, level) for level in range(depth))

    def _stacked(self, depth: int, level: int) -> Path:
        def make(path: Path) -> None:
            for number in range(STACK_DIRECTORIES):
                (path / f"d{number}").mkdir()
            for number in range(level, self.sizes.stacked, depth):
                (path / f"d{number % STACK_DIRECTORIES}" / f"f{number}").touch()

        return self._once(f"s{depth}/{level}", make)


def _make_etc(path: Path) -> None:
    etc = path / "etc"
    etc.mkdir()
    people = "".join(f"u{n}:x:{n}:{n}::/home/u{n}:/bin/sh\n" for n in range(1000, 1040))
    for name in ("passwd", "shadow", "group", "gshadow"):
        (etc / name).write_text(people)


def _crowd(path: Path, count: int) -> None:
    """Make a directory of *count* empty files."""
    path.mkdir()
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    for number in range(count):
        os.close(os.open(f"file-{number:06}", os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=fd))
    os.close(fd)


def _tool(*words: str | Path) -> None:
    subprocess.run(words, check=True)


def _git(repo: Path, *words: str) -> None:
    _tool(*GIT, "-C", repo, *words)
