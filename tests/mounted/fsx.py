"""Random operations on a file of a union that is copied up by blocks, and on a plain one beside it.

After each operation both have given the same, and from time to time all of both is compared.
`python -m tests.mounted.fsx OPERATIONS [SEED [OPTION ...]]` does many, over unions of its own;
with the option copyup=blocks on an ext4, with the word `sides` over unions of two.
"""

import contextlib
import errno
import mmap
import os
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.mounted import disks
from tests.mounted.mount import Mount

BLOCK = 64 << 10
# What some options leave to be desired: docs/limits.md.
WITHOUT = {"direct=off": ("punch", "allocate"), "loop=off": ("punch", "allocate")}

# As an option: there are two writable sides, one of which is state.
SIDES = "sides"

LIFE = 100  # operations on one file, by when most of its blocks are in upper
FILES = 60  # of one union

_PUNCH, _KEEP = 2, 1  # FALLOC_FL_*
_MOST = 24 * BLOCK
_PAGE = mmap.PAGESIZE


def sizes(rng):
    """Return the size of a lower file: about some blocks, at their edges mostly."""
    blocks = rng.choice([2, 2, 3, 4, 5, 8, 16])
    return blocks * BLOCK + rng.choice([0, 0, 1, -1, _PAGE, -_PAGE, rng.randrange(BLOCK)])


def content(rng, size):
    """Return bytes with holes in them."""
    data = bytearray(rng.randbytes(size))
    if rng.random() < 0.3:
        start = rng.randrange(size) // _PAGE * _PAGE
        data[start : start + 3 * BLOCK] = bytes(len(data[start : start + 3 * BLOCK]))
    return bytes(data)


class Differs(AssertionError):  # noqa: N818 - it says what is wrong
    """The two files are not alike."""


class Life:
    """Operations on one file and its plain twin, which are alike at the beginning."""

    def __init__(self, rng, union, plain, options=()):
        self.rng = rng
        self.paths = [Path(union), Path(plain)]
        self.done = []  # for the message
        self.stack = contextlib.ExitStack()
        self.old = self._open(os.O_RDONLY)
        self._both(lambda fd: os.pread(fd, rng.randrange(1, BLOCK), 0) and None, self.old)
        self.fds = self._open(os.O_RDWR)
        # name -> how often
        choices = {
            "write": 12, "read": 8, "direct": 6, "append": 2, "cut": 3, "punch": 3,
            "allocate": 1, "mapped": 3, "copy": 2, "seek": 3, "reopen": 3, "old_reader": 3,
            "moved": 1, "linked": 1, "unlinked": 0.3, "times": 1, "emptied": 0.1, "compare": 1,
            "attributes": 2, "sync": 1,
        }  # fmt: skip
        if "fill=on" in options:
            choices["rested"] = 5
        if SIDES in options:
            choices["crossed"] = 1
        without = {name for option in options for name in WITHOUT.get(option, ())}
        self.choices = {name: often for name, often in choices.items() if name not in without}

    def run(self, operations):
        """Do some operations, and compare all."""
        with self.stack:
            names, weights = zip(*self.choices.items(), strict=True)
            for name in self.rng.choices(names, weights, k=operations):
                self.done.append(name)
                try:
                    getattr(self, "_" + name)()
                except (AssertionError, OSError) as exc:
                    raise Differs(f"after {self.done[-12:]}: {exc!r}") from exc
            self._compare()

    # Both sides

    def _open(self, flags):
        fds = [os.open(path, flags) for path in self.paths]
        for fd in fds:
            self.stack.callback(_close, fd)
        return fds

    def _both(self, act, *sides):
        """Do the same with both, and see that it gives the same."""
        results = []
        for side in zip(*(sides or (self.fds,)), strict=True):
            try:
                results.append(act(*side))
            except OSError as exc:
                results.append(errno.errorcode[exc.errno])
        assert results[0] == results[1], f"{str(results[0])[:60]} is not {str(results[1])[:60]}"
        return results[0]

    @property
    def size(self):
        return os.fstat(self.fds[1]).st_size

    def _at(self):
        """Return an offset: often at the edge of a block or of the file."""
        rng, size = self.rng, self.size
        edge = rng.choice(
            [0, rng.randrange(size // BLOCK + 2) * BLOCK, size, rng.randrange(size + 1)]
        )
        return max(0, edge + rng.choice([0, 0, 1, -1, 7, _PAGE, -_PAGE, rng.randrange(BLOCK)]))

    def _length(self):
        rng = self.rng
        return rng.choice([1, rng.randrange(1, _PAGE), _PAGE, rng.randrange(1, BLOCK), BLOCK,
                           rng.randrange(1, 4 * BLOCK)])  # fmt: skip

    # Operations

    def _write(self):
        data, at = self.rng.randbytes(self._length()), min(self._at(), _MOST)
        self._both(lambda fd: os.pwrite(fd, data, at))

    def _read(self):
        at, length = self._at(), self._length()
        self._both(lambda fd: os.pread(fd, length, at))

    def _old_reader(self):
        at, length = self._at(), self._length()
        self._both(lambda fd: os.pread(fd, length, at), self.old)

    def _direct(self):
        """Read or write past the page cache, so that the daemon is asked."""
        if not self._named:
            return
        fds = self._open(os.O_RDWR | os.O_DIRECT)
        at, pages = self._at() // _PAGE * _PAGE, self.rng.randrange(1, 40)
        room = mmap.mmap(-1, pages * _PAGE)
        if self.rng.random() < 0.5:
            room[:] = self.rng.randbytes(len(room))
            self._both(lambda fd: os.pwritev(fd, [room], min(at, _MOST)), fds)
        else:
            self._both(lambda fd: (os.preadv(fd, [room], at), bytes(room)), fds)
        for fd in fds:
            os.close(fd)

    def _append(self):
        if not self._named:
            return
        fds = self._open(os.O_WRONLY | os.O_APPEND)
        data = self.rng.randbytes(self.rng.randrange(1, 500))
        if self.size < _MOST:
            self._both(lambda fd: os.write(fd, data), fds)
        for fd in fds:
            os.close(fd)

    def _cut(self):
        at = min(self._at(), _MOST)
        if self.rng.random() < 0.5:
            at = self.size + self.rng.choice([-1, 1, BLOCK, -self.rng.randrange(BLOCK), 3 * BLOCK])
        at = max(0, min(at, _MOST))
        if self.rng.random() < 0.5:
            self._both(lambda fd: os.ftruncate(fd, at))
        elif self._named:
            self._both(lambda path: os.truncate(path, at), self.paths)

    def _punch(self):
        at, length = self._at(), self._length()
        self._both(lambda fd: _fallocate(fd, _PUNCH | _KEEP, at, length))

    def _allocate(self):
        at, length = min(self._at(), _MOST), self._length()
        mode = self.rng.choice([0, _KEEP])
        self._both(lambda fd: _fallocate(fd, mode, at, length))

    def _mapped(self):
        """Read, or write, through a shared mapping."""
        size = self.size
        if not size:
            return
        at = self.rng.randrange(size)
        data = self.rng.randbytes(min(self.rng.randrange(1, 3 * _PAGE), size - at))
        writes = self.rng.random() < 0.6

        def act(fd):
            with mmap.mmap(fd, size) as mapped:
                seen = mapped[at : at + len(data)]
                if writes:
                    mapped[at : at + len(data)] = data
                    mapped.flush()
                return seen

        self._both(act)

    def _copy(self):
        size = self.size
        source, target = self._at(), min(self._at(), _MOST)
        length = min(self._length(), abs(source - target))  # ranges may not overlap
        if not length or source + length > size:
            return
        for fd in self.fds:  # how much it copies at a time is not said
            done = 0
            while done < length:
                count = os.copy_file_range(fd, fd, length - done, source + done, target + done)
                assert count
                done += count

    def _seek(self):
        """What is said to be a hole reads as zeros; file systems may say less of holes."""
        at = self._at()
        if at >= self.size:
            self._both(lambda fd: os.lseek(fd, at, os.SEEK_DATA))
            self._both(lambda fd: os.lseek(fd, at, os.SEEK_HOLE))
            return
        try:
            data = os.lseek(self.fds[0], at, os.SEEK_DATA)
        except OSError as exc:
            if exc.errno != errno.ENXIO:
                raise
            data = self.size
        assert at <= data <= self.size
        assert not any(os.pread(self.fds[1], data - at, at)), "a hole is none"
        hole = os.lseek(self.fds[0], at, os.SEEK_HOLE)
        assert at <= hole <= self.size
        assert (hole == at) == (data > at) or hole == self.size

    def _reopen(self):
        for fd in self.fds:
            _close(fd)
        if self.rng.random() < 0.5 and self._named:  # nobody has it open
            for fd in self.old:
                _close(fd)
            self.old = self._open(os.O_RDONLY)
        if self._named:
            self.fds = self._open(self.rng.choice([os.O_RDWR, os.O_RDWR | os.O_SYNC]))
        else:
            self.fds = [os.open(f"/proc/self/fd/{fd}", os.O_RDWR) for fd in self.old]
            for fd in self.fds:
                self.stack.callback(_close, fd)

    def _rested(self):
        """Leave the file alone for a moment, in which it may be filled."""
        for fd in self.fds:
            os.close(fd)
        time.sleep(self.rng.choice([1e-2, 3e-2, 6e-2]))
        self._reopen()

    @property
    def _named(self):
        return self.paths[1].exists()

    def _moved(self):
        if self._named:
            self._both(lambda path: os.rename(path, f"{path}-"), self.paths)
            self.paths = [Path(f"{path}-") for path in self.paths]

    def _crossed(self):
        """Rename to the other side of a union that has two."""
        if self._named:
            other = {"scratch": "state", "state": "scratch"}
            new = [path.parents[1] / other[path.parent.name] / path.name for path in self.paths]
            self._both(os.rename, self.paths, new)
            self.paths = new

    def _linked(self):
        if self._named:
            other = [Path(f"{path}+") for path in self.paths]
            self._both(os.link, self.paths, other)
            if self.rng.random() < 0.5:
                self._both(os.unlink, self.paths)
                self.paths = other

    def _unlinked(self):
        if self._named and os.stat(self.paths[1]).st_nlink == 1:
            self._both(os.unlink, self.paths)

    def _times(self):
        when = self.rng.randrange(1 << 40)
        self._both(lambda fd: os.utime(fd, ns=(when, when)))

    def _emptied(self):
        if not self._named:
            return
        self._both(lambda path: os.close(os.open(path, os.O_WRONLY | os.O_TRUNC)), self.paths)

    def _sync(self):
        self._both(os.fsync)
        self._both(lambda fd: os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED))

    def _attributes(self):
        self._both(lambda fd: os.fstat(fd)[:2] and os.fstat(fd).st_size)
        self._both(lambda fd: os.fstat(fd).st_nlink)
        blocks, size = os.fstat(self.fds[0]).st_blocks * 512, self.size
        assert blocks <= size + 64 * BLOCK, "it takes more than it has"

    def _compare(self):
        for fds in (self.fds, self.old):
            self._both(lambda fd: os.pread(fd, _MOST + 9 * BLOCK, 0), fds)


def _close(fd):
    with contextlib.suppress(OSError):
        os.close(fd)


def _fallocate(fd, mode, offset, length):
    from unionfs.host.syscalls import fallocate  # noqa: PLC0415

    fallocate(fd, mode, offset, length)


def exercise(base, seed, operations, options=()):
    """Do so many operations over one union in the directory *base*."""
    rng = random.Random(seed)
    lower, plain = base / "lower1", base / "plain"
    for top in (lower, plain):
        for name in ("scratch", "state"):
            (top / name).mkdir(parents=True)
    lives = -(-operations // LIFE)
    for number in range(lives):
        data = content(rng, sizes(rng))
        for top in (lower, plain):
            (top / "scratch" / f"{number}").write_bytes(data)
    mount = _mount(base, lower, options).start()
    try:
        for number in range(lives):
            name = f"scratch/{number}"
            life = Life(rng, mount.path / name, plain / name, options)
            try:
                life.run(min(LIFE, operations - number * LIFE))
            except Differs as exc:
                raise Differs(f"seed {seed}, file {number}: {exc}") from exc
        mount.stop()
    finally:
        mount.kill()


class Eager(Mount):
    """A union that fills files in part as soon as they are closed."""

    _START = """
import sys
from tests import eager
from unionfs import cli
eager.fill_at_once()
sys.exit(cli.main())
"""

    def command(self, *words):
        if words[0] != "mount":
            return super().command(*words)
        return [sys.executable, "-c", self._START, *map(str, words)]


def _mount(base, lower, options):
    """Make a mount with a RAM upper; with copyup=blocks, one in directories, on a disk if any."""
    if SIDES in options:
        (base / "state").mkdir()
        sides = ("ram=256m", f"statedir={base / 'state'}", "persist=/state", "state-required")
        others = [option for option in options if option != SIDES]
        return Mount(base, lowers=[lower], options=(*sides, *others))
    if "copyup=blocks" not in options:
        return Mount(base, lowers=[lower], options=("ram=256m", *options))
    disk = base / "ext4" if (base / "ext4").exists() else base
    layers = {"upper": disk / "upper", "work": disk / "work"}
    for path in layers.values():
        path.mkdir()
    kind = Eager if "fill=on" in options else Mount
    return kind(base, lowers=[lower], options=options, **layers)


def main():
    operations, seed = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1
    options = tuple(sys.argv[3:])
    while operations > 0:
        with tempfile.TemporaryDirectory(prefix="unionfs-fsx-") as name:
            base = Path(name)
            with contextlib.ExitStack() as stack:
                stack.enter_context(disks.mounted(base, "-t", "tmpfs", "-o", "size=1g", "tmpfs"))
                if "copyup=blocks" in options:
                    stack.enter_context(disks.writable("ext4", base, 400))
                exercise(base, seed, min(operations, FILES * LIFE), options)
        operations -= FILES * LIFE
        seed += 1
        print(f"{max(operations, 0)} operations left", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
