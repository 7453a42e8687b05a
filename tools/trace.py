"""What requests cost the daemon: `python -m tools.trace`, as root, with /dev/fuse.

A daemon serves a mount in this process, and a client makes one request after the other.
Each row tells, of one request: calls of the package's functions, how many functions and
modules these are, how many of the calls cross from one module, and from one room (a folder of
the package), to another, and the calls of posix functions.  What the daemon does while it waits
for requests is not counted.
"""

import collections
import contextlib
import dataclasses
import inspect
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import unionfs
from unionfs.fuse.session import dispatch, messages
from unionfs.host import mountcalls
from unionfs.mounting import daemon
from unionfs.mounting.options import Options

_PACKAGE = os.path.dirname(unionfs.__file__)
_MARK = b"mark-of-trace."  # the client looks such names up, each once
_ANSWER = dispatch.Dispatcher._answer.__code__  # noqa: SLF001 - where each request begins
_TAKE = dispatch.Dispatcher._take.__code__  # noqa: SLF001 - where the next one has come
_PAUSE = dispatch.Dispatcher._is_made_ready.__code__  # noqa: SLF001 - where there is none yet
# What goes on between requests.
_WAITING = ("fuse/session/loop.py", "fuse/session/polling.py", "fuse/foresight.py")
_WAITING_IN_PART = ("dispatch.py", "session.py", "staging.py", "upper.py", "direct.py")
_WAITING_FUNCTIONS = frozenset(
    {"serve", "_is_asked", "_is_made_ready", "foresee", "tidy", "_attempt"}
)
_WAITING_FUNCTIONS |= {"use_pause", "_leave_to_threads", "_wait_after_init"}
_PAUSING = inspect.CO_COROUTINE | inspect.CO_GENERATOR
_FORGETTING_SECONDS = 0.2  # in which the kernel tells that it forgets what was deleted
_POSIX = frozenset({"posix", "fcntl"})
COLUMNS = ("calls", "functions", "modules", "crossings of modules", "crossings of rooms", "posix")


@dataclasses.dataclass
class Cost:
    """What was done for one request."""

    calls: "collections.Counter[CodeType]" = dataclasses.field(default_factory=collections.Counter)
    crossings: int = 0  # from module to module
    room_crossings: int = 0
    posix: "collections.Counter[str]" = dataclasses.field(default_factory=collections.Counter)

    def row(self) -> tuple[int, ...]:
        """Return a figure for each of `COLUMNS`."""
        modules = {code.co_filename for code in self.calls}
        calls, posix = self.calls.total(), self.posix.total()
        return calls, len(self.calls), len(modules), self.crossings, self.room_crossings, posix


def _is_of_request(code: CodeType) -> bool:
    name = code.co_filename
    if not name.startswith(_PACKAGE) or name.endswith(_WAITING):
        return False
    return not name.endswith(_WAITING_IN_PART) or code.co_name not in _WAITING_FUNCTIONS


def _is_in_pause(frame: FrameType) -> bool:
    """Tell whether something is made ready for a later request."""
    above: FrameType | None = frame
    while above is not None and above.f_code is not _PAUSE:
        above = above.f_back
    return above is not None


class Tracer:
    """Counts what the daemon's thread does for the requests wanted, each after its mark."""

    def __init__(self, wanted: Iterable[int]) -> None:
        self._wanted = iter(wanted)  # opcodes
        self._opcode = 0
        self._cost: Cost | None = None  # of the request that is being answered
        self.costs: list[Cost] = []
        self._paused: dict[int, FrameType] = {}  # kept, so that no other gets their numbers

    def profile(self, frame: FrameType, event: str, argument: Any) -> None:
        """Take note of one event: sys.setprofile."""
        code = frame.f_code
        if event == "call" and code is _ANSWER:
            self._begin(frame.f_locals["opcode"], bytes(frame.f_locals["body"]))
        elif event == "call" and code is _TAKE:
            self._cost = None
        if self._cost is None or not _is_of_request(code) or _is_in_pause(frame):
            return
        if event == "call" and not self._is_resumed(frame):
            self._cost.calls[code] += 1
            caller = frame.f_back
            if caller is not None and _is_of_request(caller.f_code):
                self._cost.crossings += _module(caller) != _module(frame)
                self._cost.room_crossings += _room(caller) != _room(frame)
        elif event == "c_call" and getattr(argument, "__module__", None) in _POSIX:
            self._cost.posix[argument.__name__] += 1

    def _is_resumed(self, frame: FrameType) -> bool:
        """Tell whether a coroutine or generator only goes on: that is no call."""
        if not frame.f_code.co_flags & _PAUSING:
            return False
        resumed = id(frame) in self._paused
        self._paused[id(frame)] = frame
        return resumed

    def _begin(self, opcode: int, body: bytes) -> None:
        self._cost = None
        if body.startswith(_MARK):
            self._opcode = next(self._wanted)
        elif opcode == self._opcode:
            self._opcode = 0
            self._cost = Cost()
            self.costs.append(self._cost)


def _module(frame: FrameType) -> str:
    return frame.f_code.co_filename


def _room(frame: FrameType) -> str:
    return os.path.relpath(_module(frame), _PACKAGE).partition("/")[0]


# What a client does on the mount: before the marks, and between them.


def _nothing(_mnt: Path) -> None:
    pass


def _append(mnt: Path) -> None:
    with (mnt / "write").open("ab"):
        pass


_Act = Callable[[Path], Any]
# name -> opcode, what the client does before, and what it makes the request by
REQUESTS: dict[str, tuple[int, _Act, _Act]] = {
    "LOOKUP of a lower file": (messages.LOOKUP, _nothing, lambda mnt: (mnt / "file").stat()),
    "LOOKUP of no file": (messages.LOOKUP, _nothing, lambda mnt: (mnt / "absent").exists()),
    "OPEN that copies up": (messages.OPEN, _nothing, _append),
    "CREATE": (messages.CREATE, _nothing, lambda mnt: (mnt / "new").touch()),
    "SETATTR of a lower file": (messages.SETATTR, _nothing, lambda mnt: (mnt / "mode").chmod(0)),
    "UNLINK of a lower file": (messages.UNLINK, _nothing, lambda mnt: (mnt / "file").unlink()),
    "RENAME of a new file over a lower one": (
        messages.RENAME, _nothing, lambda mnt: (mnt / "new").rename(mnt / "target"),
    ),
    "RENAME of a lower directory": (
        messages.RENAME, _nothing, lambda mnt: (mnt / "moved").rename(mnt / "there"),
    ),
    "RENAME of a lower directory over an emptied one": (
        messages.RENAME,
        lambda mnt: (mnt / "full" / "file").unlink(),
        lambda mnt: (mnt / "directory").rename(mnt / "full"),
    ),
    "READDIRPLUS": (messages.READDIRPLUS, _nothing, lambda mnt: os.listdir(mnt / "there")),
}  # fmt: skip


def _layers(place: Path) -> None:
    for name in ("upper", "work", "mnt", "lower/full", "lower/directory", "lower/moved"):
        (place / name).mkdir(parents=True)
    files = "gone first file write mode target full/file directory/f moved/g"
    for name in files.split():
        (place / "lower" / name).write_text("content\n")


def _client(mnt: Path, ready: int) -> None:
    os.read(ready, 1)
    # So what is done once is done: a whiteout, standing for root, and the mark of a directory that
    # holds copies.
    (mnt / "gone").unlink()
    (mnt / "first").chmod(0)
    time.sleep(_FORGETTING_SECONDS)
    for number, (_, before, act) in enumerate(REQUESTS.values()):
        before(mnt)
        (mnt / (_MARK.decode() + str(number))).exists()
        act(mnt)
    (mnt / (_MARK.decode() + "end")).exists()


@contextlib.contextmanager
def _started(mnt: Path) -> Iterator[Callable[[], None]]:
    """Yield what lets a client begin, which ends by unmounting."""
    ready, go = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(go)
            _client(mnt, ready)
        except Exception:  # noqa: BLE001 - told
            traceback.print_exc()
        finally:
            mountcalls.umount(str(mnt), mountcalls.MNT_DETACH)
            os._exit(0)
    yield lambda: os.close(go)
    os.waitpid(child, 0)


def trace() -> list[Cost]:
    """Return the cost of each of `REQUESTS`."""
    tracer = Tracer([opcode for opcode, *_ in REQUESTS.values()] + [0])
    with tempfile.TemporaryDirectory(prefix="unionfs-trace.") as name:
        place = Path(name)
        _layers(place)
        options = Options(
            lowers=(str(place / "lower"),), upper=str(place / "upper"), work=str(place / "work"),
            metacopy="on", redirect_dir="on",
        )  # fmt: skip
        with _started(place / "mnt") as start:

            def started() -> None:
                start()
                sys.setprofile(tracer.profile)

            try:
                daemon.open_and_serve(options, str(place / "mnt"), started)
            finally:
                sys.setprofile(None)
    return tracer.costs


def main() -> int:
    """Print the table; with a word, the functions of the requests whose name has it, too."""
    word = sys.argv[1] if len(sys.argv) > 1 else None
    sys.stdout.write("  ".join(COLUMNS) + "\n")
    for request, cost in zip(REQUESTS, trace(), strict=True):
        figures = (
            f"{figure:{len(name)}}" for figure, name in zip(cost.row(), COLUMNS, strict=True)
        )
        sys.stdout.write("  ".join(figures) + f"  {request}\n")
        if word and word in request:
            for code, times in cost.calls.items():
                where = os.path.relpath(code.co_filename, _PACKAGE)
                sys.stdout.write(f"      {times:3} {where}:{code.co_qualname}\n")
            for name, times in cost.posix.items():
                sys.stdout.write(f"      {times:3} {name}(2)\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
