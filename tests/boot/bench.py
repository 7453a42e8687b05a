"""What a union costs a machine that boots on it: `make bench-boot`.

One image and one initramfs, booted in turns: with a plain and writable root, with the kernel's
overlayfs by the package overlayroot, and with ours, also without requests for opens.  An
emulated machine's seconds depend on what else this one does, its processor's less so.  The
medians go to docs/boot.md.
"""

import argparse
import os
import statistics
import tempfile
from typing import NamedTuple

from .guest import Disk, Guest
from .image import ROOT, Image


class Kind(NamedTuple):
    """A root to be compared."""

    words: str  # on the kernel command line
    root: str  # what kind of file system / is then
    upper: str  # where its RAM is mounted


KINDS = {
    "plain, writable": Kind("rw", "ext4", ""),
    "overlayfs, by overlayroot": Kind("overlayroot=tmpfs", "overlay", "/media/root-rw"),
    "unionfs": Kind("unionfs=tmpfs", "fuse.pyunionfs", "/rw"),
    "unionfs, noopen=on": Kind("unionfs=tmpfs unionfs.options=noopen=on", "fuse.pyunionfs", "/rw"),
}

# Memory and what has been written to RAM are looked at when the machine was idle for a minute.
# Free pages that a processor keeps at hand are not in MemFree: /proc/zoneinfo, "pagesets".
SCRIPT = """
echo root=$(findmnt -no FSTYPE /)
sleep 60
free=$(awk '$1 == "count:" { pages += $2 } END { print pages * 4 }' /proc/zoneinfo)
awk -v free="$free" '{ has[$1] = $2 } END {
    cached = has["Active(file):"] + has["Inactive(file):"] + has["SReclaimable:"]
    print "used=" has["MemTotal:"] - has["MemAvailable:"]
    print "kept=" has["MemTotal:"] - has["MemFree:"] - free - cached
}' /proc/meminfo
echo upper=$([ -z "UPPER" ] || df -k --output=used UPPER | tail -n 1)
"""

START, END = "<!-- bench-boot -->\n", "<!-- /bench-boot -->\n"
DOCUMENT = os.path.join(ROOT, "docs", "boot.md")


class Boot(NamedTuple):
    """What one boot took; *processor* is QEMU's time."""

    seconds: float  # from power-on to multi-user.target
    processor: float  # seconds
    used: float  # MB, a minute later: what is not available, as the kernel estimates it
    kept: float  # MB of that which are no cache, and cannot be had back
    upper: float  # MB in the RAM upper then


def boot(image, kind, path):
    """Boot once."""
    disk = Disk(image.ext4, "root", writable=False)
    if not kind.upper:
        disk = Disk(image.altered(os.path.join(path, "root.ext4"), {}), "root")
    guest = Guest(image, path, root=disk)
    guest.start(kind.words, SCRIPT.replace("UPPER", kind.upper))
    try:
        guest.wait_for("@@UP")
        taken = guest.taken()
        guest.wait_for()
    finally:
        guest.cut_power()
    ended = guest.ended()
    values = ended.values()
    if values.get("root") != kind.root:
        raise SystemExit(f"{kind}: {ended.report}\n{ended.console[-2000:]}")
    sizes = (int(values[name] or 0) / 1024 for name in ("used", "kept", "upper"))
    return Boot(*taken, *sizes)


def table(boots):
    """Return a table in Markdown of what the kinds took: *boots* is by their names."""
    yield (
        "| root | power-on to multi-user | of the processor | memory not available"
        " | of it no cache | RAM upper |"
    )
    yield "|---|---|---|---|---|---|"
    for name, taken in boots.items():
        middle = Boot(*(statistics.median(column) for column in zip(*taken, strict=True)))
        seconds = [one.seconds for one in taken]
        yield (
            f"| {name} | {middle.seconds:.1f} s ({min(seconds):.1f} to {max(seconds):.1f})"
            f" | {middle.processor:.1f} s | {middle.used:.0f} MB | {middle.kept:.0f} MB"
            f" | {middle.upper:.1f} MB |"
        )


def main():
    """Boot all kinds in turns, and put the result into the documentation."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    image = Image(more=True)
    boots = {name: [] for name in KINDS}
    for turn in range(rounds):
        for name, kind in KINDS.items():
            with tempfile.TemporaryDirectory() as path:
                boots[name].append(boot(image, kind, path))
            print(turn, name, boots[name][-1], flush=True)
    lines = "\n".join(table(boots))
    print(lines)
    with open(DOCUMENT) as file:
        before, _, rest = file.read().partition(START)
    with open(DOCUMENT, "w") as file:
        file.write(before + START + lines + "\n" + END + rest.partition(END)[2])


if __name__ == "__main__":
    main()
