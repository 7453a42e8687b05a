"""The initramfs of each kernel: that it holds our script, and that the kernel has FUSE.

The scripts come with the Debian package, in the places of initramfs-tools(7) and
dracut.modules(7), so that each later kernel's initramfs gets them as well; without
a word on the kernel's command line they do nothing.  The `init=` wrapper needs no
initramfs.
"""

import glob
import os
import subprocess
from typing import NamedTuple, Protocol

from unionfs.commands.bootsteps import Run, Step
from unionfs.mounting.options import Refused

# Our directory of boot scripts, and what an initramfs needs of it.
LIBRARY = "/usr/lib/unionfs"


class Kernel(NamedTuple):
    """One installed kernel."""

    version: str
    trouble: str  # why it cannot boot a union; empty: it can


class Initramfs(Protocol):
    """A program that makes initramfs images."""

    name: str

    def is_there(self) -> bool:
        """Tell whether the machine has it."""

    def update(self) -> Step:
        """Return the step that puts our script into all images."""

    def holds_script(self, version: str) -> bool:
        """Tell whether the image of a kernel holds our script."""


def require_scripts(root: str = "/") -> None:
    """Refuse where the boot scripts are not installed."""
    if not os.path.exists(f"{root.rstrip('/')}{LIBRARY}/stage"):
        raise Refused(
            "the boot scripts are not installed: install the Debian package, or 'make install-boot'"
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


def _listing(words: list[str]) -> str:
    return subprocess.run(words, check=False, capture_output=True, text=True).stdout


class InitramfsTools:
    """initramfs-tools, Debian's own."""

    name = "initramfs-tools"

    def __init__(self, root: str = "/") -> None:
        self._root = root

    def is_there(self) -> bool:
        """Tell whether the machine has it."""
        return os.path.exists(os.path.join(self._root, "usr/sbin/update-initramfs"))

    def update(self) -> Step:
        """Return the step that puts our script into all images."""
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

    def is_there(self) -> bool:
        """Tell whether the machine has it."""
        return os.path.exists(os.path.join(self._root, "usr/bin/dracut"))

    def update(self) -> Step:
        """Return the step that puts our script into all images."""
        return Run(["dracut", "--regenerate-all", "--force"], self._root)

    def holds_script(self, version: str) -> bool:
        """Tell whether the image of a kernel holds our module."""
        for name in (f"initrd.img-{version}", f"initramfs-{version}.img"):
            image = os.path.join(self._root, "boot", name)
            if os.path.exists(image):
                return "unionfs\n" in _listing(["lsinitrd", "-m", image])
        return False


def maker(root: str = "/") -> Initramfs | None:
    """Return the program that makes this machine's images; None: there is none."""
    every: tuple[Initramfs, ...] = (InitramfsTools(root), Dracut(root))
    return next((made for made in every if made.is_there()), None)


def examined(root: str, image: Initramfs | None) -> list[Kernel]:
    """Return the kernels, each with its obstacle to booting a union; *image* None: any will do."""
    return [Kernel(version, _trouble(version, root, image)) for version in kernels(root)]


def _trouble(version: str, root: str, image: Initramfs | None) -> str:
    if not has_fuse(version, root):
        return "it has no FUSE (module fuse)"
    if image is not None and not image.holds_script(version):
        return f"its initramfs does not hold our script: run 'update-initramfs -u -k {version}'"
    return ""
