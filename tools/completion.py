"""Print the completion for bash(1): subcommands, options, mount points, files."""

import argparse
from collections.abc import Iterator

from unionfs.commands import commands

# Words of options and arguments that are directories or files: completed as such.
_FILES = "-o filenames -o bashdefault -o default"

_SCRIPT = """\
# bash completion for unionfs(1), made by tools/completion.py
_unionfs() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} words= index
    COMPREPLY=()
    for ((index = 1; index < COMP_CWORD; index++)); do
        [[ ${{COMP_WORDS[index]}} == -- ]] && return
    done
    if ((COMP_CWORD == 1)); then
        words='{commands} --help --version'
    elif [[ $word == -* ]]; then
        case ${{COMP_WORDS[1]}} in
{options}
        esac
    else
        case ${{COMP_WORDS[1]}} in
        umount | status)
            words=$(findmnt --noheadings --raw --output TARGET --types fuse.unionfs,fuse.pyunionfs)
            ;;
        esac
    fi
    [[ -z $words ]] || mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
}}
complete {files} -F _unionfs unionfs pyunionfs
"""


def cases() -> Iterator[str]:
    """Yield what each command's options are, as branches of `case`."""
    for name in commands.COMMANDS:
        parser, _ = commands.command_parser(name)
        yield f"        {name}) words='{' '.join(sorted(_options(parser)))}' ;;"


def _options(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:  # noqa: SLF001 - argparse shows them in no other way
        yield from (word for word in action.option_strings if word.startswith("--"))


def main() -> None:
    """Print the script."""
    names = " ".join(commands.COMMANDS)
    print(_SCRIPT.format(commands=names, options="\n".join(cases()), files=_FILES), end="")


if __name__ == "__main__":
    main()
