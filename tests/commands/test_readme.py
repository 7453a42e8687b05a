"""The README's tour prints what it says."""

import os
import re

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def steps():
    """Return (command, output) for each prompt in the tour's blocks."""
    with open(f"{ROOT}/README.md") as file:
        blocks = re.findall(r"<!-- tour -->\n```console\n(.*?)```", file.read(), re.DOTALL)
    found = []
    for line in "".join(blocks).splitlines(keepends=True):
        if line.startswith("# "):
            found.append((line[2:], []))
        else:
            found[-1][1].append(line)
    return [(command.strip(), "".join(output)) for command, output in found]


def test_the_tour_prints_what_it_says(bench):
    for name in ("lower/file", "lower", "upper", "work", "mnt"):
        os.remove(bench.at(name)) if "/" in name else os.rmdir(bench.at(name))
    shell = 'unionfs() { "$UNIONFS_PYTHON" -m unionfs.cli "$@"; }; exec 2>&1; '
    bench.environment["UNIONFS_PYTHON"] = bench.words("")[0]
    bench.environment["LC_ALL"] = "C.UTF-8"
    said = [
        (command, bench.run(["sh", "-c", shell + _as_in_a_terminal(command)]).out)
        for command, _ in steps()
    ]
    assert said == steps()


def _as_in_a_terminal(command):
    """ls writes columns to a terminal."""
    return f'ls() {{ command ls -C -T 0 -w 80 "$@"; }}; {command}'


def test_the_tour_has_been_found():
    assert len(steps()) > 10
