"""Set-uid, set-gid and capabilities: kept and taken away as on ext4, whoever changes a file in
whatever way.  The same calls are made on a plain directory, and the answers compared.
"""

import contextlib
import ctypes
import itertools
import mmap
import os
import stat

import pytest

from tests.mounted import disks
from tests.mounted.mount import Mount
from tests.mounted.test_attributes import ACCESS, CAP_NET_RAW, CAPABILITY, DEFAULT
from tests.mounted.test_work import run
from tests.mounted.witness import apart, failure
from unionfs.fuse.session.privileges import CAP_FSETID, Without
from unionfs.host.syscalls import fallocate

_libc = ctypes.CDLL(None, use_errno=True)

OWNER, GROUP, OTHER = 1000, 2000, 3000
BLOCK = 1024  # of the disk, bytes
CLONE_NEWUSER = 0x10000000
TEXT = b"text" * BLOCK


# Who


def _become(uid, gid, groups):
    os.setgroups(groups)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def _keep_fsetid():
    """Become another user with one capability alone."""
    _libc.prctl(8, 1, 0, 0, 0)  # PR_SET_KEEPCAPS
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    one = 1 << CAP_FSETID
    assert _libc.capset(header, (ctypes.c_uint32 * 6)(one, one, 0, 0, 0, 0)) == 0


def _in_user_namespace(users, groups):
    """Become a stranger who has all capabilities over these ids, and over the stranger's own."""
    ours, theirs = os.pipe()
    parent = os.getpid()
    helper = os.fork()
    if not helper:
        os.read(ours, 1)
        for kind, numbers in (("uid", users), ("gid", groups)):
            lines = [f"{at} {number} 1" for at, number in enumerate([65534, *numbers])]
            with open(f"/proc/{parent}/{kind}_map", "w", encoding="ascii") as file:
                file.write("\n".join(lines))
        os._exit(0)
    assert _libc.unshare(CLONE_NEWUSER) == 0
    os.write(theirs, b"x")
    assert os.waitpid(helper, 0)[1] == 0
    _become(0, 0, [])


PEOPLE = {
    "root": lambda: None,
    "root without CAP_FSETID": Without(CAP_FSETID).__enter__,
    "owner": lambda: _become(OWNER, OWNER, [GROUP]),
    "owner outside the group": lambda: _become(OWNER, OWNER, [OTHER]),
    "member of the group": lambda: _become(1001, GROUP, []),
    "member by another group": lambda: _become(1001, 1001, [OTHER, GROUP]),
    "stranger": lambda: _become(65534, 65534, [OTHER]),
    "stranger with CAP_FSETID": _keep_fsetid,
    "stranger in a user namespace": lambda: _in_user_namespace([], []),
    "owner of a user namespace": lambda: _in_user_namespace([OWNER], [GROUP]),
}

# What


def opened(flags, call):
    def action(path):
        fd = os.open(path, flags)
        try:
            call(fd)
        finally:
            os.close(fd)

    return action


def _allocate(mode, offset=0, length=BLOCK):
    return opened(os.O_RDWR, lambda fd: fallocate(fd, mode, offset, length))


def _map(fd):
    with mmap.mmap(fd, len(TEXT)) as memory:
        memory[0] = 0
        memory.flush()


def _copy(call):
    def copy(fd):
        source = os.open("/proc/self/exe", os.O_RDONLY)
        try:
            call(source, fd)
        finally:
            os.close(source)

    return opened(os.O_WRONLY, copy)


def _copy_range(path):
    source = os.open(path, os.O_RDONLY)
    target = os.open(path, os.O_WRONLY)
    try:
        os.copy_file_range(source, target, BLOCK, 0, 2 * BLOCK)
    finally:
        os.close(source)
        os.close(target)


def _splice(fd):
    reading, writing = os.pipe()
    os.write(writing, b"spliced")
    os.splice(reading, fd, 7)
    os.close(reading)
    os.close(writing)


def _acl(*entries):
    """Return an ACL as an attribute: acl(5), linux/posix_acl_xattr.h."""
    value = (2).to_bytes(4, "little")
    for tag, bits, number in entries:
        value += tag.to_bytes(2, "little") + bits.to_bytes(2, "little")
        value += number.to_bytes(4, "little")
    return value


_NOBODY = 0xFFFFFFFF
MINIMAL = _acl((1, 7, _NOBODY), (4, 6, _NOBODY), (0x20, 7, _NOBODY))
EXTENDED = _acl((1, 7, _NOBODY), (2, 7, 9), (4, 7, _NOBODY), (0x10, 7, _NOBODY), (0x20, 7, _NOBODY))


ACTIONS = {
    "write": opened(os.O_WRONLY, lambda fd: os.write(fd, b"x")),
    "write nothing": opened(os.O_WRONLY, lambda fd: os.write(fd, b"")),
    "append": opened(os.O_WRONLY | os.O_APPEND, lambda fd: os.write(fd, b"x")),
    "write much": opened(os.O_RDWR, lambda fd: os.pwrite(fd, TEXT * 9, 3)),
    "write synchronously": opened(os.O_RDWR | os.O_SYNC, lambda fd: os.write(fd, b"x")),
    "write twice": opened(os.O_RDWR, lambda fd: (os.write(fd, b"x"), os.write(fd, b"x"))),
    "splice": opened(os.O_WRONLY, _splice),
    "sendfile": _copy(lambda source, fd: os.sendfile(fd, source, 0, 99)),
    "copy from elsewhere": _copy(lambda source, fd: os.copy_file_range(source, fd, 99, 0, 0)),
    "copy within": _copy_range,
    "map": opened(os.O_RDWR, _map),
    "open": opened(os.O_RDWR, lambda _: None),
    "open and truncate": opened(os.O_WRONLY | os.O_TRUNC, lambda _: None),
    "open, perhaps create, and truncate": opened(
        os.O_RDWR | os.O_TRUNC | os.O_CREAT, lambda _: None
    ),
    "truncate": lambda path: os.truncate(path, 1),
    "truncate to the same size": lambda path: os.truncate(path, len(TEXT)),
    "extend": lambda path: os.truncate(path, 1 << 20),
    "ftruncate": opened(os.O_RDWR, lambda fd: os.ftruncate(fd, 1)),
    "allocate": _allocate(0, 0, 1 << 16),
    "allocate beyond": _allocate(1, 1 << 16),
    "punch a hole": _allocate(1 | 2),
    "zero": _allocate(16),
    "chown to nobody": lambda path: os.chown(path, -1, -1),
    "chown to the owner": lambda path: os.chown(path, OWNER, -1),
    "chown to another": lambda path: os.chown(path, 77, -1),
    "chgrp to the same": lambda path: os.chown(path, -1, GROUP),
    "chgrp to another": lambda path: os.chown(path, -1, OTHER),
    "chmod 6755": lambda path: os.chmod(path, 0o6755),
    "chmod 2745": lambda path: os.chmod(path, 0o2745),
    "chmod 4711": lambda path: os.chmod(path, 0o4711),
    "chmod 644": lambda path: os.chmod(path, 0o644),
    "set a minimal ACL": lambda path: os.setxattr(path, ACCESS, MINIMAL),
    "set an ACL": lambda path: os.setxattr(path, ACCESS, EXTENDED),
    "set and remove an ACL": lambda path: (
        os.setxattr(path, ACCESS, EXTENDED),
        os.removexattr(path, ACCESS),
    ),
    "set a default ACL": lambda path: os.setxattr(path, DEFAULT, MINIMAL),
    "set an attribute": lambda path: os.setxattr(path, "user.a", b"1"),
    "set a capability": lambda path: os.setxattr(path, CAPABILITY, CAP_NET_RAW),
    "remove a capability": lambda path: os.removexattr(path, CAPABILITY),
    "touch": os.utime,
    "link": lambda path: os.link(path, path + ".link"),
    "rename": lambda path: (os.rename(path, path + ".new"), os.rename(path + ".new", path)),
}

BITS = [0o6777, 0o6767, 0o4767, 0o2777, 0o2767, 0o767]
CASES = list(itertools.product(BITS, (False, True), ACTIONS))
SET_GID_DIRECTORIES = [0o2777, 0o2767, 0o6777]

MAKERS = {
    "create": lambda path, bits: os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, bits)),
    "mkdir": os.mkdir,
    "mkfifo": os.mkfifo,
    "mknod": lambda path, bits: os.mknod(path, stat.S_IFREG | bits),
    "symlink": lambda path, _bits: os.symlink("x", path),
}
MADE_WITH = [0o777, 0o2755, 0o2745, 0o6777, 0o4711, 0o1777]
IN = ["open", "set-gid", "default ACL"]


def _name(*words):
    return "-".join(str(word).replace("/", "_") for word in words)


def _plant(top):
    """Make a file for each person and case, and directories to make things in."""
    top.mkdir(exist_ok=True)
    top.chmod(0o777)
    for who in PEOPLE:
        (top / who).mkdir()
        (top / who).chmod(0o777)
        for bits, capable, action in CASES:
            path = top / who / _name(oct(bits), capable, action)
            path.write_bytes(TEXT)
            os.chown(path, OWNER, GROUP)
            path.chmod(bits)
            if capable:
                os.setxattr(path, CAPABILITY, CAP_NET_RAW)
        for bits in SET_GID_DIRECTORIES:
            for action in ACTIONS:
                path = top / who / _name("d", oct(bits), action)
                path.mkdir()
                os.chown(path, OWNER, GROUP)
                path.chmod(bits)
        for kind in IN:
            _plant_room(top / who / kind, kind)


def _plant_room(path, kind):
    path.mkdir()
    os.chown(path, 0, GROUP)
    path.chmod(0o777 if kind == "open" else 0o2777)
    if kind == "default ACL":
        run("setfacl", "-m", "d:u:9:rwx,d:g::rwx,d:o::rwx", path)
    for maker, bits in itertools.product(MAKERS, MADE_WITH):
        (path / _name(maker, oct(bits), "over")).write_text("to be deleted")


def _answers(top, who):
    """Return what *who* is told and what is left, by case."""
    os.umask(0o002)
    for kind in IN:  # as root
        for maker, bits in itertools.product(MAKERS, MADE_WITH):
            os.unlink(top / who / kind / _name(maker, oct(bits), "over"))
    PEOPLE[who]()
    told = {}
    directories = itertools.product(SET_GID_DIRECTORIES, ACTIONS)
    for case in [*CASES, *((bits, "d", action) for bits, action in directories)]:
        bits, capable, action = case
        words = ("d", oct(bits), action) if capable == "d" else (oct(bits), capable, action)
        path = str(top / who / _name(*words))
        told[case] = (failure(ACTIONS[action], path), *_state(path))
    for case in itertools.product(IN, MAKERS, MADE_WITH, ("", "over")):
        kind, maker, bits, over = case
        path = str(top / who / kind / _name(maker, oct(bits), over))
        told[case] = (failure(MAKERS[maker], path, bits), *_state(path))
    return told


def _state(path):
    st = os.lstat(path)
    names = os.listxattr(path, follow_symlinks=False) if stat.S_ISREG(st.st_mode) else ()
    kept = CAPABILITY in names
    return stat.filemode(st.st_mode), st.st_uid, st.st_gid, st.st_size, "capable" * kept


def _states(top):
    """Return what is left of all."""
    paths = [os.path.join(at, name) for at, _, names in os.walk(top) for name in names]
    return {path: _state(path) for path in paths}


@pytest.fixture(scope="module")
def plain(aside):
    """What ext4 answers."""
    with contextlib.ExitStack() as stack:
        disk = stack.enter_context(disks.writable("ext4", aside("privileges"), 128))
        _plant(disk / "plain")
        yield {who: apart(_answers, disk / "plain", who) for who in PEOPLE}


VARIANTS = {
    "upper": ("upper", ()),
    "lower": ("lower", ()),
    "passthrough=off": ("upper", ("passthrough=off",)),
    "noopen=on": ("lower", ("noopen=on",)),
    "direct=off": ("lower", ("direct=off",)),
}


def _is_limit(variant, who, case, answer):
    """Tell whether docs/limits.md says that this is another answer."""
    action = case[2]
    if action == "map":  # what is written through a map takes the capability away
        return "capable" in answer
    if variant.startswith("noopen=on") and action == "chown to nobody":
        return not who.startswith("owner")
    fallocate = ("allocate", "allocate beyond", "punch a hole", "zero")
    return variant == "direct=off" and action in fallocate


@pytest.mark.parametrize("variant", VARIANTS)
def test_privileges_fall_and_stay_as_on_ext4(base, plain, variant):
    layer, options = VARIANTS[variant]
    with disks.writable("ext4", base, 192) as disk:
        for name in ("lower", "upper", "work"):
            (disk / name).mkdir()
        _plant(disk / layer)
        mount = Mount(
            base, lowers=[disk / "lower"], upper=disk / "upper", work=disk / "work", options=options
        )
        try:
            mount.start()
            told = {who: apart(_answers, mount.path, who) for who in PEOPLE}
            differences = {
                (who, *case): f"{told[who][case]}, not {plain[who][case]}"
                for who in PEOPLE
                for case in plain[who]
                if told[who][case] != plain[who][case]
                and not _is_limit(variant, who, case, plain[who][case])
            }
            assert differences == {}, "\n".join(map(str, differences.items()))
            shown = _states(mount.path)
            mount.remount()
            assert _states(mount.path) == shown
            mount.stop()
        finally:
            mount.kill()


# Whom set-uid, and set-gid with or without group execute, is left to when they write.
KEEP = {"root": 0o6000, "stranger with CAP_FSETID": 0o6000}


@pytest.mark.tree({"f": "text" * 100_000}, prepare=lambda path: (path / "f").chmod(0o755))
@pytest.mark.parametrize(("bits", "taken"), [(0o6755, 0o6000), (0o2745, 0o2000), (0o6745, 0o6000)])
@pytest.mark.parametrize("who", PEOPLE)
def test_bits_set_after_an_open_fall_for_whom_they_would(tree, variant, who, bits, taken):
    """So it is where the kernel writes by itself, by a descriptor that passes through."""
    if who == "root without CAP_FSETID":
        taken &= ~0o2000 if bits & 0o010 == 0 else 0o6000  # the group of the file is root's
    if variant == "handshake=off" and bits == 0o6745:
        taken = 0o4000  # a limit: the kernel leaves set-gid to nobody then

    def write(fd, at):
        PEOPLE[who]()
        os.pwrite(fd, b"x", at)

    with open(tree / "f", "r+b", buffering=0) as file:
        for at in (0, 1 << 17):
            os.fchmod(file.fileno(), bits)
            apart(write, file.fileno(), at)
            kept = KEEP.get(who, ~taken)
            assert stat.S_IMODE(os.stat(tree / "f").st_mode) == bits & (0o777 | kept)
