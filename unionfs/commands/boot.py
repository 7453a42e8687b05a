"""`unionfs boot`: whether this machine's root is a union when it boots.

`enable` makes the initramfs images anew, with our script in them, and puts an entry
"read-only (unionfs)" into the boot loader's menu; `disable` takes the entry away;
`status` examines each kernel.  Each prints what it does; `--dry-run` only prints it.
"""

import argparse
import sys

from unionfs.commands import bootloaders, initramfs, offline
from unionfs.commands.bootsteps import Failed, Step, carry_out, needed
from unionfs.host import mountinfo
from unionfs.mounting import configurations
from unionfs.mounting.options import Refused, checked_size

_FAILED = 1  # exit status

_EPILOG = """\
enable         the root is a union from the next boot on: the real root is only read, and shows
               at /ro; changes go to RAM, which shows at /rw, and are gone at the next boot
  --upper DEV  changes go to a disk, and stay: UUID=..., LABEL=... or /dev/...
  --state      as the configuration says: what persists, and where (unionfs-config(1))
  --size SIZE  of the RAM, as tmpfs(5) has it: 512M, 50% [50%]
  --menu-only  the menu's default stays as it is
  --once       the next boot alone
  --init       without an initramfs: the kernel starts our script by init=
disable        as before
status         what is enabled, and whether each kernel can boot so; exit status 0: enabled, and
               all can; 1: not

On a machine that runs on a union, call them by 'unionfs maintain -- unionfs boot ...'.
The words of the kernel's command line are in unionfs(5).
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.epilog = _EPILOG
    parser.add_argument(
        "verb", metavar="VERB", choices=("enable", "disable", "status", "update-entries"),
        help="enable, disable or status",
    )  # fmt: skip
    parser.add_argument("--upper", metavar="DEV", help="a disk that keeps changes")
    parser.add_argument("--state", action="store_true", help="as the configuration says")
    parser.add_argument("--size", metavar="SIZE", help="how much RAM changes may take [50%%]")
    parser.add_argument("--menu-only", action="store_true", help="leave the menu's default")
    parser.add_argument("--once", action="store_true", help="the next boot alone")
    parser.add_argument("--init", action="store_true", help="without an initramfs, by init=")
    parser.add_argument("-n", "--dry-run", action="store_true", help="only say what would be done")
    parser.add_argument("--root", metavar="DIR", default="/", help="of an image, or of a test [/]")


def run(arguments: argparse.Namespace) -> int:
    """Carry the verb out and return the exit status."""
    if arguments.verb == "status":
        return _status(arguments.root)
    offline.require_root()
    _refuse_union(arguments.root)
    if arguments.verb == "enable":
        steps = _enabling(arguments)
    elif arguments.verb == "disable":
        steps = _disabling(arguments.root)
    else:
        steps = bootloaders.SystemdBoot(arguments.root).update()
    return _do(needed(steps), arguments)


def _do(steps: list[Step], arguments: argparse.Namespace) -> int:
    for step in steps:
        print(step)
    if not steps:
        print("nothing to do")
    if not steps or arguments.dry_run:
        return 0
    sys.stdout.flush()
    try:
        carry_out(steps)
    except Failed as exc:
        print(f"unionfs: {exc}", file=sys.stderr)
        return _FAILED
    return _status(arguments.root) if arguments.verb == "enable" else 0


def _refuse_union(root: str) -> None:
    top = mountinfo.top_at("/")
    if root == "/" and top is not None and top.kind in {"fuse.unionfs", "fuse.pyunionfs"}:
        raise Refused(
            "the root is a union now, and what is written to it does not reach the boot loader:"
            " say 'unionfs maintain -- unionfs boot ...'"
        )


def _words(arguments: argparse.Namespace) -> str:
    return _upper_word(arguments) + (f" init={initramfs.LIBRARY}/init" if arguments.init else "")


def _upper_word(arguments: argparse.Namespace) -> str:
    if arguments.state:
        if arguments.upper or arguments.size:
            raise Refused("--state excludes --upper and --size: the configuration says them")
        configurations.read(None, arguments.root)  # better to learn of its faults now
        return "unionfs=state"
    if arguments.upper and arguments.size:
        raise Refused("--upper and --size exclude each other: a disk has its own size")
    if arguments.upper and not arguments.upper.startswith(("UUID=", "LABEL=", "/dev/")):
        raise Refused(f"bad --upper '{arguments.upper}': give UUID=..., LABEL=... or /dev/...")
    size = f":size={checked_size(arguments.size)}" if arguments.size else ""
    return f"unionfs={arguments.upper or f'tmpfs{size}'}"


def _enabling(arguments: argparse.Namespace) -> list[Step]:
    root = arguments.root
    words = _words(arguments)
    initramfs.require_scripts(root)
    loaders = bootloaders.found(root)
    if not loaders:
        raise Refused(
            "no known boot loader (GRUB, systemd-boot, Raspberry Pi firmware): add"
            f" '{words}' to the kernel's command line by hand"
        )
    if arguments.once and any(loader.name == bootloaders.RaspberryPi.name for loader in loaders):
        raise Refused("the Raspberry Pi's firmware cannot change one boot alone: leave --once out")
    image = None if arguments.init else initramfs.maker(root)
    if image is None and not arguments.init:
        raise Refused("neither initramfs-tools nor dracut is installed: say --init")
    for kernel in initramfs.examined(root, None):
        if kernel.trouble:
            print(f"unionfs: kernel {kernel.version}: {kernel.trouble}", file=sys.stderr)
    wanted = bootloaders.Wanted(words, not arguments.menu_only, arguments.once)
    steps = [image.update()] if image is not None else []
    for loader in loaders:
        steps += loader.enable(wanted)
    return steps


def _disabling(root: str) -> list[Step]:
    steps: list[Step] = []
    for loader in bootloaders.found(root):
        steps += needed(loader.disable())
    return steps


def _status(root: str) -> int:
    sound = False
    words: set[str] = set()
    for loader in bootloaders.found(root):
        said = loader.enabled()
        words.update((said or "").split())
        sound = sound or said is not None
        print(f"{loader.name:22} {said or 'not enabled'}")
    by_init = any(word.startswith("init=") for word in words)
    image = None if by_init or not sound else initramfs.maker(root)
    for kernel in initramfs.examined(root, image):
        print(f"{f'kernel {kernel.version}':22} {kernel.trouble or 'fit'}")
        sound = sound and not kernel.trouble
    top = mountinfo.top_at("/")
    if root == "/" and top is not None:
        is_union = top.kind in {"fuse.unionfs", "fuse.pyunionfs"}
        print(f"{'this boot':22} {'a union' if is_union else 'an ordinary root'}")
    return 0 if sound else _FAILED
