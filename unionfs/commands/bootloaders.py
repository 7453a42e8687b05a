"""Boot loaders, and how each is configured: GRUB, systemd-boot, the Raspberry Pi's firmware.

Each gets the words for the kernel's command line that make the root a union, in an
entry beside the normal one if it knows entries.  All paths are below `root`, which is /
except for images and tests.
"""

import glob
import os
import re
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from unionfs.commands.bootsteps import Remove, Run, Step, Write
from unionfs.commands.initramfs import LIBRARY

TITLE = "read-only (unionfs)"


class Wanted(NamedTuple):
    """How the machine is to boot."""

    words: str  # of the kernel's command line: unionfs=tmpfs
    default: bool  # also when nobody chooses an entry
    once: bool  # only the next time


class BootLoader(Protocol):
    """What is known of one kind of boot loader."""

    name: str

    def is_there(self) -> bool:
        """Tell whether the machine has it."""

    def enabled(self) -> str | None:
        """Return the words for the kernel in our entry, or None without an entry."""

    def enable(self, wanted: Wanted) -> list[Step]:
        """Return the steps that make the entry."""

    def disable(self) -> list[Step]:
        """Return the steps that take it away."""


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        return ""


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


# Entries as 10_linux makes them, newest kernel first; the first one is called `unionfs`.
_GRUB_SCRIPT = """\
#!/bin/sh
# Made by 'unionfs boot enable'; 'unionfs boot disable' removes it.
set -e
[ -x "${{GRUB_D:=$(dirname "$0")}}/10_linux" ] || exit 0
GRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX {words}" GRUB_DISABLE_SUBMENU=true \\
    GRUB_DISABLE_RECOVERY=true "$GRUB_D/10_linux" |
    sed -e "s/menuentry '\\([^']*\\)'/menuentry '\\1, {title}'/" \\
        -e "s/menuentry_id_option 'gnulinux-/menuentry_id_option 'unionfs-/" |
    awk '!done && sub(/menuentry_id_option .[^ ]*/, "menuentry_id_option '"'unionfs'"'") {{
        done = 1 }} {{ print }}'
"""

_GRUB_DEFAULTS = """\
# Made by 'unionfs boot enable'; 'unionfs boot disable' removes it.
GRUB_DEFAULT={default}
"""


class Grub:
    """GRUB, as Debian has it: a script that makes entries, and a file that names the default."""

    name = "GRUB"

    def __init__(self, root: str = "/") -> None:
        self._root = root
        self._script = os.path.join(root, "etc/grub.d/11_unionfs")
        self._defaults = os.path.join(root, "etc/default/grub.d/unionfs.cfg")

    def is_there(self) -> bool:
        """Tell whether the machine has it: the packages, and what grub-install(8) makes."""
        needed = ("etc/grub.d/10_linux", "boot/grub")
        return all(os.path.exists(os.path.join(self._root, path)) for path in needed)

    def enabled(self) -> str | None:
        """Return the words that our entry gives the kernel."""
        found = re.search(r'GRUB_CMDLINE_LINUX="\$GRUB_CMDLINE_LINUX (.*?)"', _text(self._script))
        return found[1] if found else None

    def enable(self, wanted: Wanted) -> list[Step]:
        """Return the steps that make the entry."""
        script = _GRUB_SCRIPT.format(words=wanted.words, title=TITLE)
        steps: list[Step] = [Write(self._script, _bytes(script), 0o755)]
        if wanted.once:
            defaults = _GRUB_DEFAULTS.format(default="saved")
            steps.append(Write(self._defaults, _bytes(defaults)))
        elif wanted.default:
            steps.append(Write(self._defaults, _bytes(_GRUB_DEFAULTS.format(default="unionfs"))))
        else:
            steps.append(Remove(self._defaults))
        steps.append(Run(["update-grub"], self._root))
        if wanted.once:
            steps.append(Run(["grub-reboot", "unionfs"], self._root))
        return steps

    def disable(self) -> list[Step]:
        """Return the steps that take it away."""
        return [Remove(self._script), Remove(self._defaults), Run(["update-grub"], self._root)]


# A plugin of kernel-install(8): entries of kernels that come later get a twin, too.
_KERNEL_INSTALL = """\
#!/bin/sh
# Made by 'unionfs boot enable'; 'unionfs boot disable' removes it.
[ "$1" = add ] || [ "$1" = remove ] || exit 0
exec pyunionfs boot update-entries
"""


class SystemdBoot:
    """systemd-boot: one file for each entry (Boot Loader Specification, type #1)."""

    name = "systemd-boot"

    def __init__(self, root: str = "/") -> None:
        self._root = root
        self._plugin = os.path.join(root, "etc/kernel/install.d/95-unionfs.install")

    def _places(self) -> Iterator[str]:
        for place in ("efi", "boot/efi", "boot"):
            entries = os.path.join(self._root, place, "loader/entries")
            if os.path.isdir(entries):
                yield entries

    def is_there(self) -> bool:
        """Tell whether the machine has it."""
        return any(self._places())

    def _originals(self) -> Iterator[str]:
        for place in self._places():
            for path in sorted(glob.glob(glob.escape(place) + "/*.conf")):
                if "linux" in _fields(_text(path)) and not _is_twin(path):
                    yield path

    def _twins(self) -> Iterator[str]:
        for place in self._places():
            yield from filter(_is_twin, sorted(glob.glob(glob.escape(place) + "/*.conf")))

    def enabled(self) -> str | None:
        """Return the words that our entries give the kernel."""
        for twin in self._twins():
            return _text(twin).partition("# words: ")[2].partition("\n")[0]
        return None

    def enable(self, wanted: Wanted) -> list[Step]:
        """Return the steps that make an entry beside each existing one."""
        steps: list[Step] = [
            Write(_twin(path), _bytes(_with_words(_text(path), wanted.words)))
            for path in self._originals()
        ]
        steps.append(Write(self._plugin, _bytes(_KERNEL_INSTALL), 0o755))
        if wanted.default or wanted.once:
            verb = "set-oneshot" if wanted.once else "set-default"
            newest = os.path.basename(_twin(list(self._originals())[-1]))
            steps.append(Run(["bootctl", verb, newest], self._root))
        return steps

    def update(self) -> list[Step]:
        """Return the steps that give new entries a twin, and remove the twins of removed ones."""
        words = self.enabled()
        if words is None:
            return []
        twins = {_twin(path): path for path in self._originals()}
        gone = [Remove(path) for path in self._twins() if path not in twins]
        made = [Write(path, _bytes(_with_words(_text(of), words))) for path, of in twins.items()]
        return [*gone, *made]

    def disable(self) -> list[Step]:
        """Return the steps that take them away."""
        return [*(Remove(path) for path in self._twins()), Remove(self._plugin)]


def _fields(text: str) -> dict[str, str]:
    pairs = (line.strip().partition(" ") for line in text.splitlines())
    return {key: value.strip() for key, _, value in pairs if not key.startswith("#")}


def _is_twin(path: str) -> bool:
    return path.endswith("-unionfs.conf")


def _twin(path: str) -> str:
    return path.removesuffix(".conf") + "-unionfs.conf"


def _with_words(text: str, words: str) -> str:
    """Return an entry's text with more words for the kernel, and a title that says so."""
    lines = [f"# Made by 'unionfs boot enable'\n# words: {words}"]
    for line in text.splitlines():
        key = line.strip().partition(" ")[0]
        lines.append({"title": f"{line}, {TITLE}", "options": f"{line} {words}"}.get(key, line))
    if "options" not in _fields(text):
        lines.append(f"options {words}")
    return "\n".join(lines) + "\n"


class RaspberryPi:
    """The firmware of a Raspberry Pi: one line of words, for all boots."""

    name = "Raspberry Pi firmware"

    def __init__(self, root: str = "/") -> None:
        self._root = root

    def _path(self) -> str | None:
        for place in ("boot/firmware", "boot"):
            if os.path.exists(os.path.join(self._root, place, "config.txt")):
                path = os.path.join(self._root, place, "cmdline.txt")
                return path if os.path.exists(path) else None
        return None

    def is_there(self) -> bool:
        """Tell whether the machine has it."""
        return self._path() is not None

    def _words(self) -> list[str]:
        return _text(self._path() or "").split()

    def enabled(self) -> str | None:
        """Return the words that are ours."""
        init = f"init={LIBRARY}/init"
        ours = [
            word
            for word in self._words()
            if word.startswith(("unionfs=", "unionfs.")) or word == init
        ]
        return " ".join(ours) or None

    def enable(self, wanted: Wanted) -> list[Step]:
        """Return the step that adds the words."""
        return self._rewritten(wanted.words.split())

    def disable(self) -> list[Step]:
        """Return the step that takes them away."""
        return self._rewritten([])

    def _rewritten(self, words: list[str]) -> list[Step]:
        path = self._path()
        ours = set((self.enabled() or "").split())
        if path is None or ours == set(words):
            return []
        kept = [word for word in self._words() if word not in ours]
        return [Write(path, _bytes(" ".join([*kept, *words]) + "\n"))]


def found(root: str = "/") -> list[BootLoader]:
    """Return the boot loaders that the machine has."""
    every: tuple[BootLoader, ...] = (Grub(root), SystemdBoot(root), RaspberryPi(root))
    return [loader for loader in every if loader.is_there()]
