"""What the machine does until its power fails, and what it was promised on the way.

The work is done by *actors*, each in a directory of its own, each a list of
steps.  Before and after a step a line goes to the ledger.  A step that is
`durable` ends with the fsync(2) calls by which a program asks for durability;
from its end on, nothing of the actor up to there may be lost.

What a step should lead to is not written down: the same steps run on a plain
directory with the same content, and its tree after each step is the state that
the union must show.  After a power cut an actor's directory must show a state
between its last durable step and the last one begun.
"""

import os
from collections.abc import Callable
from typing import NamedTuple

from unionfs.host.syscalls import (
    KEEP_SIZE,
    RENAME_EXCHANGE,
    RENAME_NOREPLACE,
    fallocate,
    renameat2,
)

from .trees import Thing, Tree, harvest


class Step(NamedTuple):
    """One thing that an actor does in its directory."""

    do: Callable[[], None]
    durable: bool = False
    torn: tuple[str, ...] = ()  # names of a file whose bytes are in flight until the next sync
    emptied: bool = False  # the file lost its old content first (O_TRUNC)


class Actor(NamedTuple):
    """A program at work in a directory of its own."""

    name: str
    steps: list[Step]
    states: list[Tree]  # states[n]: after n steps; as a plain directory has them


def _pattern(seed: int, size: int) -> bytes:
    """Return bytes of which no two blocks, and no two seeds, are alike."""
    return b"".join(b"%06d:%07d\n" % (seed, n) for n in range(size // 15 + 1))[:size]


BIG = 70_000  # bytes; more than one block and more than one page, cheap to compare


def plant(top: str) -> None:
    """Fill *top* with what every actor finds in its directory below."""
    os.makedirs(f"{top}/sub/deep")
    os.makedirs(f"{top}/other")
    for number, name in enumerate(["a", "b", "passwd", "sub/x", "sub/deep/y", "other/z"]):
        with open(f"{top}/{name}", "wb") as file:
            file.write(_pattern(number, BIG if name in {"a", "sub/x"} else 3000))
    os.link(f"{top}/a", f"{top}/a-link")
    os.symlink("passwd", f"{top}/s")
    for directory, names, files in os.walk(top):
        for name in (*names, *files):
            os.utime(f"{directory}/{name}", (1_600_000_000, 1_600_000_000), follow_symlinks=False)


class Desk:
    """The steps' vocabulary: small programs on the files below *top*."""

    def __init__(self, top: str) -> None:
        self.top = top
        self.steps: list[Step] = []

    def path(self, name: str) -> str:
        return f"{self.top}/{name}"

    def add(self, do: Callable[[], None]) -> None:
        self.steps.append(Step(do))

    def fsync(self, *names: str) -> None:
        """Ask for durability of files and directories."""

        def do() -> None:
            for name in names:
                fd = os.open(self.path(name), os.O_RDONLY)
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)

        self.steps.append(Step(do, durable=True))

    def write(self, name: str, data: bytes, flags: int, also: str = "") -> None:
        """Write to *name*, a file that may bear the name *also* too."""

        def do() -> None:
            fd = os.open(self.path(name), os.O_WRONLY | flags, 0o644)
            try:
                os.write(fd, data)
            finally:
                os.close(fd)

        names = (name, also) if also else (name,)
        self.steps.append(Step(do, torn=names, emptied=bool(flags & os.O_TRUNC)))

    def change(self, name: str, seed: int, at: int) -> None:
        """Write to a part of a file."""

        def do() -> None:
            fd = os.open(self.path(name), os.O_WRONLY)
            try:
                os.pwrite(fd, _pattern(seed, 5000), at)
            finally:
                os.close(fd)

        self.steps.append(Step(do, torn=(name,)))

    def cut(self, name: str, size: int) -> None:
        """Set a size; the rest of the last page may become zeros before the size is on disk."""
        self.steps.append(Step(lambda: os.truncate(self.path(name), size), torn=(name,)))

    def reserve(self, name: str, mode: int, at: int, length: int) -> None:
        """Have room for a part of a file; it may become longer by that."""

        def do() -> None:
            fd = os.open(self.path(name), os.O_WRONLY)
            try:
                fallocate(fd, mode, at, length)
            finally:
                os.close(fd)

        self.steps.append(Step(do, torn=(name,)))

    def append(self, name: str, seed: int, also: str = "") -> None:
        self.write(name, _pattern(seed, 5000), os.O_APPEND, also)

    def create(self, name: str, seed: int, also: str = "") -> None:
        self.write(name, _pattern(seed, 5000), os.O_CREAT | os.O_EXCL, also)

    def rename(self, old: str, new: str, flags: int = 0) -> None:
        old_path, new_path = os.fsencode(self.path(old)), os.fsencode(self.path(new))
        self.add(lambda: renameat2(-100, old_path, -100, new_path, flags))

    def call(self, function: Callable[..., None], name: str, *rest) -> None:
        self.add(lambda: function(self.path(name), *rest))


def append(desk: Desk) -> None:
    for seed in (50, 51):
        desk.append("sub/deep/y", seed)
        desk.fsync("sub/deep/y")


def append_linked(desk: Desk) -> None:
    desk.append("a", 52, "a-link")
    desk.fsync("a")
    desk.append("a-link", 53, "a")
    desk.fsync("a-link")


def append_unsynced(desk: Desk) -> None:
    desk.append("sub/x", 54)


def replace(desk: Desk) -> None:
    for seed in (55, 56):
        desk.create("new", seed)
        desk.fsync("new", ".")
        desk.rename("new", "passwd")
        desk.fsync(".")


def replace_without_directory(desk: Desk) -> None:
    """As passwd does: the file is synced, its name is not."""
    desk.create("new", 57)
    desk.fsync("new", ".")
    desk.rename("new", "passwd")


def delete(desk: Desk) -> None:
    for name in ("b", "sub/x", "s"):
        desk.call(os.unlink, name)
        desk.fsync(os.path.dirname(name) or ".")


def delete_and_make_anew(desk: Desk) -> None:
    desk.call(os.unlink, "other/z")
    desk.call(os.rmdir, "other")
    desk.fsync(".")
    desk.call(os.mkdir, "other")
    desk.fsync(".")
    desk.create("other/z", 58)
    desk.fsync("other/z", "other")
    desk.call(os.unlink, "other/z")
    desk.fsync("other")


def delete_and_write_anew(desk: Desk) -> None:
    desk.call(os.unlink, "b")
    desk.fsync(".")
    desk.create("b", 59)
    desk.fsync("b", ".")


def change_mode(desk: Desk) -> None:
    desk.call(os.chmod, "sub/x", 0o600)
    desk.fsync("sub/x")
    desk.call(os.chmod, "sub/deep", 0o700)
    desk.fsync("sub/deep")


def change_mode_then_data(desk: Desk) -> None:
    desk.call(os.chmod, "sub/x", 0o640)
    desk.fsync("sub/x")
    desk.append("sub/x", 60)
    desk.fsync("sub/x")


def change_mode_then_data_unsynced(desk: Desk) -> None:
    desk.call(os.chmod, "sub/x", 0o640)
    desk.append("sub/x", 61)


def change_owner(desk: Desk) -> None:
    desk.call(os.chown, "b", 7, 8)
    desk.fsync("b")
    desk.call(os.setxattr, "b", "user.colour", b"blue")
    desk.fsync("b")


def rename_file(desk: Desk) -> None:
    desk.rename("sub/x", "sub/moved")
    desk.fsync("sub")
    desk.rename("sub/moved", "b")
    desk.fsync(".", "sub")
    desk.rename("passwd", "fresh", RENAME_NOREPLACE)
    desk.fsync(".")


def rename_directory(desk: Desk) -> None:
    desk.rename("sub", "moved")
    desk.fsync(".")
    desk.append("moved/deep/y", 62)
    desk.fsync("moved/deep/y")
    desk.rename("moved/deep", "other/deep")
    desk.fsync("moved", "other")
    desk.call(os.unlink, "other/deep/y")
    desk.fsync("other/deep")


def exchange(desk: Desk) -> None:
    desk.rename("a", "b", RENAME_EXCHANGE)
    desk.fsync(".")
    desk.rename("sub", "other", RENAME_EXCHANGE)
    desk.fsync(".")
    desk.rename("sub", "b", RENAME_EXCHANGE)
    desk.fsync(".")


def link(desk: Desk) -> None:
    desk.add(lambda: os.link(desk.path("passwd"), desk.path("passwd.lock")))
    desk.fsync(".", "passwd.lock")
    desk.append("passwd.lock", 63, "passwd")
    desk.fsync("passwd")
    desk.call(os.unlink, "passwd")
    desk.fsync(".")


def shrink(desk: Desk) -> None:
    desk.call(os.truncate, "a", 20_000)
    desk.fsync("a")
    desk.call(os.truncate, "sub/x", 0)
    desk.fsync("sub/x")


def overwrite(desk: Desk) -> None:
    desk.write("sub/x", _pattern(64, 9000), os.O_TRUNC)
    desk.fsync("sub/x")


def change_inside(desk: Desk) -> None:
    desk.change("sub/x", 69, 30_001)
    desk.fsync("sub/x")
    for seed in range(70, 76):
        desk.change("sub/x", seed, (seed - 69) * 9_000 + 500)
    desk.fsync("sub/x")
    desk.cut("sub/x", 41_000)
    desk.fsync("sub/x")


def change_inside_unsynced(desk: Desk) -> None:
    for seed in range(76, 82):
        desk.change("sub/x", seed, (seed - 75) * 10_000 + 300)
    desk.cut("sub/x", 41_000)


def grow_inside(desk: Desk) -> None:
    desk.change("sub/x", 83, 500)
    desk.reserve("sub/x", 0, 20_000, 30_000)
    desk.change("sub/x", 84, 25_000)
    desk.fsync("sub/x")
    desk.change("sub/x", 85, 42_000)
    desk.cut("sub/x", 90_000)
    desk.change("sub/x", 86, 65_000)
    desk.fsync("sub/x")
    desk.reserve("sub/x", KEEP_SIZE, 0, 200_000)
    desk.change("sub/x", 87, 33_000)
    desk.fsync("sub/x")


def grow_inside_unsynced(desk: Desk) -> None:
    desk.cut("sub/x", 71_000)
    desk.change("sub/x", 88, 66_000)
    desk.reserve("sub/x", 0, 100_000, 10_000)
    desk.change("sub/x", 89, 30_000)
    desk.reserve("sub/x", 0, 20_000, 30_000)
    for seed in (90, 91):
        desk.change("sub/x", seed, (seed - 90) * 70_000 + 35_000)


def make_kinds(desk: Desk) -> None:
    desk.add(lambda: os.symlink("anywhere", desk.path("sub/link")))
    desk.call(os.mkfifo, "sub/fifo", 0o600)
    desk.call(os.mknod, "sub/device", 0o020600, os.makedev(1, 3))
    desk.call(os.mkdir, "sub/directory")
    desk.fsync("sub")
    desk.create("sub/directory/file", 65)
    desk.fsync("sub/directory/file", "sub/directory")


def account(desk: Desk) -> None:
    """As useradd does: lock file, backup, new file, rename."""
    desk.create("passwd.1", 66, "passwd.lock")
    desk.add(lambda: os.link(desk.path("passwd.1"), desk.path("passwd.lock")))
    desk.call(os.unlink, "passwd.1")
    desk.create("passwd-", 67)
    desk.create("passwd+", 68)
    desk.fsync("passwd-", "passwd+", ".")
    desk.rename("passwd+", "passwd")
    desk.call(os.unlink, "passwd.lock")
    desk.fsync(".")


ACTORS: tuple[Callable[[Desk], None], ...] = (
    append, append_linked, append_unsynced, replace, replace_without_directory, delete,
    delete_and_make_anew, delete_and_write_anew, change_mode, change_mode_then_data,
    change_mode_then_data_unsynced, change_owner, rename_file, rename_directory, exchange,
    link, shrink, overwrite, change_inside, change_inside_unsynced, grow_inside,
    grow_inside_unsynced, make_kinds, account,
)  # fmt: skip


def steps(actor: Callable[[Desk], None], top: str) -> list[Step]:
    """Return the steps of *actor* in the directory *top*."""
    desk = Desk(top)
    actor(desk)
    return desk.steps


def rehearse(
    plain: str, top: str, acting: tuple[Callable[[Desk], None], ...] = ACTORS
) -> list[Actor]:
    """Run all actors in the plain directory *plain*; return them ready to run below *top*."""
    actors = []
    for actor in acting:
        name = actor.__name__
        plant(f"{plain}/{name}")
        states = [harvest(f"{plain}/{name}")]
        for step in steps(actor, f"{plain}/{name}"):
            step.do()
            states.append(harvest(f"{plain}/{name}"))
        actors.append(Actor(name, steps(actor, f"{top}/{name}"), states))
    return actors


def torn(seen: Thing | None, states: list[Thing | None], *, emptied: bool) -> bool:
    """Tell whether *seen* may be a file of which some writes did not reach the disk.

    Each byte is one that the file had at this place in one of its *states*, or
    zero where none of them was synced (anywhere, when it was *emptied* in between);
    all but content and size is as it was.
    """
    files = [state for state in states if state is not None]
    if seen is None or not any(_alike(seen, state) for state in files):
        return False
    longest = max(len(state.content) for state in files)
    new = emptied or None in states
    kept = 0 if new else min(len(state.content) for state in files)
    return len(seen.content) <= longest and all(
        (place >= kept and byte == 0)
        or any(state.content[place : place + 1] == bytes((byte,)) for state in files)
        for place, byte in enumerate(seen.content)
    )


def _alike(one: Thing, other: Thing) -> bool:
    return one._replace(content=b"") == other._replace(content=b"")
