"""The README's tour, and the example of docs/format.md, print what they say."""

import os
import re

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


PAPERS = [("README.md", "tour"), ("docs/format.md", "format")]


def steps(paper, mark):
    """Return (command, output) for each prompt in the blocks of a paper with this mark."""
    with open(f"{ROOT}/{paper}") as file:
        blocks = re.findall(rf"<!-- {mark} -->\n```console\n(.*?)```", file.read(), re.DOTALL)
    found = []
    for line in "".join(blocks).splitlines(keepends=True):
        if line.startswith("# ") and not line.startswith("# file: "):  # that is getfattr(1)'s
            found.append((line[2:], []))
        else:
            found[-1][1].append(line)
    return [(command.strip(), "".join(output)) for command, output in found]


@pytest.mark.parametrize(("paper", "mark"), PAPERS, ids=dict(PAPERS))
def test_an_example_prints_what_it_says(bench, paper, mark):
    for name in ("lower/file", "lower", "upper", "work", "mnt"):
        os.remove(bench.at(name)) if "/" in name else os.rmdir(bench.at(name))
    shell = 'unionfs() { "$UNIONFS_PYTHON" -m unionfs.cli "$@"; }; exec 2>&1; '
    bench.environment["UNIONFS_PYTHON"] = bench.words("")[0]
    bench.environment["LC_ALL"] = "C.UTF-8"
    said = [
        (command, bench.run(["sh", "-c", shell + _as_in_a_terminal(command)]).out)
        for command, _ in steps(paper, mark)
    ]
    assert said == steps(paper, mark)


def _as_in_a_terminal(command):
    """ls writes columns to a terminal."""
    return f'ls() {{ command ls -C -T 0 -w 80 "$@"; }}; {command}'


@pytest.mark.parametrize(("paper", "mark"), PAPERS, ids=dict(PAPERS))
def test_the_examples_have_been_found(paper, mark):
    assert len(steps(paper, mark)) > 7
