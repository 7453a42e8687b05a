"""Print what the manual page takes from --help beside arguments: the notes at the ends.

argparse-manpage renders descriptions and arguments, but no epilog of a
subcommand.  Its --include takes sections in the form of help2man's.
"""

import sys

from unionfs import commands
from unionfs.arguments import LAYER_OPTIONS

EXAMPLES = """\
Try an installation, and forget it:
    unionfs run -- apt-get install -y cowsay

Keep what changes below /etc on a disk, and see what it is:
    unionfs mount --lower /etc --upper /data/upper --work /data/work /etc
    unionfs diff /etc

The same in /etc/fstab:
    unionfs /etc fuse.unionfs lowerdir=/etc,upperdir=/data/upper,workdir=/data/work 0 0
"""


def section(heading: str, text: str) -> str:
    """Return a section of preformatted lines."""
    lines = (line.replace("\\", "\\e").replace("-", "\\-") for line in text.splitlines())
    return "\n".join([f"[{heading}]", ".nf", *(f"\\&{line}" for line in lines), ".fi", ""])


def main() -> None:
    """Print all sections."""
    out = sys.stdout
    out.write(section("mount options", LAYER_OPTIONS))
    for name in commands.COMMANDS:
        parser, _ = commands.command_parser(name)
        note = (parser.epilog or "").replace(LAYER_OPTIONS, "").strip()
        if note:
            out.write(section(f"notes on '{parser.prog}'", note))
    out.write(section("examples", EXAMPLES))


if __name__ == "__main__":
    main()
