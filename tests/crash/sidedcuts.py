"""Power fails under a union with two writable sides, each on a disk of its own.

`python -m tests.crash.sidedcuts --fs ext4 --cuts 1000 [--seed N]`

As `powercut`, with both disks recorded in one order of writes: at a cut each has lost a part of its
own of what was not flushed.  Then the machine boots, which empties scratch.  What persists must be
one of the states that the actor had since it was last promised one, and all else is the lower's.
The actors do what takes a file, or a name of it, to the other side.
"""
# ruff: noqa: T201 - a program for people

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator

from unionfs.host.syscalls import RENAME_EXCHANGE, RENAME_NOREPLACE
from unionfs.layers.persistence import Rules
from unionfs.view.union import Features

from . import contender, disks, script
from .client import Dirs
from .contender import Place
from .plain import Plain
from .powercut import (
    MOUNT_EVERY,
    Cut,
    Rebuilder,
    Recording,
    Trial,
    arguments,
    broken,
    choose,
    goes_on,
    noise,
    perform,
    repeat,
)
from .recorder import disk_name, read_log
from .script import Actor, Desk
from .sides import SidedClient, bare
from .trees import Tree, harvest

# Of each actor's directory: `script.plant` fills the lower.
RULES = Rules.parse(("/*/passwd", "/*/p[12]", "/*/sub", "!/*/sub/deep", "/*/way/kept"))


def move_in(desk: Desk) -> None:
    for seed, name in ((70, "passwd"), (71, "passwd"), (72, "p1"), (73, "sub/x")):
        desk.create("new", seed)
        desk.fsync("new")
        desk.rename("new", name)
        desk.fsync(os.path.dirname(name) or ".")


def move_in_unsynced(desk: Desk) -> None:
    """Nobody has asked for the new content to stay: the old or the new is there, and whole."""
    desk.create("new", 74)
    desk.rename("new", "passwd")
    desk.rename("a", "p1", RENAME_NOREPLACE)
    desk.rename("b", "sub/x")


def move_in_then_sync(desk: Desk) -> None:
    desk.create("new", 75)
    desk.rename("new", "passwd")
    desk.fsync("passwd")
    desk.rename("b", "p2")
    desk.fsync("p2")


def move_out(desk: Desk) -> None:
    desk.append("passwd", 76)
    desk.fsync("passwd")
    desk.rename("passwd", "out")
    desk.fsync(".")
    desk.rename("sub/x", "b")
    desk.fsync("sub")
    desk.create("passwd", 77)
    desk.fsync("passwd", ".")


def there_and_back(desk: Desk) -> None:
    desk.rename("passwd", "out")
    desk.append("out", 78)
    desk.fsync("out")
    desk.rename("out", "passwd")
    desk.fsync(".")


def exchange(desk: Desk) -> None:
    desk.create("new", 79)
    desk.fsync("new")
    for old, new in (("new", "passwd"), ("passwd", "b"), ("sub/x", "new")):
        desk.rename(old, new, RENAME_EXCHANGE)
        desk.fsync(".", "sub")


def link_in(desk: Desk) -> None:
    desk.create("new", 80)
    desk.fsync("new")
    desk.add(lambda: os.link(desk.path("new"), desk.path("p1")))
    desk.fsync(".")
    desk.append("new", 81, "p1")
    desk.fsync("new")
    desk.call(os.unlink, "new")
    desk.append("p1", 82)
    desk.fsync("p1", ".")


def link_out(desk: Desk) -> None:
    """As vipw does: the old file gets another name before the new one takes its place."""
    for seed in (83, 84):
        desk.add(lambda: os.link(desk.path("passwd"), desk.path("backup")))
        desk.create("edit", seed)
        desk.fsync("edit")
        desk.rename("edit", "passwd")
        desk.fsync(".")
        desk.call(os.unlink, "backup")


def linked_last(desk: Desk) -> None:
    """The last name that persists goes, and comes back from the other side."""
    desk.append("passwd", 85)
    desk.fsync("passwd")
    desk.add(lambda: os.link(desk.path("passwd"), desk.path("other/second")))
    desk.call(os.unlink, "passwd")
    desk.append("other/second", 86)
    desk.fsync(".", "other/second")
    desk.rename("other/second", "p2")
    desk.fsync(".")


def account(desk: Desk) -> None:
    """As useradd does: lock file, backup, new file, rename."""
    desk.create("passwd.1", 87, "passwd.lock")
    desk.add(lambda: os.link(desk.path("passwd.1"), desk.path("passwd.lock")))
    desk.call(os.unlink, "passwd.1")
    desk.create("passwd-", 88)
    desk.create("passwd+", 89)
    desk.fsync("passwd-", "passwd+")
    desk.rename("passwd+", "passwd")
    desk.call(os.unlink, "passwd.lock")
    desk.fsync(".")


def directories(desk: Desk) -> None:
    desk.call(os.mkdir, "sub/new")
    desk.rename("a", "sub/new/a")
    desk.fsync("sub", "sub/new")
    desk.rename("sub/new", "sub/moved")
    desk.fsync("sub")
    desk.call(os.mkdir, "way")
    desk.create("way/kept", 90)
    desk.fsync("way/kept", "way")
    desk.create("way/new", 91)
    desk.fsync("way/new")
    desk.rename("way/new", "way/kept")
    desk.fsync("way")


def change_in_place(desk: Desk) -> None:
    desk.append("passwd", 92)
    desk.fsync("passwd")
    desk.call(os.chmod, "passwd", 0o600)
    desk.fsync("passwd")
    desk.call(os.truncate, "sub/x", 20_000)
    desk.fsync("sub/x")
    desk.call(os.unlink, "sub/x")
    desk.fsync("sub")


ACTORS: tuple[Callable[[Desk], None], ...] = (
    move_in, move_in_unsynced, move_in_then_sync, move_out, there_and_back, exchange, link_in,
    link_out, linked_last, account, directories, change_in_place,
)  # fmt: skip


def kept(name: str, initial: Tree, tree: Tree) -> Tree:
    """Return what a reboot leaves of an actor's tree."""

    def persists(path: str) -> bool:
        return RULES.at(os.fsencode(f"{name}/{path}")).persisted

    ways = {parent for path in tree if persists(path) for parent in _parents(path)}
    found = {path: thing for path, thing in initial.items() if not persists(path)}
    found |= {path: tree[path] for path in ways if path not in found}
    return bare(found | {path: thing for path, thing in tree.items() if persists(path)})


def _parents(path: str) -> Iterator[str]:
    while path := os.path.dirname(path):
        yield path


def _rebooted(actor: Actor) -> Actor:
    states = [kept(actor.name, actor.states[0], state) for state in actor.states]
    return actor._replace(states=states)


# The run


def _places(directory: str) -> tuple[Place, tuple[str, str]]:
    """Return the directories of the union, with its scratch, and of its state."""
    scratch, state = f"{directory}/disk", f"{directory}/disk1"
    place = Place(f"{directory}/lower", f"{scratch}/upper", f"{scratch}/work", f"{directory}/union")
    return place, (f"{state}/state", f"{state}/work")


@contextlib.contextmanager
def _union(place: Place, state: tuple[str, str], fsync: str) -> Iterator[None]:
    """Mount the union; at the end its daemon must go with status 0."""
    sides = (f"statedir={state[0]}", f"stateworkdir={state[1]}", f"persist={':'.join(RULES.texts)}")
    pid = contender.start(place, fsync, "state-required", *sides)
    try:
        yield
    finally:
        disks.unmount(place.mountpoint)
        status = contender.wait(pid)
        if status != 0:
            raise OSError(f"the daemon ended with status {status}")


def record(trial: Trial, directory: str) -> list[Recording]:
    """Run the actors in *directory* on two recording disks; return what is known of each."""
    place, state = _places(directory)
    for name in ("lower", "union", "plain", "disk", "disk1"):
        os.mkdir(f"{directory}/{name}")
    actors = script.rehearse(f"{directory}/plain", place.mountpoint, ACTORS)
    for actor in ACTORS:
        script.plant(f"{place.lower}/{actor.__name__}")
    bases = [f"{directory}/base{number}" for number in (0, 1)]
    for number, made in enumerate(((place.upper, place.work), state)):
        _make_disk(trial, bases[number], f"{directory}/{disk_name(number)}", made)
        disks.clone(bases[number], f"{directory}/live{number}")
    log = f"{directory}/log"
    with contextlib.ExitStack() as running:
        recorder = running.enter_context(
            disks.recorded(log, f"{directory}/recorder", f"{directory}/live0", f"{directory}/live1")
        )
        ledger = running.enter_context(open(f"{recorder}/ledger", "wb", buffering=0))
        for name in map(disk_name, (0, 1)):
            mount = disks.mounted(
                trial.kind, f"{recorder}/{name}", f"{directory}/{name}", "--direct-io=on"
            )
            running.enter_context(mount)
        running.enter_context(_union(place, state, trial.fsync))
        if trial.noise:
            for number in (0, 1):
                at = f"{directory}/{disk_name(number)}"
                running.enter_context(noise(trial.seed + number, at))
        perform(trial.seed, actors, ledger)
    records = list(read_log(log))
    return [Recording(base, records, list(map(_rebooted, actors)), place.lower) for base in bases]


def _make_disk(trial: Trial, base: str, at: str, directories: tuple[str, ...]) -> None:
    disks.make(trial.kind, base)
    with disks.mounted(trial.kind, base, at):
        for directory in directories:
            os.mkdir(directory)
    disks.run("fallocate", "--dig-holes", base)


# The judgement


def judge(
    trial: Trial, recordings: list[Recording], cuts: list[Cut], directory: str
) -> Iterator[str]:
    """Yield what is wrong after each of *cuts*, and nothing where all promises were kept."""
    rebuilders = [
        Rebuilder(recording, directory, number) for number, recording in enumerate(recordings)
    ]
    for number, cut in enumerate(cuts):
        for at, rebuilder in enumerate(rebuilders):
            rebuilder.build(cut, f"{directory}/image{at}")
        look = _inspect if number % MOUNT_EVERY == 0 else _inspect_core
        try:
            words = look(trial, recordings[1], cut, directory)
        except OSError as exc:
            words = [f"does not mount, or not end: {exc}"]
        for word in words:
            yield f"{trial} {cut}: {word}"


def _inspect(trial: Trial, recording: Recording, cut: Cut, directory: str) -> list[str]:
    """Boot with both disks as they are after a cut; return what is wrong."""
    place, state = _places(directory)
    with contextlib.ExitStack() as mounted:
        for number in (0, 1):
            image, at = f"{directory}/image{number}", f"{directory}/{disk_name(number)}"
            mounted.enter_context(disks.mounted(trial.kind, image, at))
        mounted.enter_context(_union(place, state, trial.fsync))
        seen = bare(harvest(place.mountpoint))
        words = broken(trial, recording, cut, seen)
        words += goes_on(Plain(place.mountpoint), os.listdir(place.mountpoint))
        staged = [name for work in (place.work, state[1]) for name in os.listdir(f"{work}/work")]
    return [*words, f"work is not empty: {staged}"] if staged else words


def _inspect_core(trial: Trial, recording: Recording, cut: Cut, directory: str) -> list[str]:
    """Do so on the core without a mount, and with a new scratch in RAM: ten times as fast."""
    place, state = _places(directory)
    scratch = [f"{directory}/scratch/{name}" for name in ("upper", "work")]
    shutil.rmtree(f"{directory}/scratch", ignore_errors=True)
    for path in scratch:
        os.makedirs(path)
    dirs = Dirs((place.lower,), *scratch)
    with (
        disks.mounted(trial.kind, f"{directory}/image1", f"{directory}/disk1"),
        SidedClient(dirs, Features(fsync=trial.fsync), state, RULES) as client,
    ):
        seen = {path: thing._replace(mtime=0) for path, thing in client.harvest().items()}
        words = broken(trial, recording, cut, bare(seen))
        words += goes_on(client, [path for path in seen if "/" not in path])
        staged = os.listdir(f"{state[1]}/work")
    return [*words, f"work is not empty: {staged}"] if staged else words


def attempt(trial: Trial, cuts: int, *, judged: str = "") -> tuple[int, list[str]]:
    """Record one run and cut it; return how many cuts were made, and all complaints."""
    directory = tempfile.mkdtemp(prefix="unionfs-sidedcuts-", dir="/dev/shm")
    try:
        recordings = record(trial, directory)
        chosen = choose(recordings[0].records, cuts, trial.seed)
        print(f"{trial}: {len(recordings[0].records)} records, {len(chosen)} cuts")
        trial = trial._replace(fsync=judged or trial.fsync)
        return len(chosen), list(judge(trial, recordings, chosen, directory))
    finally:
        shutil.rmtree(directory)


def main(argv: list[str] | None = None) -> int:
    asked = arguments(__doc__).parse_args(argv)
    return repeat(attempt, Trial(asked.fs, fsync=asked.fsync, seed=asked.seed), asked.cuts)


if __name__ == "__main__":
    sys.exit(main())
