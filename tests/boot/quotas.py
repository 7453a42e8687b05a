"""What a machine with users' quotas says: on a plain disk, on kernel overlayfs and on a union.

It runs in the machine, as root and on its Python alone; each line that it prints is
WHERE_WHAT=ANSWER.  The kernels that other tests run on need not know quotas (CONFIG_QFMT_V2).
"""

import contextlib
import ctypes
import errno
import os
import subprocess
import sys
import time

_libc = ctypes.CDLL(None, use_errno=True)

USER = 1000
BLOCKS, INODES = 1024, 20  # that the user may have beyond what there is: KiB, and files
CHUNK = b"x" * 65536
UNIONS = ["", "passthrough=off", "noopen=on", "direct=off"]


class Dqblk(ctypes.Structure):
    """struct if_dqblk, quotactl(2)."""

    _fields_ = (
        *((name, ctypes.c_uint64) for name in ("bhard", "bsoft", "space", "ihard", "isoft")),
        *((name, ctypes.c_uint64) for name in ("inodes", "btime", "itime")),
        ("valid", ctypes.c_uint32),
    )


def _quotactl(command, device, value):
    number = command << 8  # for users
    if _libc.quotactl(number, os.fsencode(device), USER, ctypes.byref(value)) != 0:
        raise OSError(ctypes.get_errno(), "quotactl")


def limit(device, blocks=BLOCKS, inodes=INODES):
    """Let the user have so much more than now."""
    value = Dqblk()
    _quotactl(0x800007, device, value)  # Q_GETQUOTA
    value.bhard, value.ihard = value.space // 1024 + blocks, value.inodes + inodes
    value.valid = 1 | 4  # QIF_BLIMITS, QIF_ILIMITS
    _quotactl(0x800008, device, value)  # Q_SETQUOTA


def say(line):
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def run(*words):
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()


def failure(call, *args):
    try:
        call(*args)
    except OSError as exc:
        return errno.errorcode[exc.errno]
    return ""


def by_user(call, *args):
    """Return what the call returns, by the user, in a process of its own."""
    reading, writing = os.pipe()
    if not os.fork():
        os.setgroups([])
        os.setresgid(USER, USER, USER)
        os.setresuid(USER, USER, USER)
        os.write(writing, str(call(*args)).encode())
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        said = pipe.read().decode()
    os.wait()
    return said


# What the user does


def fill(path, flags=0):
    """Write until that is refused."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o644)
    error = ""
    while not error and os.fstat(fd).st_size < 4 << 20:
        error = failure(os.pwrite, fd, CHUNK, os.fstat(fd).st_size)
    return f"{os.fstat(fd).st_size},{error}"


def allocate(path):
    return failure(os.posix_fallocate, os.open(path, os.O_RDWR | os.O_CREAT, 0o644), 0, 2 << 20)


def copy(top):
    target = os.open(f"{top}/copy", os.O_WRONLY | os.O_CREAT, 0o644)
    source, error = os.open(f"{top}/roots", os.O_RDONLY), ""
    while not error and os.fstat(target).st_size < os.fstat(source).st_size:
        error = failure(os.copy_file_range, source, target, 2_000_000)
    return error


def make(top, prefix="made"):
    """Make files until that is refused."""
    for number in range(2 * INODES):
        error = failure(os.mknod, f"{top}/{prefix}{number}")
        if error:
            return f"{number},{error}"
    return "all"


def append(path):
    """Add to a file, which has to be copied up."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(fd, b"more")
    finally:
        os.close(fd)


CALLS = {
    "write": lambda top: fill(f"{top}/new"),
    "synchronous": lambda top: fill(f"{top}/slow", os.O_SYNC),
    "large": lambda top: fill(f"{top}/large"),
    "allocate": lambda top: allocate(f"{top}/room"),
    "copy": copy,
    "make": make,
}

# Where

LOWER = "/run/lower"  # where nobody has a quota


def plant(top):
    os.makedirs(top)
    os.chmod(top, 0o777)
    for name, size in (("own", 1), ("large", 300_000), ("low", 2_000_000), ("roots", 2_000_000)):
        with open(f"{top}/{name}", "wb") as file:
            file.write(b"o" * size)
        if name != "roots":
            os.chown(f"{top}/{name}", USER, USER)
    for number in range(5):
        with open(f"{top}/free{number}", "w") as file:
            file.write("root's")


@contextlib.contextmanager
def plain(base, _options):
    plant(f"{base}/plain")
    yield f"{base}/plain"


def _layers(base):
    for name in ("upper", "work", "mnt"):
        os.makedirs(f"{base}/{name}")
    os.chmod(f"{base}/upper", 0o777)
    return f"lowerdir={LOWER},upperdir={base}/upper,workdir={base}/work"


@contextlib.contextmanager
def overlay(base, _options):
    run("mount", "-t", "overlay", "overlay", "-o", _layers(base), f"{base}/mnt")
    yield f"{base}/mnt"
    run("umount", "-l", f"{base}/mnt")


@contextlib.contextmanager
def union(base, options):
    unionfs = [sys.executable, "-m", "unionfs.cli"]
    run(*unionfs, "mount", "-o", f"{_layers(base)},{options}", f"{base}/mnt")
    yield f"{base}/mnt"
    run(*unionfs, "umount", f"{base}/mnt")


def everywhere():
    yield "plain", plain, ""
    yield "overlay", overlay, ""
    for options in UNIONS:
        yield f"union_{options.partition('=')[0] or 'plainly'}", union, options


def ask(disk, device):
    plant(LOWER)
    for where, place, options in everywhere():
        with place(f"{disk}/{where}", options) as top:
            for word, call in CALLS.items():
                limit(device)
                say(f"{where}_{word}={by_user(call, top)}")
                limit(device, 1 << 20, 1000)
            limit(device)
            append(f"{top}/roots")  # with the content: else it would take no room yet
            given = failure(os.chown, f"{top}/roots", USER, -1)
            say(f"{where}_root={failure(append, f'{top}/low')},{given}")
            say(f"{where}_others={others(top, device)}")
        subprocess.run(["rm", "-r", f"{disk}/{where}"], check=True)


def others(top, device):
    """Fill a quota, and return what others meet then; the union makes copies and whiteouts."""
    limit(device)
    by_user(make, top, "filling")
    met = [
        by_user(make, top, "more"),
        failure(os.chmod, f"{top}/free0", 0o600),
        failure(append, f"{top}/free1"),
        failure(os.unlink, f"{top}/free2"),
        failure(os.rename, f"{top}/free3", f"{top}/moved"),
        failure(os.mkdir, f"{top}/free2"),
    ]
    limit(device, 1 << 20, 1000)
    return ",".join(met)


def main():
    with open("/run/quota.img", "wb") as image:
        image.truncate(128 << 20)
    run("mkfs.ext4", "-q", "-O", "quota", "-m", "0", "/run/quota.img")
    os.mkdir("/run/disk")
    run("mount", "-o", "loop,usrquota", "/run/quota.img", "/run/disk")
    start = time.monotonic()
    ask("/run/disk", run("findmnt", "-no", "SOURCE", "/run/disk"))
    say(f"seconds={time.monotonic() - start:.0f}")


if __name__ == "__main__":
    main()
