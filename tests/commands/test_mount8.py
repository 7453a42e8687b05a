"""mount(8) and fstab(5): the command is found and called as on a machine where it is installed.

mount(8) gives its helpers an empty environment, so the command must lie in a directory of the
system.  In a mount namespace of the test's own one is put over /usr/local/sbin.
"""

import os
import subprocess

import pytest

from tests.commands.conftest import SECONDS


class Machine:
    """A mount namespace in which both names of the command are installed."""

    def __init__(self, bench):
        self.bench = bench
        os.mkdir(bench.at("bin"))
        for name in ("unionfs", "pyunionfs"):
            self._install(name)
        script = 'mount --bind "$0" /usr/local/sbin && echo ready && exec cat'
        self.holder = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", script, bench.at("bin")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert self.holder.stdout.readline() == b"ready\n"

    def _install(self, name):
        python = self.bench.words("")[0]
        path = self.bench.at(f"bin/{name}")
        with open(path, "w") as script:
            script.write(
                f"#!{python}\nimport os, sys\nsys.path.insert(0, {os.getcwd()!r})\n"
                "from unionfs.cli import main\nsys.exit(main())\n"
            )
        os.chmod(path, 0o755)

    def run(self, *words):
        enter = ["nsenter", f"--target={self.holder.pid}", "--mount"]
        inside = ["sh", "-c", 'cd "$0" && exec "$@"', self.bench.path]
        return self.bench.run([*enter, *inside, *words])

    def mounted(self):
        """Return (source, type, flags) of the mount point."""
        line = self.run("findmnt", "-n", "-o", "SOURCE,FSTYPE,OPTIONS", self.bench.at("mnt")).out
        source, kind, options = line.split()
        return source, kind, set(options.split(","))

    def close(self):
        self.run("umount", "--quiet", "--lazy", self.bench.at("mnt"))
        self.holder.communicate(timeout=SECONDS)


@pytest.fixture
def machine(bench):
    machine = Machine(bench)
    yield machine
    machine.close()


@pytest.mark.parametrize("name", ["unionfs", "pyunionfs"])
def test_mount_8_mounts_remounts_and_unmounts(machine, name):
    options = "lowerdir=lower,upperdir=upper,workdir=work,nofail,x-test=1,noatime"
    words = ["mount", "-t", f"fuse.{name}", name, "mnt", "-o", options]
    assert machine.run(*words) == (0, "", "")
    source, kind, flags = machine.mounted()
    assert (source, kind) == (name, f"fuse.{name}")
    assert {"rw", "noatime"} <= flags
    assert not {"nosuid", "nodev"} & flags
    assert machine.run("mount", "-o", "remount,ro", "mnt") == (0, "", "")
    assert "ro" in machine.mounted()[2]
    assert machine.run("touch", "mnt/new").status == 1
    assert machine.run("mount", "-o", "remount,rw", "mnt") == (0, "", "")
    assert machine.run("touch", "mnt/new") == (0, "", "")
    assert machine.run("umount", "mnt") == (0, "", "")
    assert machine.bench.ls("upper") == ["new"]


def test_mount_8_makes_a_mount_of_plain_type_fuse(machine):
    """As test suites ask for it that know the type alone: the source is the command."""
    options = "lowerdir=lower,upperdir=upper,workdir=work,subtype="
    assert machine.run("mount", "-t", "fuse", "unionfs", "mnt", "-o", options) == (0, "", "")
    assert machine.mounted()[:2] == ("unionfs", "fuse")
    assert machine.run("mount", "-o", "remount,ro", "mnt") == (0, "", "")
    assert "ro" in machine.mounted()[2]
    assert machine.run("umount", "mnt") == (0, "", "")
    source = "unionfs#name"
    assert machine.run("mount", "-t", "fuse", source, "mnt", "-o", options) == (0, "", "")
    assert machine.mounted()[:2] == ("name", "fuse")
    assert machine.run("umount", "mnt") == (0, "", "")


def test_mount_8_says_why_not(machine):
    words = ["mount", "-t", "fuse.unionfs", "unionfs", "mnt", "-o", "lowerdir=nope"]
    result = machine.run(*words)
    assert result.status != 0
    assert "unionfs: lower 'nope' does not exist: make it first" in result.err


@pytest.mark.parametrize("name", ["unionfs", "pyunionfs"])
def test_a_line_of_fstab_mounts(machine, name):
    bench = machine.bench
    layers = ",".join(f"{key}dir={bench.at(key)}" for key in ("lower", "upper", "work"))
    options = f"defaults,nofail,nosuid,{layers},x-systemd.requires=/srv,_netdev"
    bench.write("fstab", f"{name} {bench.at('mnt')} fuse.{name} {options} 0 0\n")
    fstab = ["mount", "--fstab", "fstab"]
    assert machine.run(*fstab, bench.at("mnt")) == (0, "", "")
    source, kind, flags = machine.mounted()
    assert (source, kind) == (name, f"fuse.{name}")
    assert {"rw", "nosuid"} <= flags
    assert machine.run(*fstab, "-o", "remount,ro", bench.at("mnt")) == (0, "", "")
    assert {"ro", "nosuid"} <= machine.mounted()[2]
    assert machine.run("umount", bench.at("mnt")) == (0, "", "")


def test_an_option_with_a_comma_reaches_us_through_mount_8(machine):
    os.mkdir(machine.bench.at("a,b"))
    machine.bench.write("a,b/there", "")
    words = ["mount", "-t", "fuse.unionfs", "unionfs", "mnt", "-o", r"lowerdir=a\,b"]
    assert machine.run(*words) == (0, "", "")
    assert machine.run("ls", "mnt").out == "there\n"
    assert machine.run("umount", "mnt") == (0, "", "")
