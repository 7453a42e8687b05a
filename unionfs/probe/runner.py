"""Running checks: a scratch directory, and for each check a process of its own."""

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterable, Iterator

from unionfs.probe import trees
from unionfs.probe.children import Child, NoAnswerError
from unionfs.probe.model import (
    LACKING,
    Check,
    DiffersError,
    NotSupportedError,
    NotTriedError,
    Outcome,
    Trial,
    Verdict,
    error_name,
)

PLANTED = "unionfs-probe"  # the directory that `--plant` makes and `--planted` looks for
# Other users take part; a FUSE file system may check the whole path for them, not only the name.
SEARCHABLE = 0o755
HANG = 90.0  # seconds after which a check counts as hung; races end by themselves before


class LeftoverError(Exception):
    """The scratch directory is still there; the message says why."""


@contextlib.contextmanager
def scratch(directory: str) -> Iterator[str]:
    """Make a scratch directory in *directory*, and remove it at the end, whatever happens.

    Raises LeftoverError where the file system does not let it be removed.
    """
    path = tempfile.mkdtemp(prefix="unionfs-probe-", dir=directory)
    os.chmod(path, SEARCHABLE)
    with _removed(path):
        yield path


@contextlib.contextmanager
def planted(directory: str) -> Iterator[str]:
    """Use what was planted in *directory*, and remove it at the end, as `scratch` does."""
    path = os.path.join(directory, PLANTED)
    os.listdir(path)  # raises where nothing is planted
    with _removed(path):
        yield path


@contextlib.contextmanager
def _removed(path: str) -> Iterator[None]:
    try:
        yield
    finally:
        try:
            trees.remove(path)
        except OSError as exc:
            raise LeftoverError(f"{path}: cannot be removed: {exc.strerror}") from exc


def plant(directory: str, checks: Iterable[Check], *, targets: bool) -> None:
    """Write the targets of all *checks*, or their sources, into *directory*."""
    for check in checks:
        place = os.path.join(directory, PLANTED, check.slug)
        os.makedirs(place, exist_ok=True)
        trees.complete(trees.half(check.tree, targets=targets), place)


def run(check: Check, place: str, rounds: int) -> Outcome:
    """Try one check in a directory of its own in *place*."""
    directory = os.path.join(place, check.slug)
    try:
        with Child(lambda: _try(check, directory, rounds)) as child:
            verdict, seen = child.result(HANG)
    except NoAnswerError as exc:
        verdict, seen = Verdict.DIFFERS, str(exc)
    with contextlib.suppress(OSError):  # tried again at the end, then with a message
        trees.remove(directory)
    if is_gone(place):
        verdict, seen = Verdict.DIFFERS, "the file system died of it"
    return Outcome(Verdict(verdict), seen)


def is_gone(place: str) -> bool:
    """Tell whether the daemon behind a FUSE mount has ended: all that is left is ENOTCONN."""
    try:
        os.statvfs(place)  # never answered from a cache, unlike stat
    except OSError as exc:
        return exc.errno == errno.ENOTCONN
    return False


def _try(check: Check, directory: str, rounds: int) -> tuple[str, str]:
    try:
        _prepare(check, directory)
        note = check.act(Trial(check.tree, rounds))
    except DiffersError as exc:
        return Verdict.DIFFERS, str(exc)
    except NotSupportedError as exc:
        return Verdict.NOT_SUPPORTED, str(exc)
    except NotTriedError as exc:
        return Verdict.NOT_TRIED, str(exc)
    except OSError as exc:
        return Verdict.DIFFERS, f"{error_name(exc.errno)}: {exc.strerror}"
    return Verdict.HOLDS, note or ""


def _prepare(check: Check, directory: str) -> None:
    """Enter the directory of the check and make what is missing of its tree."""
    os.umask(0o022)
    with contextlib.suppress(FileExistsError):
        os.mkdir(directory)
    os.chdir(directory)
    try:
        trees.complete(check.tree)
    except OSError as exc:
        if exc.errno not in LACKING:
            raise
        raise NotSupportedError(
            f"{error_name(exc.errno)} for {exc.filename2 or exc.filename}"
        ) from exc
