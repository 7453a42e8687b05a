"""The daemon that is started ahead."""

import os
import sys

import pytest

from tests.commands.conftest import SECONDS
from unionfs.commands import background, commands


@pytest.mark.parametrize(
    ("line", "likely"),
    [
        ("mount --lower a b", True),
        ("mount -o lowerdir=a b", True),
        ("mount -f --lower a b", False),
        ("mount --foreground --lower a b", False),
        ("mount --help", False),
        ("mount", False),
        ("", False),
        ("--help", False),
        ("unionfs / -o lowerdir=a", True),
        ("mount -o remount,ro /", False),
        ("unionfs / -o rw,remount,noatime", False),
        ("/ -o lowerdir=a,subtype=", True),
        ("run -o lowerdir=a -- true", False),
        ("unionfs /", False),
        ("--version", False),
        ("--version /", False),
        *((f"{command} /", False) for command in commands.COMMANDS if command != "mount"),
    ],
)
def test_it_is_started_where_it_will_be_needed(line, likely, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert background.is_likely(line.split()) is likely


def test_only_root_starts_it(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1)
    assert not background.is_likely(["mount", "--lower", "a", "b"])


def test_it_is_dismissed_when_the_command_does_not_need_it(bench):
    """Also when the command line is read only after it has been started."""
    assert bench.unionfs("mount --lower nope mnt").status == 2
    assert bench.unionfs("mount --bogus mnt").status == 2
    assert bench.unionfs("mount -o remount,ro mnt").status == 2
    assert bench.processes() == []


def test_combined_short_options_may_fool_it(bench):
    process = bench.start("mount -vf --lower lower mnt")
    while not bench.mounts():
        assert process.poll() is None
    assert bench.unionfs("umount mnt").status == 0
    assert process.wait(timeout=SECONDS) == 0
    assert bench.processes() == []


@pytest.mark.parametrize("line", [
    "status mnt", "status --json mnt", "diff mnt", "check upper", "--version", "--help",
    "mount -o remount,ro mnt", "umount mnt",
])  # fmt: skip
def test_only_what_is_needed_is_started(bench, line):
    """Neither a daemon nor what one imports."""
    assert bench.unionfs("mount --lower lower --upper upper --work work mnt").status == 0
    if line == "check upper":
        assert bench.unionfs("umount mnt").status == 0
    bench.write(
        "watch.py",
        "import atexit, sys\n"
        "from unionfs import cli\nfrom unionfs.commands import background\n"
        "background.start = lambda **_: print('forked')\n"
        "atexit.register(lambda: print({'pyfuse3', 'trio'} & set(sys.modules)))\n"
        "sys.exit(cli.main())\n",
    )
    result = bench.run([sys.executable, "watch.py", *line.split()])
    if bench.mounts():
        assert bench.unionfs("umount mnt").status == 0
    assert result.status == 0
    assert "forked" not in result.out
    assert result.out.endswith("set()\n")
