"""Write the manual pages of section 1, one a command, from what --help says: manual.py DIRECTORY.

The language of the pages is that of man(7).  What the parsers say in an epilog
is laid out by hand, so it stays as it is.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import unionfs
from unionfs.commands import commands

EXAMPLES = """\
Try an installation, and forget it:
    unionfs run -- apt-get install -y cowsay

Keep what changes below /etc on a disk, and see what it is:
    unionfs mount --lower /etc --upper /data/upper --work /data/work /etc
    unionfs diff /etc

The same in /etc/fstab:
    unionfs /etc fuse.unionfs lowerdir=/etc,upperdir=/data/upper,workdir=/data/work 0 0
"""


def escaped(text: str) -> str:
    """Return *text* as man(7) takes it: nothing in it is a request."""
    return (
        text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("\n.", "\n\\&.")
    )


def preformatted(text: str) -> str:
    """Return lines that stay as they are."""
    return "\n".join([".nf", *(f"\\&{escaped(line)}" for line in text.splitlines()), ".fi"])


def option(action: argparse.Action, parser: argparse.ArgumentParser) -> Iterator[str]:
    """Yield the lines about one argument."""
    formatter = parser.formatter_class(prog=parser.prog)
    yield ".TP"
    yield r"\fB" + escaped(formatter._format_action_invocation(action)) + r"\fR"  # noqa: SLF001
    yield escaped(formatter._expand_help(action))  # noqa: SLF001


def page(title: str, line: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    """Yield the lines of the page of one command."""
    yield f'.TH {title.upper()} 1 "" "unionfs {unionfs.__version__}" "User Commands"'
    yield ".SH NAME"
    yield f"{escaped(title)} \\- {escaped(line)}"
    yield ".SH SYNOPSIS"
    yield preformatted(parser.format_usage().removeprefix("usage: ").replace("\n       ", "\n  "))
    yield ".SH DESCRIPTION"
    yield escaped(parser.description or "")
    for group in parser._action_groups:  # noqa: SLF001 - argparse shows them in no other way
        if group._group_actions:  # noqa: SLF001
            yield ".SH " + ("OPTIONS" if group.title == "options" else "ARGUMENTS")
            for action in group._group_actions:  # noqa: SLF001
                yield from option(action, parser)
    if parser.epilog:
        yield ".SH NOTES"
        yield preformatted(parser.epilog)


def whole() -> Iterator[str]:
    """Yield the lines of unionfs(1)."""
    parser = commands.parser()
    yield from page("unionfs", "several directories seen as one", _without_commands(parser))
    yield ".SH COMMANDS"
    for name, line in commands.COMMANDS.items():
        yield f".TP\n\\fBunionfs\\-{name}\\fR(1)\n{escaped(line)}"
    yield ".SH EXAMPLES"
    yield preformatted(EXAMPLES)
    yield ".SH EXIT STATUS"
    yield "0; 2 when what is asked cannot be done, and then nothing has changed; 1 for failures."
    yield ".SH SEE ALSO"
    yield r"\fBunionfs\fR(5), \fBmount\fR(8), \fBfstab\fR(5)"


def _without_commands(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    for group in parser._action_groups:  # noqa: SLF001
        group._group_actions = [  # noqa: SLF001
            action
            for action in group._group_actions  # noqa: SLF001
            if not isinstance(action, argparse._SubParsersAction)  # noqa: SLF001
        ]
    return parser


def main() -> None:
    """Write all pages."""
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    pages = {"unionfs": whole()}
    for name, line in commands.COMMANDS.items():
        parser, _ = commands.command_parser(name)
        pages[f"unionfs-{name}"] = page(f"unionfs-{name}", line, parser)
    for title, lines in pages.items():
        (directory / f"{title}.1").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
