"""Pull the plug of a union thousands of times, and look at what is left.

`python -m tests.crash.powercut --fs ext4 --cuts 5000 [--seed N]`

One run: a fresh file system is put on a recording disk, the union is mounted
with its upper there, all actors of `script` work in it in a random
interleaving, with syncfs(2) falling in at random moments so that the middle of
an operation reaches the disk too.  Then the disk is rebuilt as a power cut
might have left it: what was flushed is there; of what was written after the
last flush, a random subset is (of whole writes or of sectors), or a prefix.
Each disk is mounted, the union is mounted over it, and its tree is compared
with what was promised up to that point.
"""
# ruff: noqa: T201 - a program for people

import argparse
import contextlib
import ctypes
import os
import random
import shutil
import stat
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

from unionfs.view.union import Features

from . import disks, script
from .client import Client, Dirs
from .contender import CONTENDERS, Place
from .corpus import Verbs
from .plain import Plain
from .recorder import Record, read_log
from .script import Actor
from .trees import Tree, differences, harvest

_UNITS = (disks.SECTOR, 1 << 30)  # bytes that reach a disk whole or not at all
MOUNT_EVERY = 5  # cuts; the others are inspected through the core without a mount
_QUIET = 0.004  # seconds between two syncfs calls, at most


class Trial(NamedTuple):
    """What one run is about."""

    kind: str
    contender: str = "union"
    fsync: str = "auto"
    seed: int = 0
    noise: bool = True


class Recording(NamedTuple):
    """A disk before the run, all that happened to it, and the actors that did it."""

    base: str
    records: list[Record]
    actors: list[Actor]
    lower: str


class Cut(NamedTuple):
    """A moment at which power failed: before records[at]; its seed chooses what was lost."""

    at: int
    seed: int | None  # None: nothing that was not flushed reached the disk


def record(trial: Trial, directory: str) -> Recording:
    """Run the script in *directory* on a recording disk."""
    base, live, log = f"{directory}/base", f"{directory}/live", f"{directory}/log"
    place = _place(directory)
    actors = script.rehearse(f"{directory}/plain", place.mountpoint)
    for actor in script.ACTORS:
        script.plant(f"{place.lower}/{actor.__name__}")
    disks.make(trial.kind, base)
    with disks.mounted(trial.kind, base, f"{directory}/disk"):
        os.mkdir(place.upper)
        os.mkdir(place.work)
    disks.run("fallocate", "--dig-holes", base)
    disks.clone(base, live)
    with (
        disks.recorded(log, f"{directory}/recorder", live) as recorder,
        open(f"{recorder}/ledger", "wb", buffering=0) as ledger,
        disks.mounted(trial.kind, f"{recorder}/disk", f"{directory}/disk", "--direct-io=on"),
        CONTENDERS[trial.contender](place, trial.fsync),
        noise(trial.seed, f"{directory}/disk") if trial.noise else contextlib.nullcontext(),
    ):
        perform(trial.seed, actors, ledger)
    return Recording(base, list(read_log(log)), actors, place.lower)


def _place(directory: str) -> Place:
    for name in ("lower", "union", "plain", "disk"):
        os.mkdir(f"{directory}/{name}")
    disk = f"{directory}/disk"
    return Place(f"{directory}/lower", f"{disk}/upper", f"{disk}/work", f"{directory}/union")


def perform(seed: int, actors: list[Actor], ledger) -> None:
    """Do all steps, those of one actor in order, and write the ledger."""
    chance = random.Random(seed)
    turns = [number for number, actor in enumerate(actors) for _ in actor.steps]
    chance.shuffle(turns)
    done = [0] * len(actors)
    ledger.write(b"start")
    for number in turns:
        step = actors[number].steps[done[number]]
        done[number] += 1
        ledger.write(b"begin %d %d" % (number, done[number]))
        step.do()
        ledger.write(b"end %d %d" % (number, done[number]))
    ledger.write(b"finish")


@contextlib.contextmanager
def noise(seed: int, mountpoint: str) -> Iterator[None]:
    """Let syncfs(2) fall in at random moments."""
    chance, over = random.Random(seed), threading.Event()
    libc = ctypes.CDLL(None, use_errno=True)

    def sync() -> None:
        fd = os.open(mountpoint, os.O_RDONLY)
        while not over.wait(chance.random() * _QUIET):
            libc.syncfs(fd)
        os.close(fd)

    thread = threading.Thread(target=sync)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def choose(records: list[Record], count: int, seed: int) -> list[Cut]:
    """Return *count* cuts in their order: at flushes first, then anywhere, what is lost random."""
    chance = random.Random(seed)
    first = next(at for at, record in enumerate(records) if record.data == b"start")
    flushes = [at + 1 for at, r in enumerate(records) if r.kind == b"F" and at > first]
    at_flushes = chance.sample(flushes, min(len(flushes), count // 2))
    cuts = [Cut(at, None) for at in at_flushes]
    writes = [at for at, r in enumerate(records) if r.kind == b"W" and at > first]
    while len(cuts) < count:
        cuts.append(Cut(chance.choice(writes) + 1, chance.getrandbits(32)))
    return sorted(cuts, key=lambda cut: cut.at)


class Rebuilder:
    """Builds a disk as it was at a moment; moments must be asked for in order."""

    def __init__(self, recording: Recording, directory: str, disk: int = 0) -> None:
        self.records = recording.records
        self.disk = disk
        self.flushed = f"{directory}/flushed{disk}"  # all writes up to `position`, a flush
        self.position = 0
        disks.clone(recording.base, self.flushed)

    def build(self, cut: Cut, image: str) -> None:
        """Make *image* the disk after *cut*."""
        before = self.records[self.position : cut.at]
        own = [(at, record) for at, record in enumerate(before) if record.disk == self.disk]
        last = max((at for at, record in own if record.kind == b"F"), default=-1)
        writes = [(at, (r.offset, r.data)) for at, r in own if r.kind == b"W"]
        _apply(self.flushed, [write for at, write in writes if at < last])
        self.position += last + 1
        disks.clone(self.flushed, image)
        if cut.seed is not None:
            pending = [write for at, write in writes if at > last]
            _apply(image, survivors(pending, random.Random(cut.seed + self.disk)))


def survivors(writes: list[tuple[int, bytes]], chance: random.Random) -> list[tuple[int, bytes]]:
    """Return those parts of *writes* which reached the disk although no flush asked for it."""
    if chance.random() < 0.25:
        return writes[: chance.randint(0, len(writes))]
    unit, share = chance.choice(_UNITS), chance.choice((0.1, 0.5, 0.9))
    parts = [
        (offset + start, data[start : start + unit])
        for offset, data in writes
        for start in range(0, len(data), unit)
    ]
    return [part for part in parts if chance.random() < share]


def _apply(image: str, writes: list[tuple[int, bytes]]) -> None:
    fd = os.open(image, os.O_WRONLY)
    try:
        for offset, data in writes:
            os.pwrite(fd, data, offset)
    finally:
        os.close(fd)


def left_in(work: str) -> list[str]:
    """Return what is staged; that there may be files in part is said until all are whole."""
    return [name for name in os.listdir(f"{work}/work") if name != "incompat"]


class Progress(NamedTuple):
    """How far one actor was at a cut: the last step begun, the last one promised to last."""

    begun: int = 0
    promised: int = 0


def progress(recording: Recording, at: int) -> list[Progress]:
    """Read in the ledger how far each actor was when power failed before records[at]."""
    reached = [Progress() for _ in recording.actors]
    for line in (r.data.split() for r in recording.records[:at] if r.kind == b"L"):
        if line[0] == b"begin":
            reached[int(line[1])] = reached[int(line[1])]._replace(begun=int(line[2]))
        elif line[0] == b"end":
            number, step = int(line[1]), int(line[2])
            if recording.actors[number].steps[step - 1].durable:
                reached[number] = reached[number]._replace(promised=step)
    return reached


def complaints(actor: Actor, reached: Progress, seen: Tree) -> list[str]:
    """Say what of *seen*, the actor's tree after a cut, breaks a promise."""
    window = actor.states[reached.promised : reached.begun + 1]
    if seen in window:
        return []
    under_way = actor.steps[reached.promised : reached.begun]
    in_flight = {path for step in under_way for path in step.torn}
    emptied = any(step.emptied for step in under_way)
    if len(window) <= 2 and not in_flight:
        return differences(window[0], seen)
    words = []
    for path in sorted({path for tree in (*window, seen) for path in tree}):
        thing, states = seen.get(path), [tree.get(path) for tree in window]
        torn = path in in_flight and script.torn(thing, states, emptied=emptied)
        if thing not in states and not torn:
            words += [f"{path}: is {thing or 'nothing'}", *(f"  may be {s}" for s in states)]
    return words


def inspect(trial: Trial, recording: Recording, cut: Cut, place: Place) -> list[str]:
    """Mount the union over the disk after a cut; return what is wrong with it."""
    words = []
    with CONTENDERS[trial.contender](place, trial.fsync):
        staged = left_in(place.work)
        if staged and trial.contender != "overlay":
            words.append(f"work is not empty: {staged}")
        words += broken(trial, recording, cut, harvest(place.mountpoint))
        words += goes_on(Plain(place.mountpoint), os.listdir(place.mountpoint))
    return words


def inspect_core(trial: Trial, recording: Recording, cut: Cut, place: Place) -> list[str]:
    """Do what `inspect` does on the core without a mount, which is ten times as fast."""
    dirs = Dirs((place.lower,), place.upper, place.work)
    with Client(dirs, Features(fsync=trial.fsync)) as client:
        seen = {path: thing._replace(mtime=0) for path, thing in client.harvest().items()}
        words = broken(trial, recording, cut, seen)
        words += goes_on(client, [path for path in seen if "/" not in path])
        staged = left_in(place.work)
    return [*words, f"work is not empty: {staged}"] if staged else words


def broken(trial: Trial, recording: Recording, cut: Cut, seen: Tree) -> list[str]:
    """Say which promises the tree *seen* after a cut breaks."""
    words = []
    for actor, reached in zip(recording.actors, progress(recording, cut.at), strict=True):
        lasting = reached._replace(promised=0) if trial.fsync == "off" else reached
        top = actor.name + "/"
        own = {path.removeprefix(top): t for path, t in seen.items() if path.startswith(top)}
        found = complaints(actor, lasting, own)
        words += [f"{actor.name} {tuple(reached)}: {word}" for word in found]
    return words


def goes_on(verbs: Verbs, tops: list[str]) -> list[str]:
    """Use the union as its owner would after the reboot."""
    try:
        for top in tops:
            verbs.create(f"{top}/after")
            verbs.append(f"{top}/after", b"the power came back")
            verbs.rename(f"{top}/after", f"{top}/later")
            verbs.unlink(f"{top}/later")
    except OSError as exc:
        return [f"does not go on: {exc}"]
    return []


def look_at_upper(upper: str) -> None:
    """Read all files, as a backup does: what a disk says of holes may depend on that."""
    for directory, _, names in os.walk(upper):
        for path in (f"{directory}/{name}" for name in names):
            if stat.S_ISREG(os.lstat(path).st_mode):
                with open(path, "rb") as file:
                    file.read()


def judge(trial: Trial, recording: Recording, cuts: list[Cut], directory: str) -> Iterator[str]:
    """Yield what is wrong after each of *cuts*, and nothing where all promises were kept."""
    rebuilder = Rebuilder(recording, directory)
    disk, image = f"{directory}/disk", f"{directory}/image"
    place = Place(recording.lower, f"{disk}/upper", f"{disk}/work", f"{directory}/union")
    for number, cut in enumerate(cuts):
        rebuilder.build(cut, image)
        mounts = trial.contender == "overlay" or number % MOUNT_EVERY == 0
        try:
            with disks.mounted(trial.kind, image, disk):
                look_at_upper(place.upper)
                look = inspect if mounts else inspect_core
                words = look(trial, recording, cut, place)
        except OSError as exc:
            words = [f"does not mount, or not end: {exc}"]
        for word in words:
            yield f"{trial} {cut}: {word}"


def attempt(trial: Trial, cuts: int, *, judged: str = "") -> tuple[int, list[str]]:
    """Record one run and cut it; return how many cuts were made, and all complaints.

    It is judged by the promises of its own fsync mode, or of the one that *judged* names.
    """
    directory = tempfile.mkdtemp(prefix="unionfs-powercut-", dir="/dev/shm")
    try:
        recording = record(trial, directory)
        chosen = choose(recording.records, cuts, trial.seed)
        kinds = Counter(r.kind.decode() for r in recording.records)
        print(f"{trial}: {kinds['W']} writes, {kinds['F']} flushes, {len(chosen)} cuts")
        return len(chosen), list(
            judge(trial._replace(fsync=judged or trial.fsync), recording, chosen, directory)
        )
    finally:
        shutil.rmtree(directory)


CUTS_PER_RUN = 250


def arguments(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description.split("\n", maxsplit=1)[0])
    parser.add_argument("--fs", choices=disks.KINDS, default="ext4")
    parser.add_argument("--cuts", type=int, default=1000, help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 20))
    parser.add_argument("--fsync", choices=("auto", "strict", "off"), default="auto")
    return parser


def repeat(attempt: Callable[[Trial, int], tuple[int, list[str]]], trial: Trial, cuts: int) -> int:
    """Cut one run after the other, each by the next seed; print what breaks, return the status."""
    disks.seclude()
    made, broken, seed = 0, 0, trial.seed
    while made < cuts:
        count, words = attempt(trial._replace(seed=seed), min(CUTS_PER_RUN, cuts - made))
        made, broken, seed = made + count, broken + len(words), seed + 1
        print("\n".join(words), flush=True)
    print(f"{made} cuts, {broken} broken promises (first seed {trial.seed})")
    return 1 if broken else 0


def main(argv: list[str] | None = None) -> int:
    parser = arguments(__doc__)
    parser.add_argument("--contender", choices=CONTENDERS, default="union")
    asked = parser.parse_args(argv)
    return repeat(attempt, Trial(asked.fs, asked.contender, asked.fsync, asked.seed), asked.cuts)


if __name__ == "__main__":
    sys.exit(main())
