"""A layer that may keep one waiting: on a server, behind another daemon, on a dying disk.

Its verbs are those of `Layer`, but none waits.  An answer is kept, as lowers do not
change; a question without a known answer raises `Ask`.  The session then has a thread find
the answer (`Ask.find`), and makes the request again from its beginning
(`fuse/session/asking`).  A request that asks three things is made four times.

This is sound because nothing has changed when `Ask` is raised but what an error would
leave, too: a copy-up, which nobody sees, or something that is undone.  So all that a change
has to know of lowers is asked for before its first effect (`CopyUp.foresee`).

Until the layer is told that there are threads (`ask_from_now_on`) it works as any other:
while the union is being mounted, and where libfuse answers the requests.

The answers that a request has had are pinned until it ends, so it cannot ask in circles,
and answers that are not kept at all (content, errors that may pass) serve it all the same.
"""

import errno
import os
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, NamedTuple, TypeVar

from unionfs.layers.descent import Landmarks
from unionfs.layers.fetched import Fetched, OpenFiles
from unionfs.layers.layer import Layer

# Bytes, about, that all answers may take; and that an answer, attributes, a listed name take.
_MOST_BYTES = 64 << 20
_BYTES, _STAT_BYTES, _NAME_BYTES = 280, 850, 115

# Errors that say what a layer holds.  All others may pass, with a server that comes back.
_LASTING = frozenset({
    errno.ENOENT, errno.ENOTDIR, errno.ENODATA, errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL,
    errno.ENAMETOOLONG,
})  # fmt: skip

# Attributes that are listed where they are there: listxattr(2).  A file system may have others.
_LISTED = ("security.", "system.posix_acl_", "trusted.overlay.")

_T = TypeVar("_T")

# The name of a verb and what it is asked for.
Key = tuple[Any, ...]
Find = Callable[[Layer], Any]


class Answer(NamedTuple):
    """What a layer answered: a value, or an error."""

    value: Any
    error: Exception | None = None

    def give(self) -> Any:
        """Return the value, or raise the error."""
        if self.error is None:
            return self.value
        if isinstance(self.error, OSError):  # a new one, as an exception collects its tracebacks
            raise OSError(self.error.errno, os.strerror(self.error.errno or errno.EIO))
        raise self.error

    @property
    def lasts(self) -> bool:
        """Tell whether the same will be answered as long as the layer does not change."""
        if self.error is None:
            return True
        return isinstance(self.error, OSError) and self.error.errno in _LASTING

    def drop(self) -> None:
        """Let go of a value that nobody has taken."""
        if isinstance(self.value, Fetched):
            self.value.close()


class Ask(Exception):  # noqa: N818 - no error: it says what to do
    """What a far layer is to be asked: *find* makes the system calls, in a thread."""

    def __init__(self, layer: "FarLayer", key: Key, find: Find, *, kept: bool) -> None:
        super().__init__(layer.name, key)
        self.layer = layer
        self.key = key
        self.find = find
        self.kept = kept  # the answer serves later requests, too

    def answered(self, near: Layer) -> Answer:
        """Return the answer of *near*, this thread's own form of the layer."""
        try:
            return Answer(self.find(near))
        except Exception as exc:  # noqa: BLE001 - raised where it was asked for
            return Answer(None, exc.with_traceback(None))


# The answers that the request being made has had so far.
Pinned = dict[tuple["FarLayer", Key], Answer]
PINNED: ContextVar[Pinned | None] = ContextVar("pinned", default=None)


class Memo:
    """The most recently used answers of all far layers of a union."""

    def __init__(self, room: int = _MOST_BYTES) -> None:
        self._kept: dict[tuple[FarLayer, Key], Answer] = {}  # the one used last at the end
        self._free = room

    def get(self, key: "tuple[FarLayer, Key]") -> Answer | None:
        """Return an answer, None where there is none."""
        answer = self._kept.pop(key, None)
        if answer is not None:
            self._kept[key] = answer
        return answer

    def put(self, key: "tuple[FarLayer, Key]", answer: Answer) -> None:
        """Keep an answer, and let go of the least recently used ones."""
        self._drop(key)
        self._kept[key] = answer
        self._free -= _bytes(answer)
        while self._free < 0 and self._kept:
            self._drop(next(iter(self._kept)))

    def _drop(self, key: "tuple[FarLayer, Key]") -> None:
        answer = self._kept.pop(key, None)
        if answer is not None:
            self._free += _bytes(answer)

    def clear(self) -> None:
        """Let go of all."""
        while self._kept:
            self._drop(next(iter(self._kept)))


def _bytes(answer: Answer) -> int:
    """Return how much memory an answer takes, about."""
    value = answer.value
    if isinstance(value, bytes):
        return _BYTES + len(value)
    if isinstance(value, os.stat_result):
        return _STAT_BYTES
    return _BYTES + _NAME_BYTES * (len(value) if isinstance(value, dict | list) else 0)


class FarLayer(Layer):
    """A host directory tree that is only read, and only by threads."""

    def __init__(
        self, fd: int, *, number: int = 0, name: str = "", memo: Memo | None = None
    ) -> None:
        super().__init__(fd, number=number, name=name)
        self._memo = Memo() if memo is None else memo
        self._files = OpenFiles()
        self._stash = -1
        self._near = Layer.__new__(Layer)
        self._near.__dict__ = self.__dict__  # the same in all but its verbs

    def ask_from_now_on(self, stash: int) -> None:
        """Raise `Ask`; content is fetched to the directory *stash*, work, or to RAM: -1."""
        self._stash = stash
        self.asks = True

    def for_thread(self) -> Layer:
        """Return a form of this layer for one thread, with verbs that wait."""
        near = Layer.__new__(Layer)
        near.__dict__.update(self.__dict__)
        near.landmarks = Landmarks(self.fd)
        return near

    def forget(self) -> None:
        """Forget all answers: the layer is being changed."""
        self._memo.clear()
        self._files.forget()

    def keep(self, ask: Ask, answer: Answer) -> None:
        """Keep an answer for later requests; ESTALE says that the layer was changed."""
        if isinstance(answer.error, OSError) and answer.error.errno == errno.ESTALE:
            self.forget()
        if ask.kept and answer.lasts:
            self._memo.put((self, ask.key), answer)

    def learned(self, key: Key, find: Callable[[Layer], _T]) -> _T:
        """Return what *find* finds, or has found before, under the name *key*."""
        if not self.asks:
            return find(self._near)
        pinned = PINNED.get()
        answer = None if pinned is None else pinned.get((self, key))
        if answer is None:
            answer = self._memo.get((self, key))
            if answer is None:
                raise Ask(self, key, find, kept=True)
            if pinned is not None:
                pinned[self, key] = answer
        found: _T = answer.give()
        return found

    def _once(self, key: Key, find: Callable[[Layer], _T]) -> _T:
        """Return an answer that is for this request alone."""
        if not self.asks:
            return find(self._near)
        answer = (PINNED.get() or {}).get((self, key))
        if answer is None:
            raise Ask(self, key, find, kept=False)
        found: _T = answer.give()
        return found

    # The verbs of a layer

    def find(self, path: bytes) -> os.stat_result | None:
        """Return the attributes of *path*, or None where nothing bears that name."""
        return self.learned(("find", path), lambda near: near.find(path))

    def stat(self, path: bytes) -> os.stat_result:
        """Return the attributes of *path*; a symlink is not followed."""
        st = self.find(path)
        if st is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return st

    def is_guarded(self, path: bytes) -> bool:
        """Tell whether statx(2) calls *path* immutable or append-only."""
        return self.learned(("is_guarded", path), lambda near: near.is_guarded(path))

    def readlink(self, path: bytes) -> bytes:
        """Return the target of the symlink *path*."""
        return self.learned(("readlink", path), lambda near: near.readlink(path))

    def scan(self, path: bytes) -> list["os.DirEntry[bytes]"]:
        """Return the entries of a directory, in the host's order; they know their kinds."""
        return list(self.learned(("scan", path), lambda near: near.scan(path)))

    def attributes(self, path: bytes) -> list[str]:
        """Return the names of the extended attributes of *path*; none where unsupported."""
        return list(self.learned(("attributes", path), lambda near: near.attributes(path)))

    def attribute(self, path: bytes, name: bytes | str) -> bytes:
        """Return the value of one extended attribute; ENODATA where there is none.

        The kernel asks for the ACLs and the capability of each file: their names tell.
        """
        text = os.fsdecode(name)
        if text.startswith(_LISTED) and self.asks and text not in self.attributes(path):
            raise OSError(errno.ENODATA, os.strerror(errno.ENODATA))
        return self.learned(("attribute", path, text), lambda near: near.attribute(path, text))

    def flags(self, path: bytes, command: int, size: int) -> bytes:
        """Return inode flags by the ioctl(2) *command*."""
        key = "flags", path, command
        return self.learned(key, lambda near: near.flags(path, command, size))

    def statvfs(self) -> os.statvfs_result:
        """Return the figures of the file system."""
        return self.learned(("statvfs",), lambda near: near.statvfs())

    # Content.  No descriptor of this layer is handed out for it: closing one may take as long

    def open(self, path: bytes, flags: int) -> int:
        """Open a copy of a file that is near."""
        return self.open_content(path) if self.asks else super().open(path, flags)

    def open_content(self, path: bytes, most: int | None = None) -> int:
        """Return a descriptor of a copy of a file, with its size and its first *most* bytes."""
        if not self.asks:
            return super().open_content(path, most)
        return self._fetched(path, most).take()

    def foresee_content(self, path: bytes, most: int | None = None) -> None:
        """Have the copy made, for `open_content`."""
        if self.asks:
            self._fetched(path, most)

    def _fetched(self, path: bytes, most: int | None) -> Fetched:
        key, stash = ("content", path, most), self._stash
        fetched = self._once(key, lambda near: Fetched.made(near, path, most, stash))
        if fetched.is_taken:  # by this request's last run, or by another that asked with it
            raise Ask(self, key, lambda near: Fetched.made(near, path, most, stash), kept=False)
        return fetched

    def read(self, path: bytes, size: int, offset: int) -> bytes:
        """Return up to *size* bytes of a file; fewer only at its end."""
        files, key = self._files, ("read", path, size, offset)
        return self._once(key, lambda near: files.read(near, path, size, offset))

    def seek(self, path: bytes, offset: int, whence: int) -> int:
        """Return where data or a hole begins: lseek(2), SEEK_DATA and SEEK_HOLE."""
        files, key = self._files, ("seek", path, offset, whence)
        return self._once(key, lambda near: files.seek(near, path, offset, whence))
