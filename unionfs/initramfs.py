"""The initramfs of each kernel: that it holds our script, and that the kernel has FUSE.

The scripts themselves come with the program, in `lib/unionfs`; they are put into
the places of initramfs-tools(7) or dracut.modules(7), where each later kernel's
initramfs finds them as well.  An `init=` wrapper needs none of that.
"""

import glob
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from unionfs.bootsteps import Remove, Run, Step, Write
from unionfs.options import Refused

# Where installations put the scripts, below the prefix.
_LIB = "lib/unionfs"
_PREFIXES = (sys.prefix, "/usr/local", "/usr")


class Kernel(NamedTuple):
    """One installed kernel."""

    version: str
    trouble: str  # why it cannot boot a union; empty: it can


class Initramfs(Protocol):
    """What makes initramfs images."""

    name: str

    def is_there(self) -> bool:
        """Tell whether the machine has it."""

    def enable(self) -> list[Step]:
        """Return the steps that put our script into all images."""

    def disable(self) -> list[Step]:
        """Return the steps that take it out."""

    def holds_script(self, version: str) -> bool:
        """Tell whether the image of a kernel holds our script."""


def library(root: str = "/") -> str:
    """Return the directory of the boot scripts, as seen with *root* as the root."""
    for prefix in _PREFIXES:
        if os.path.exists(os.path.join(root, prefix.lstrip("/"), _LIB, "init")):
            return f"{prefix}/{_LIB}"
    raise Refused(
        "the boot scripts are not installed: install the Debian package, or 'make install'"
    )


def kernels(root: str = "/") -> list[str]:
    """Return the versions of the installed kernels, oldest first as far as names tell."""
    places = glob.glob(os.path.join(glob.escape(root), "lib/modules/*/modules.builtin"))
    return sorted(os.path.basename(os.path.dirname(place)) for place in places)


def has_fuse(version: str, root: str = "/") -> bool:
    """Tell whether a kernel has FUSE, built in or as a module."""
    place = os.path.join(root, "lib/modules", version)
    if glob.glob(os.path.join(glob.escape(place), "kernel/fs/fuse/fuse.ko*")):
        return True
    with open(os.path.join(place, "modules.builtin"), encoding="utf-8") as lines:
        return any(line.strip().endswith("/fuse.ko") for line in lines)


class _Tree:
    """Scripts of ours that are copied into a place of somebody else's."""

    def __init__(self, root: str, part: str, place: str) -> None:
        self._root = root
        self._part = part  # below our library
        self._place = os.path.join(root, place)

    def _files(self) -> Iterator[tuple[str, str]]:
        top = os.path.join(self._root, library(self._root).lstrip("/"), self._part)
        for directory, _, names in os.walk(top):
            for name in sorted(names):
                path = os.path.join(directory, name)
                yield path, os.path.join(self._place, os.path.relpath(path, top))

    def writes(self) -> Iterator[Step]:
        for source, target in self._files():
            with open(source, "rb") as file:
                yield Write(target, file.read(), 0o755)

    def removals(self) -> Iterator[Step]:
        for _, target in self._files():
            yield Remove(target, own="unionfs" in os.path.dirname(target))


def _listing(words: list[str]) -> str:
    return subprocess.run(words, check=False, capture_output=True, text=True).stdout


class InitramfsTools:
    """initramfs-tools, Debian's own."""

    name = "initramfs-tools"

    def __init__(self, root: str = "/") -> None:
        self._root = root
        self._tree = _Tree(root, "initramfs-tools", "etc/initramfs-tools")

    def is_there(self) -> bool:
        """Tell whether the machine has it."""
        return os.path.exists(os.path.join(self._root, "usr/sbin/update-initramfs"))

    def enable(self) -> list[Step]:
        """Return the steps that put our script into all images."""
        return [*self._tree.writes(), self._update()]

    def disable(self) -> list[Step]:
        """Return the steps that take it out."""
        return [*self._tree.removals(), self._update()]

    def _update(self) -> Step:
        return Run(["update-initramfs", "-u", "-k", "all"], self._root)

    def holds_script(self, version: str) -> bool:
        """Tell whether the image of a kernel holds our script."""
        image = os.path.join(self._root, "boot", f"initrd.img-{version}")
        return "scripts/init-bottom/unionfs\n" in _listing(["lsinitramfs", image])


class Dracut:
    """dracut."""

    name = "dracut"

    def __init__(self, root: str = "/") -> None:
        self._root = root
        self._tree = _Tree(root, "dracut/90unionfs", "usr/lib/dracut/modules.d/90unionfs")

    def is_there(self) -> bool:
        """Tell whether the machine has it."""
        return os.path.exists(os.path.join(self._root, "usr/bin/dracut"))

    def enable(self) -> list[Step]:
        """Return the steps that put our script into all images."""
        return [*self._tree.writes(), self._update()]

    def disable(self) -> list[Step]:
        """Return the steps that take it out."""
        return [*self._tree.removals(), self._update()]

    def _update(self) -> Step:
        return Run(["dracut", "--regenerate-all", "--force"], self._root)

    def holds_script(self, version: str) -> bool:
        """Tell whether the image of a kernel holds our module."""
        for name in (f"initrd.img-{version}", f"initramfs-{version}.img"):
            image = os.path.join(self._root, "boot", name)
            if os.path.exists(image):
                return "unionfs\n" in _listing(["lsinitrd", "-m", image])
        return False


def maker(root: str = "/") -> Initramfs | None:
    """Return what makes this machine's images; None: nothing does."""
    every: tuple[Initramfs, ...] = (InitramfsTools(root), Dracut(root))
    return next((made for made in every if made.is_there()), None)


def examined(root: str, image: Initramfs | None) -> list[Kernel]:
    """Return the kernels, each with what keeps it from booting a union; *image* None: no matter."""
    return [Kernel(version, _trouble(version, root, image)) for version in kernels(root)]


def _trouble(version: str, root: str, image: Initramfs | None) -> str:
    if not has_fuse(version, root):
        return "it has no FUSE (module fuse)"
    if image is not None and not image.holds_script(version):
        return f"its initramfs does not hold our script: run 'update-initramfs -u -k {version}'"
    return ""
