"""Files that cross from one side of a union to the other, beside a plain directory."""

import errno
import os
import stat

import pytest

from tests.trees import Link, harvest, plant
from unionfs.changes import copyup, partial_copies
from unionfs.host import syscalls

RULES = ("/keep", "/etc/passwd*")
LOWER = {
    "keep": {"k": "kept", "one": "1"},
    "etc": {"passwd": "root", "hosts": "local"},
    "tmp": {"t": "temporary"},
}
EXCHANGE, NOREPLACE = syscalls.RENAME_EXCHANGE, syscalls.RENAME_NOREPLACE


class Plain:
    """The same calls in a plain directory."""

    def __init__(self, root):
        self.root = root
        self.open_fds = []

    def at(self, path):
        return os.path.join(self.root, path)

    def create(self, path, text=""):
        fd = os.open(self.at(path), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        os.write(fd, text.encode())
        os.close(fd)

    def write(self, path, text):
        with open(self.at(path), "w") as file:
            file.write(text)

    def patch(self, path, text, offset):
        os.pwrite(self.open_to_write(path), text.encode(), offset)

    def cut(self, path, size):
        os.truncate(self.at(path), size)

    def open_to_write(self, path):
        self.open_fds.append(os.open(self.at(path), os.O_RDWR))
        return self.open_fds[-1]

    def open(self, path):
        self.open_fds.append(os.open(self.at(path), os.O_RDONLY))
        return self.open_fds[-1]

    def symlink(self, path, target):
        os.symlink(target, self.at(path))

    def mknod(self, path):
        os.mknod(self.at(path), stat.S_IFIFO | 0o644)

    def unlink(self, path):
        os.unlink(self.at(path))

    def rename(self, old, new, flags=0):
        syscalls.renameat2(-100, os.fsencode(self.at(old)), -100, os.fsencode(self.at(new)), flags)

    def link(self, old, new):
        os.link(self.at(old), self.at(new), follow_symlinks=False)

    def chmod(self, path, mode):
        os.chmod(self.at(path), mode)

    def close(self):
        for fd in self.open_fds:
            os.close(fd)


def play(stage, steps, opened=None):
    """Carry steps out; return what each says: nothing, an errno, or what a descriptor reads."""
    said, opened = [], {} if opened is None else opened
    for verb, *args in steps:
        try:
            if verb in {"open", "open_to_write"}:
                opened[args[0]] = getattr(stage, verb)(*args)
                said.append(None)
            elif verb == "pwrite":
                said.append(os.pwrite(opened[args[0]], args[1].encode(), args[2]))
            elif verb == "pread":
                said.append(os.pread(opened[args[0]], 100, 0))
            elif verb == "fstat":
                st = os.fstat(opened[args[0]])
                said.append((st.st_size, stat.S_IMODE(st.st_mode)))
            else:
                getattr(stage, verb)(*args)
                said.append(None)
        except OSError as exc:
            said.append(errno.errorcode[exc.errno])
    return said


def picture(paths, stat_of, links_of, text_of):
    """What is there: of each path its kind, mode, times, links and text; and who is whose link."""
    first = {}
    found = {}
    for path in sorted(paths):
        st = stat_of(path)
        text = None if stat.S_ISFIFO(st[0].st_mode) else text_of(path, st[0])
        same = first.setdefault(st[1], path)
        found[path] = (
            stat.S_IFMT(st[0].st_mode),
            stat.S_IMODE(st[0].st_mode),
            links_of(path),
            text,
            same,
        )
    return found


def of_union(u):
    def text(path, st):
        return u.readlink(path) if stat.S_ISLNK(st.st_mode) else u.read(path)

    paths = []

    def walk(tree, above):
        for name, what in tree.items():
            path = f"{above}{name}"
            if isinstance(what, dict):
                walk(what, path + "/")
            else:
                paths.append(path)

    walk(u.tree(), "")
    return picture(paths, lambda path: (u.stat(path), u.node(path).ino), u.links, text)


def of_plain(plain):
    def text(path, st):
        if stat.S_ISLNK(st.st_mode):
            return os.readlink(plain.at(path))
        with open(plain.at(path)) as file:
            return file.read()

    paths = [
        os.path.relpath(os.path.join(directory, name), plain.root)
        for directory, _, names in os.walk(plain.root)
        for name in names
    ]

    def look(path):
        st = os.lstat(plain.at(path))
        return st, st.st_ino

    return picture(paths, look, lambda path: look(path)[0].st_nlink, text)


SCRIPTS = {
    "scratch to state, new name": [("create", "tmp/a", "a"), ("rename", "tmp/a", "keep/a")],
    "scratch to state, over a lower file": [
        ("create", "tmp/a", "a"), ("rename", "tmp/a", "keep/k")],
    "over one that was changed": [
        ("write", "keep/k", "new"), ("create", "tmp/a", "a"), ("rename", "tmp/a", "keep/k")],
    "over a whiteout": [
        ("unlink", "keep/k"), ("create", "tmp/a", "a"), ("rename", "tmp/a", "keep/k")],
    "a lower file": [("rename", "tmp/t", "keep/t")],
    "a lower file whose mode was changed": [
        ("chmod", "tmp/t", 0o4711), ("rename", "tmp/t", "keep/t")],
    "as passwd does it": [
        ("create", "etc/npasswd", "ann"), ("chmod", "etc/npasswd", 0o600),
        ("rename", "etc/npasswd", "etc/passwd"), ("create", "etc/npasswd", "bob"),
        ("rename", "etc/npasswd", "etc/passwd")],
    "state to scratch, new name": [("rename", "keep/k", "tmp/k")],
    "state to scratch, over a file": [("write", "keep/k", "new"), ("rename", "keep/k", "tmp/t")],
    "there and back": [("rename", "keep/k", "tmp/k"), ("rename", "tmp/k", "keep/k")],
    "back and there": [("rename", "tmp/t", "keep/t"), ("rename", "keep/t", "tmp/t")],
    "a symlink": [("symlink", "tmp/s", "target"), ("rename", "tmp/s", "keep/s")],
    "a FIFO": [("mknod", "tmp/p"), ("rename", "tmp/p", "keep/p"), ("rename", "keep/p", "etc/p")],
    "no replacing": [
        ("rename", "tmp/t", "keep/k", NOREPLACE), ("rename", "tmp/t", "keep/new", NOREPLACE)],
    "what is not there": [
        ("rename", "tmp/nothing", "keep/k"), ("rename", "tmp/t", "keep/t", EXCHANGE)],
    "exchange": [("rename", "tmp/t", "keep/k", EXCHANGE)],
    "exchange of what was changed": [
        ("write", "tmp/t", "T"), ("write", "keep/k", "K"), ("rename", "keep/k", "tmp/t", EXCHANGE),
        ("rename", "keep/k", "tmp/t", EXCHANGE), ("rename", "keep/k", "tmp/t", EXCHANGE)],
    "over a directory": [("rename", "tmp/t", "keep"), ("rename", "keep/k", "tmp")],
    "open files go along": [
        ("create", "tmp/a", "abc"), ("open_to_write", "tmp/a"), ("rename", "tmp/a", "keep/a"),
        ("pwrite", "tmp/a", "X", 0), ("open", "keep/a"), ("rename", "keep/a", "etc/a"),
        ("pwrite", "tmp/a", "Y", 1), ("pread", "keep/a"), ("pread", "tmp/a")],
    "readers of a lower file go along": [
        ("open", "tmp/t"), ("rename", "tmp/t", "keep/t"), ("write", "keep/t", "other"),
        ("pread", "tmp/t")],
    "what was replaced is still read": [
        ("open", "keep/k"), ("create", "tmp/a", "a"), ("rename", "tmp/a", "keep/k"),
        ("pread", "keep/k")],
    "exchanged files that are open": [
        ("open_to_write", "tmp/t"), ("open_to_write", "keep/k"),
        ("rename", "tmp/t", "keep/k", EXCHANGE), ("pwrite", "tmp/t", "1", 0),
        ("pwrite", "keep/k", "2", 0), ("pread", "tmp/t"), ("pread", "keep/k")],
    "link of what persists": [("link", "etc/passwd", "etc/backup"), ("write", "etc/backup", "new")],
    "link to what persists": [("link", "tmp/t", "keep/t"), ("write", "tmp/t", "new")],
    "link over what is there": [("link", "tmp/t", "keep/k"), ("link", "keep/k", "tmp/t")],
    "several links": [
        ("link", "keep/k", "tmp/a"), ("link", "tmp/a", "tmp/b"), ("link", "tmp/b", "keep/c"),
        ("link", "keep/c", "etc/d"), ("write", "etc/d", "all"), ("unlink", "tmp/a")],
    "as dpkg does it": [
        ("link", "etc/passwd", "etc/backup"), ("create", "etc/new", "n"),
        ("rename", "etc/new", "etc/passwd"), ("unlink", "etc/backup")],
    "the last name that persists goes": [
        ("link", "keep/k", "tmp/a"), ("link", "tmp/a", "tmp/b"), ("unlink", "keep/k"),
        ("write", "tmp/b", "new"), ("unlink", "tmp/a")],
    "the last name that persists is replaced": [
        ("link", "keep/k", "tmp/a"), ("open_to_write", "tmp/a"), ("create", "tmp/n", "n"),
        ("rename", "tmp/n", "keep/k"), ("pwrite", "tmp/a", "X", 0), ("pread", "tmp/a")],
    "it is replaced from state": [
        ("link", "keep/k", "tmp/a"), ("rename", "keep/one", "keep/k"), ("write", "tmp/a", "new")],
    "it is renamed away": [
        ("link", "keep/k", "tmp/a"), ("rename", "keep/k", "tmp/c"), ("write", "tmp/c", "new"),
        ("unlink", "tmp/a"), ("rename", "tmp/c", "keep/k")],
    "one of two that persist is renamed away": [
        ("link", "keep/k", "keep/c"), ("rename", "keep/k", "tmp/a"), ("write", "tmp/a", "new"),
        ("rename", "keep/c", "tmp/c"), ("write", "tmp/a", "newer")],
    "a placeholder is renamed": [
        ("link", "keep/k", "tmp/a"), ("rename", "tmp/a", "etc/b"), ("write", "etc/b", "new"),
        ("rename", "etc/b", "keep/c"), ("write", "keep/c", "newer")],
    "a placeholder over its own file": [
        ("link", "keep/k", "tmp/a"), ("rename", "tmp/a", "keep/k"), ("rename", "keep/k", "tmp/a")],
    "a placeholder is replaced": [("link", "keep/k", "tmp/a"), ("rename", "tmp/t", "tmp/a")],
    "a placeholder is replaced from state": [
        ("link", "keep/k", "tmp/a"), ("rename", "keep/one", "tmp/a")],
    "links of scratch, one renamed": [
        ("link", "tmp/t", "tmp/u"), ("rename", "tmp/t", "keep/t"), ("write", "tmp/u", "new"),
        ("unlink", "tmp/u"), ("write", "keep/t", "newer")],
    "links of symlinks": [
        ("symlink", "keep/s", "target"), ("link", "keep/s", "tmp/s"), ("unlink", "keep/s")],
    "a link that is open": [
        ("create", "tmp/a", "abc"), ("open_to_write", "tmp/a"), ("link", "tmp/a", "keep/a"),
        ("pwrite", "tmp/a", "X", 0), ("unlink", "keep/a"), ("pwrite", "tmp/a", "Y", 1),
        ("unlink", "tmp/a"), ("pwrite", "tmp/a", "Z", 2), ("pread", "tmp/a")],
    "mode of a link": [
        ("link", "keep/k", "tmp/a"), ("chmod", "tmp/a", 0o600), ("unlink", "keep/k")],
}  # fmt: skip


PAGE = 4096
LARGE = {
    "keep": {"k": "kept" * PAGE, "one": "1" * 3 * PAGE},
    "etc": {"passwd": "root" * PAGE, "hosts": "local"},
    "tmp": {"t": "temporary-" * PAGE, "u": "ump" * PAGE},
}
_T = ("patch", "tmp/t", "new", PAGE + 5)
BY_BLOCKS = {
    "to state": [_T, ("rename", "tmp/t", "keep/t"), ("patch", "keep/t", "more", 3 * PAGE - 1)],
    "to state, opened and no more": [("patch", "tmp/t", "", 0), ("rename", "tmp/t", "keep/t")],
    "over a file of state": [_T, ("rename", "tmp/t", "keep/k")],
    "over a file in part": [
        _T, ("rename", "keep/k", "tmp/t"), ("patch", "tmp/t", "X", 9),
        ("rename", "tmp/t", "etc/x")],
    "there and back": [
        _T, ("rename", "tmp/t", "keep/t"), ("patch", "keep/t", "2", 7),
        ("rename", "keep/t", "tmp/v"), ("patch", "tmp/v", "3", 2 * PAGE),
        ("rename", "tmp/v", "keep/k")],
    "cut, and grown": [
        _T, ("cut", "tmp/t", PAGE + 100), ("cut", "tmp/t", 5 * PAGE + 3),
        ("rename", "tmp/t", "keep/t"), ("cut", "keep/t", 6 * PAGE)],
    "grown beyond": [
        _T, ("patch", "tmp/t", "end", 30 * PAGE), ("rename", "tmp/t", "etc/passwd")],
    "exchanged": [
        _T, ("rename", "tmp/t", "keep/k", EXCHANGE), ("patch", "tmp/t", "4", 11),
        ("patch", "keep/k", "5", PAGE), ("rename", "tmp/t", "keep/k", EXCHANGE)],
    "linked into state": [
        _T, ("link", "tmp/t", "keep/t"), ("patch", "keep/t", "6", 12), ("patch", "tmp/t", "7", 0)],
    "linked, and back": [
        _T, ("link", "tmp/t", "keep/t"), ("patch", "keep/t", "6", 12), ("unlink", "keep/t"),
        ("patch", "tmp/t", "8", 3 * PAGE), ("unlink", "tmp/t")],
    "linked, and renamed": [
        _T, ("link", "tmp/t", "tmp/v"), ("rename", "tmp/t", "keep/t"), ("patch", "tmp/v", "9", 1),
        ("rename", "tmp/v", "etc/w"), ("unlink", "keep/t"), ("patch", "etc/w", "A", PAGE)],
    "renamed before, mode changed": [
        _T, ("rename", "tmp/t", "etc/v"), ("chmod", "etc/v", 0o600), ("rename", "etc/v", "keep/v")],
    "refused": [
        _T, ("rename", "tmp/t", "keep/k", NOREPLACE), ("rename", "tmp/t", "keep"),
        ("patch", "tmp/t", "B", 2 * PAGE)],
    "what is open goes along": [
        ("open", "tmp/t"), _T, ("rename", "tmp/t", "keep/t"), ("patch", "keep/t", "C", 2),
        ("pread", "tmp/t"), ("fstat", "tmp/t")],
    "two of them": [
        _T, ("patch", "tmp/u", "D", 1), ("rename", "tmp/u", "keep/u"), ("patch", "tmp/t", "E", 0),
        ("rename", "tmp/t", "keep/u"), ("create", "tmp/u", "F"), ("patch", "tmp/u", "G", 4)],
}  # fmt: skip


@pytest.mark.parametrize("most", [128, 1], ids=["many known", "one known"])
@pytest.mark.parametrize("script", BY_BLOCKS)
def test_a_file_in_part_crosses_as_in_a_plain_directory(union, tmp_path, monkeypatch, script, most):
    for module in (copyup, partial_copies):
        monkeypatch.setattr(module, "LEAST", PAGE)
    plain = Plain(plant(tmp_path / "plain", LARGE))
    u = union({}, LARGE, rules=RULES, copyup="blocks", volatile=True)
    u.union.upper.partials.most = most
    opened = {}, {}
    for number, step in enumerate(BY_BLOCKS[script]):
        assert play(u, [step], opened[0]) == play(plain, [step], opened[1]), number
        assert of_union(u) == of_plain(plain), number
    assert len(u.union.upper.partials) <= most
    plain.close()


def test_what_crossed_takes_no_room_in_scratch(union, monkeypatch):
    for module in (copyup, partial_copies):
        monkeypatch.setattr(module, "LEAST", PAGE)
    u = union({}, LARGE, rules=RULES, copyup="blocks", volatile=True)
    u.patch("tmp/t", "new", PAGE)
    assert u.node("tmp/t").partial
    node = u.node("tmp/t")
    u.rename("tmp/t", "keep/t")
    assert u.node("keep/t") is node
    assert not node.partial
    assert not u.union.upper.partials


@pytest.fixture
def stages(union, tmp_path):
    """A union with two sides, and a plain directory with the same content."""
    plain = Plain(plant(tmp_path / "plain", LOWER))
    yield union({}, LOWER, rules=RULES), plain
    plain.close()


@pytest.mark.parametrize("metacopy", [True, False])
@pytest.mark.parametrize("script", SCRIPTS)
def test_what_crosses_does_as_in_a_plain_directory(union, tmp_path, script, metacopy):
    plain = Plain(plant(tmp_path / "plain", LOWER))
    u = union({}, LOWER, rules=RULES, metacopy=metacopy)
    assert play(u, SCRIPTS[script]) == play(plain, SCRIPTS[script])
    assert of_union(u) == of_plain(plain)
    plain.close()
    again = u.reboot()
    assert again.tree() == _kept(tmp_path / "plain")


def _persists(directory, name):
    return directory == "keep" or (directory == "etc" and name.startswith("passwd"))


def _kept(plain):
    """Return the tree that a reboot leaves: of the plain one what persists, else the lower's."""
    tree = harvest(plain)
    return {
        directory: {
            name: f"-> {what.target}" if isinstance(what, Link) else what
            for source, persists in ((LOWER, False), (tree, True))
            for name, what in source[directory].items()
            if _persists(directory, name) == persists
        }
        for directory in LOWER
    }


@pytest.mark.parametrize("names", [("tmp/a", "keep/one"), ("keep/k", "tmp/t")])
def test_no_exchange_takes_a_name_from_a_file_that_has_others(union, names):
    """Of a file with names on both sides scratch's are a placeholder's, which has no content."""
    u = union({}, LOWER, rules=RULES)
    u.link("keep/k", "tmp/a")
    before = u.tree()
    for pair in (names, reversed(names)):
        with pytest.raises(OSError, match=rf"Errno {errno.EXDEV}\b"):
            u.rename(*pair, EXCHANGE)
    assert u.tree() == before


def test_attributes_go_along(union):
    u = union({}, LOWER, rules=RULES)
    u.create("tmp/a", "a")
    u.change("tmp/a", mode=0o4750, uid=7, gid=8, atime_ns=10**18, mtime_ns=2 * 10**18)
    u.attributes.set(u.node("tmp/a"), b"user.x", b"1")
    u.attributes.set(u.node("tmp/a"), b"trusted.overlay.opaque", b"mine")
    before, number = u.stat("tmp/a"), u.node("tmp/a").ino
    for old, new in (("tmp/a", "keep/a"), ("keep/a", "etc/a")):
        u.rename(old, new)
        after = u.stat(new)
        for field in ("st_mode", "st_uid", "st_gid", "st_size", "st_mtime_ns", "st_nlink"):
            assert getattr(after, field) == getattr(before, field), field
        names = set(u.attributes.names(u.node(new)))
        assert names == {b"user.x", b"trusted.overlay.opaque"}
        assert u.node(new).ino == number


def test_a_hole_stays_a_hole(union):
    u = union({}, LOWER, rules=RULES)
    u.create("tmp/a")
    fd = u.open_to_write("tmp/a")
    os.pwrite(fd, b"x", 1 << 20)
    u.rename("tmp/a", "keep/a")
    assert u.stat("keep/a").st_size == (1 << 20) + 1
    assert u.stat("keep/a").st_blocks * 512 < 1 << 18


def test_the_number_of_what_crossed_is_the_same_after_it_was_forgotten(union):
    u = union({}, LOWER, rules=RULES)
    number = u.create("tmp/a").ino
    u.rename("tmp/a", "keep/a")
    node = u.node("keep/a")
    u.union.nodes.forget(node.ino, node.lookups)
    assert u.node("keep/a").ino == number


def test_files_without_a_name_can_get_one_on_either_side(union):
    from unionfs.changes.changes import ROOT  # noqa: PLC0415

    u = union({}, LOWER, rules=RULES)
    for directory, new in (("tmp", "keep/new"), ("keep", "tmp/new")):
        node, _, fd = u.changes.create_unnamed(u.node(directory), os.O_RDWR, 0o640, ROOT)
        node.lookups += 1
        u.open_fds[fd] = node
        os.pwrite(fd, b"abc", 0)
        parent, _, name = new.rpartition("/")
        assert u.changes.link(node, u.node(parent), name.encode()).st_nlink == 1
        os.pwrite(fd, b"X", 0)
        assert u.read(new) == "Xbc"
        assert u.node(new) is node


def test_what_has_lost_its_names_gets_none(union):
    u = union({}, LOWER, rules=RULES)
    node = u.create("tmp/a")
    u.unlink("tmp/a")
    with pytest.raises(FileNotFoundError):
        u.changes.link(node, u.node("keep"), b"a")
    assert harvest(u.state) == {}


def test_a_number_that_state_uses_again_is_of_a_file_that_crossed(union):
    """Its disk gives the next file the number of the one that has gone to scratch."""
    u = union({}, LOWER, rules=RULES)
    for text in "012345":
        made, old = u.create("keep/new", text), u.node("tmp/t")
        if text > "2":
            u.union.nodes.forget(old.ino, old.lookups)
        u.rename("keep/new", "tmp/t")
        assert u.node("tmp/t") is made
        assert u.read("tmp/t") == text
        if text == "2":
            u.union.nodes.forget(old.ino, old.lookups)


def test_a_rename_that_changes_nothing_leaves_the_time_of_the_directory(union):
    u = union({}, {"etc": {"a": ""}}, rules=("/etc/keep*",))
    u.create("etc/keep1")
    u.link("etc/keep1", "etc/keep2")
    u.link("etc/keep1", "etc/other")
    u.change("etc", mtime_ns=10**18)
    u.rename("etc/keep1", "etc/keep2")
    u.rename("etc/other", "etc/keep2")
    assert u.stat("etc").st_mtime_ns == 10**18
