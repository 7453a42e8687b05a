"""One case on trial: a call of the daemon fails, or several do, and the living mount is judged.

An error says that nothing changed, success that all did; and what the mount shows
is that: by the numbers that the kernel keeps, by names looked up anew, after the
kernel forgot all, and to another union over the same layers, as a remount shows it.
The nodes of both unions say the same of each object.

Where a second call fails, one that is to undo what came before the first, the change
may be half done; but all of these agree on what there is, and it is logged.
"""

import contextlib
import logging
from typing import NamedTuple, Protocol, Self

from .client import Client
from .corpus import Case
from .trees import Tree, differences
from .trial import Expected, Field, again, descriptors, settled


class Trouble(Protocol):
    """What befalls an operation: a `Gate`, or a disk that is full."""

    at: int
    more: float
    tidying: bool  # was the removal of a temporary among what failed?

    def armed(self) -> contextlib.AbstractContextManager[object]:
        """Let it happen meanwhile."""


class Record(NamedTuple):
    """What a union knows of one object."""

    ino: int
    home: int
    upper: bool
    lowers: tuple[tuple[int, int], ...]  # number of the layer and of the inode, top first
    redirect: bytes
    link: bytes
    links: int  # beyond the host's st_nlink
    shown: int  # st_nlink, of directories too


def records(client: Client) -> dict[str, Record]:
    """Return what is known of the objects that the last harvest saw, by path."""
    union, found = client.union, {}
    for path, ino in client.numbers.items():
        node = union.nodes[ino]
        lowers = tuple(
            (part.layer.number, part.layer.stat(part.path).st_ino) for part in node.lowers
        )
        shown, _ = union.shown(node, union.attributes(node))
        found[path] = Record(
            ino, node.host_ino, node.upper, lowers, node.redirect, node.link, node.links, shown
        )
    return found


def failed(field: Field, case: Case, expected: Expected, trouble: Trouble) -> list[str]:
    """Let calls fail by *trouble*; say what is wrong at once, later, and after a remount."""
    field.fresh()
    if trouble.at % 2:  # half of them on what an earlier mount prepared
        with field.client() as client:
            case.prepare(client)
        case = case._replace(prepare=lambda _verbs: None)
    with field.client() as client:
        case.prepare(client)
        words, seen = _tried(field, case, expected, trouble, client)
        if seen not in expected:  # after a second error: later operations work all the same
            expected = Expected(seen, seen)
        words = words or again(client, case, expected, seen)
    if not words and not trouble.more:
        with field.client() as client:
            words = differences(expected.new, settled(client.harvest()))
        words += [f"left in work: {field.staged()}"] if field.staged() else []
    return words


def _tried(
    field: Field, case: Case, expected: Expected, trouble: Trouble, client: Client
) -> tuple[list[str], Tree]:
    """Let calls fail; return what is wrong, and what the union shows then."""
    client.keep()
    words = _differs("before", expected.old, client)
    before, numbers = descriptors(), client.numbers
    with _Told() as told:
        answer = _attempt(case, client, trouble)
    seen = settled(client.harvest())
    known = records(client)
    if isinstance(answer, Exception) and not isinstance(answer, OSError):
        words.append(f"the caller got {answer!r}")
    promised = expected.new if answer is None else expected.old
    if not trouble.more or answer is None:
        words += [f"by name: {word}" for word in differences(promised, seen)]
    elif seen != promised and not told:
        words.append("not what the answer says, and nobody is told")
    if answer is not None:
        by_number = settled(client.by_number(numbers))
        kept = {path: thing for path, thing in seen.items() if path in numbers}
        words += [f"by number: {word}" for word in differences(kept, by_number)]
    client.forget()
    words += _differs("forgotten", seen, client)
    client.forget()
    words += _left(field, trouble, client, before)
    words += _elsewhere(field, trouble, seen, known)
    if trouble.tidying:  # that union has removed what was left
        seen = settled(client.harvest())
    return [f"the answer was {answer!r}", *words] if words else [], seen


def _differs(when: str, expected: Tree, client: Client) -> list[str]:
    return [f"{when}: {word}" for word in differences(expected, settled(client.harvest()))]


def _attempt(case: Case, client: Client, trouble: Trouble) -> Exception | None:
    try:
        with trouble.armed():
            case.do(client)
    except Exception as exc:  # noqa: BLE001 - which one it is, is what is asked here
        return exc
    return None


def _left(
    field: Field, trouble: Trouble, client: Client, before: set[tuple[str, str]]
) -> list[str]:
    """Say what is left of an operation that a union without any node should not have."""
    words = []
    if len(client.union.nodes) != 1:
        words.append(f"nodes are left: {[node.path for node in client.union.nodes.values()]}")
    if leaked := descriptors() - before:
        words.append(f"left open: {sorted(leaked)}")
    if field.staged() and not trouble.tidying:  # what cannot be removed waits for the next mount
        words.append(f"left in work: {field.staged()}")
    return words


def _elsewhere(field: Field, trouble: Trouble, seen: Tree, known: dict[str, Record]) -> list[str]:
    """Say what another union over the layers sees and knows differently."""
    left = bool(field.staged())
    with field.client() as client:
        client.keep()
        tree = settled(client.harvest())
        there = records(client)
    if left and trouble.tidying:  # a temporary that could not be removed was a link until now
        for path in seen.keys() & tree.keys():
            tree[path] = tree[path]._replace(links=seen[path].links)
            there[path] = there[path]._replace(shown=known[path].shown, links=known[path].links)
    words = [f"remounted: {word}" for word in differences(seen, tree)]
    if trouble.more > 1:  # the union could not even look
        return words
    return words + [
        f"{path} is {known[path]}, remounted {there[path]}"
        for path in sorted(known.keys() & there.keys())
        if known[path] != there[path]
    ]


class _Told(logging.Handler):
    """Tells whether anything was logged meanwhile that an administrator would see."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.name != "unionfs.fuse.trouble":  # it tells the answer alone
            self.records.append(record)

    def __bool__(self) -> bool:
        return bool(self.records)

    def __enter__(self) -> Self:
        logging.getLogger().addHandler(self)
        return self

    def __exit__(self, *_exc: object) -> None:
        logging.getLogger().removeHandler(self)
