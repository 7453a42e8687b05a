"""File systems to lay layers on, in files over loop devices; nothing stays behind."""

import contextlib
import os
import shutil
import subprocess

MIB = 1 << 20

# Kind -> size in MiB (xfs refuses less than 300, btrfs less than 109) and how it is made.
WRITABLE = {
    "ext4": (64, ["mkfs.ext4", "-q"]),
    "ext4-untyped": (64, ["mkfs.ext4", "-q", "-O", "^filetype"]),  # readdir(3), DT_UNKNOWN
    "ext4-at-once": (64, ["mkfs.ext4", "-q"]),
    "xfs": (300, ["mkfs.xfs", "-q"]),
    "btrfs": (128, ["mkfs.btrfs", "-q"]),
}
OPTIONS = {"ext4-at-once": "loop,nodelalloc"}
PACKED = {
    "squashfs": lambda tree, image: ["mksquashfs", tree, image, "-quiet", "-no-progress"],
    "erofs": lambda tree, image: ["mkfs.erofs", "--quiet", image, tree],
}


def run(*words):
    done = subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return done.stdout.strip()


@contextlib.contextmanager
def mounted(point, *words):
    """Run mount(8) with *words*, and unmount *point* at the end."""
    point.mkdir(exist_ok=True)
    run("mount", *words, point)
    try:
        yield point
    finally:
        run("umount", "-l", point)


@contextlib.contextmanager
def writable(kind, base, mib=None):
    """Yield the root of an empty file system of *kind*."""
    point = base / kind
    if kind == "tmpfs":
        with mounted(point, "-t", "tmpfs", "-o", f"size={mib or 64}m", "tmpfs") as path:
            yield path
        return
    size, command = WRITABLE[kind]
    image = base / f"{kind}.img"
    with image.open("wb") as file:
        file.truncate((mib or size) * MIB)
    run(*command, image)
    with mounted(point, "-o", OPTIONS.get(kind, "loop"), image) as path:
        if kind.startswith("ext4"):
            (path / "lost+found").rmdir()
        yield path
    image.unlink()


@contextlib.contextmanager
def packed(kind, base, tree):
    """Yield a read-only file system of *kind* that holds what the directory *tree* does."""
    image = base / f"{kind}.img"
    run(*PACKED[kind](tree, image))
    with mounted(base / kind, "-t", kind, "-o", "loop,ro", image) as path:
        yield path
    image.unlink()


@contextlib.contextmanager
def overlay(base, tree):
    """Yield a kernel overlay mount, itself changed, over the directory *tree*."""
    for name in ("over", "overwork"):
        (base / name).mkdir()
    options = f"lowerdir={tree},upperdir={base}/over,workdir={base}/overwork"
    with mounted(base / "overlay", "-t", "overlay", "-o", options, "overlay") as path:
        yield path
    shutil.rmtree(base / "overwork")


@contextlib.contextmanager
def lower(kind, base, plant):
    """Yield a directory on a file system of *kind* that `plant(directory)` has filled."""
    with contextlib.ExitStack() as stack:
        if kind in PACKED or kind == "overlay":
            tree = base / "tree"
            tree.mkdir()
            plant(tree)
            if kind == "overlay":
                yield stack.enter_context(overlay(base, tree))
            else:
                yield stack.enter_context(packed(kind, base, tree))
            return
        root = stack.enter_context(writable(kind, base))
        plant(root)
        yield root


def reflinks(path):
    """Tell whether the file system at *path* shares data between files."""
    probe = path / "probe"
    probe.write_bytes(os.urandom(4096))
    words = ["cp", "--reflink=always", probe, f"{probe}2"]
    good = subprocess.run(words, capture_output=True, check=False).returncode == 0
    probe.unlink()
    (path / "probe2").unlink(missing_ok=True)
    return good
