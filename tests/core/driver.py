"""Path-based calls on the core, as the kernel would make them after its look-ups."""

import os
from stat import S_IFIFO, S_ISDIR, S_ISLNK, S_ISREG, filemode

from tests.layers import opened
from unionfs.changes.assembly import union_of, verbs_of
from unionfs.changes.attributes import Attributes, NewAttributes
from unionfs.changes.changes import ROOT
from unionfs.layers.layer import Layer, WritableLayer
from unionfs.layers.persistence import Rules
from unionfs.layers.stack import Stack, State


def stack_in(directory, rules=()):
    """Open lower0, lower1, ..., upper with work, and with *rules* state with state-work."""
    lowers = sorted(directory.glob("lower*"))
    upper = work = state = None
    if (directory / "upper").exists():
        fds = opened(directory / "upper", directory / "work")
        upper, work = WritableLayer(fds[0], name="upper"), WritableLayer(fds[1], name="work")
    if rules:
        fds = opened(directory / "state", directory / "state-work")
        layers = WritableLayer(fds[0], name="state"), WritableLayer(fds[1], name="state-work")
        state = State(*layers, Rules.parse(rules))
    return Stack(
        upper,
        work,
        tuple(
            Layer(*opened(path), number=len(lowers) - index, name=str(path))
            for index, path in enumerate(lowers)
        ),
        state=state,
    )


class Driver:
    def __init__(self, stack, features, directory):
        self.stack = stack
        self.directory = directory  # holds lower0, lower1, ..., upper, work
        self.union = union_of(stack, features)
        self.copyup, self.changes = verbs_of(self.union)
        self.attributes = Attributes(self.union, self.copyup)
        self.upgraded = False  # are the lowers other ones than those that state was made over?
        self.open_fds = {}  # descriptor -> its node
        self.union.holders.append(
            lambda node: [fd for fd, opened in self.open_fds.items() if opened is node]
        )

    def close(self):
        for fd in self.open_fds:
            self.union.readers.discard(fd)
            os.close(fd)
        self.stack.close()
        for union in (
            self.union,
            *(getattr(self.union, side, None) for side in ("scratch", "state")),
        ):
            pins = vars(union.upper).get("pins") if union is not None else None
            if pins is not None:
                os.close(pins.fd)

    @property
    def upper(self):
        return self.directory / "upper"

    @property
    def work(self):
        return self.directory / "work"

    @property
    def state(self):
        return self.directory / "state"

    @property
    def state_work(self):
        return self.directory / "state-work"

    def node(self, path):
        node = self.union.root
        for name in os.fsencode(path).split(b"/") if path else ():
            found = self.union.lookup.node(node, name)
            if found is None:
                raise FileNotFoundError(path)
            node = found[0]
            node.lookups += 1
        return node

    def _parent(self, path):
        directory, _, name = path.rpartition("/")
        return self.node(directory), os.fsencode(name)

    def exists(self, path):
        try:
            self.node(path)
        except FileNotFoundError:
            return False
        return True

    def stat(self, path):
        node = self.node(path)
        return self.union.attributes(node)

    def links(self, path):
        node = self.node(path)
        return self.union.shown(node, self.union.attributes(node))[0]

    def list(self, path=""):
        return sorted(os.fsdecode(name) for name in self.union.listing(self.node(path)))

    def open(self, path):
        node = self.node(path)
        fd = self.union.open_to_read(node)
        self.open_fds[fd] = node
        return fd

    def read(self, path):
        if self.node(path).partial:
            return self._merged(self.union.upper.partials.of(self.node(path))).decode()
        fd = self.open(path)
        return os.pread(fd, 1 << 20, 0).decode()

    @staticmethod
    def _merged(partial):
        runs = partial.runs(0, 1 << 20)
        fds = (partial.target, partial.source)
        return b"".join(os.pread(fds[lower], end - start, start) for start, end, lower in runs)

    def patch(self, path, text, offset):
        """Write a part of a file, by blocks where that is how it comes up."""
        node = self.node(path)
        if self.union.has_lower_content(node) and self.copyup.partials.suits(node):
            self.copyup.by_blocks(node)
        if node.partial:
            self.write_by_blocks(node, text.encode(), offset)
        else:
            os.pwrite(self.open_to_write(path), text.encode(), offset)

    def write_by_blocks(self, node, data, offset):
        """Write to a partial copy as a client does that has it open."""
        with self.union.upper.partials.writing(node) as fd:
            return self.copyup.partials.write(node, fd, data, offset)

    def cut(self, path, size):
        """Set the size of a file."""
        self.change(path, size=size)

    def open_to_write(self, path, *, truncate=False):
        node = self.node(path)
        self.copyup.whole(node, 0 if truncate else None)
        layer, place = self.union.upper.place(node)
        fd = layer.open_to_write(place, os.O_RDWR | (os.O_TRUNC if truncate else 0))
        self.open_fds[fd] = node
        return fd

    def write(self, path, text):
        fd = self.open_to_write(path, truncate=True)
        os.pwrite(fd, text.encode(), 0)

    def append(self, path, text):
        fd = self.open_to_write(path)
        os.pwrite(fd, text.encode(), os.fstat(fd).st_size)

    def create(self, path, text="", mode=0o644, caller=ROOT):
        node, _, fd = self.changes.create(*self._parent(path), os.O_RDWR, mode, caller)
        node.lookups += 1
        os.write(fd, text.encode())
        os.close(fd)
        return node

    def mkdir(self, path, mode=0o755, caller=ROOT):
        node, _ = self.changes.mkdir(*self._parent(path), mode, caller)
        node.lookups += 1
        return node

    def mknod(self, path, mode=S_IFIFO | 0o644, device=0):
        self.changes.mknod(*self._parent(path), mode, device, ROOT)[0].lookups += 1

    def symlink(self, path, target):
        node, _ = self.changes.symlink(*self._parent(path), os.fsencode(target), ROOT)
        node.lookups += 1

    def readlink(self, path):
        return os.fsdecode(self.union.readlink(self.node(path)))

    def unlink(self, path):
        self.changes.unlink(*self._parent(path))

    def rmdir(self, path):
        self.changes.rmdir(*self._parent(path))

    def rename(self, old, new, flags=0):
        self.changes.rename(*self._parent(old), *self._parent(new), flags)

    def link(self, old, new):
        self.changes.link(self.node(old), *self._parent(new))

    def change(self, path, **attributes):
        return self.attributes.change(self.node(path), NewAttributes(**attributes))

    def chmod(self, path, mode):
        self.change(path, mode=mode)

    def tree(self, path=""):
        tree = {}
        for name in self.list(path):
            child = f"{path}/{name}" if path else name
            st = self.stat(child)
            if S_ISDIR(st.st_mode):
                tree[name] = self.tree(child)
            elif S_ISREG(st.st_mode):
                tree[name] = self.read(child)
            elif S_ISLNK(st.st_mode):
                tree[name] = "-> " + self.readlink(child)
            else:
                tree[name] = filemode(st.st_mode)
        return tree
