"""The README's five minutes print what they say: a boot, changes, and the boot after it."""

import os
import re
import shlex

import pytest

from . import namespaces
from .image import ROOT


def block(title):
    """Return the lines of one of the README's blocks."""
    with open(os.path.join(ROOT, "README.md")) as file:
        found = re.search(rf"<!-- {title} -->\n```console\n(.*?)```", file.read(), re.DOTALL)
    return found[1]


def script(lines):
    """Return a script that runs the block's commands, and says what a terminal would show."""
    commands = [line[2:] for line in lines.splitlines() if line.startswith("# ")]
    return "\n".join(
        ["exec 2>&1; echo @@BEGIN"]
        + [f"printf '# %s\\n' {shlex.quote(command)}; {command}" for command in commands]
    )


@pytest.mark.parametrize("title", ["first boot", "second boot"])
def test_the_five_minutes_print_what_they_say(image, tmp_path, title):
    lines = block(title)
    ended = namespaces.boot(image.ext4, tmp_path, "unionfs=tmpfs", script(lines))
    assert ended.console.partition("@@BEGIN\n")[2].replace("\r", "") == lines
