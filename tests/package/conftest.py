"""A small Debian, and the package installed in it by apt."""

import dataclasses
import os
import subprocess

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(ROOT, "build", "package")
HERE = os.path.join(ROOT, "tests", "package")
SECONDS = 600  # for a script, on a busy machine
NAMESPACES = ("--mount", "--pid", "--fork", "--uts", "--ipc", "--kill-child")

# All that the package needs is in the cache of apt.
INSTALL = "apt-get install -qq -y --no-install-recommends "


@dataclasses.dataclass
class Machine:
    """A root directory, made of lower ones, and what was changed in it."""

    path: str
    lowers: tuple[str, ...]

    def __post_init__(self):
        for name in ("root", "upper", "work"):
            os.makedirs(os.path.join(self.path, name), exist_ok=True)

    def run(self, script):
        """Run a script in it; return its exit status and what it said."""
        root, upper, work = (os.path.join(self.path, name) for name in ("root", "upper", "work"))
        command = ["sh", f"{HERE}/enter.sh", root, upper, work, ":".join(self.lowers)]
        done = subprocess.run(
            ["unshare", *NAMESPACES, *command, "bash", "-c", script],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=SECONDS, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout

    def must(self, script):
        """Run a script that has to succeed; return what it said."""
        status, said = self.run(f"set -e\n{script}")
        assert status == 0, said
        return said

    def above(self, path):
        """Return a machine that begins with what this one has become."""
        return Machine(str(path), (os.path.join(self.path, "upper"), *self.lowers))


@pytest.fixture(scope="session")
def package():
    """Build the package, and return the file's path."""
    if os.geteuid() != 0:
        pytest.skip("roots are made by root")
    subprocess.run(["make", "-s", "-C", ROOT, "deb"], check=True)
    (name,) = (name for name in os.listdir(f"{ROOT}/build") if name.endswith("_all.deb"))
    return f"{ROOT}/build/{name}"


@pytest.fixture(scope="session")
def debian(package, tmp_path_factory):
    """A Debian that has the package as a file."""
    base = os.path.join(BUILD, "bookworm")
    os.makedirs(BUILD, exist_ok=True)
    subprocess.run([f"{HERE}/mkroot.sh", "bookworm", base], check=True)
    machine = Machine(str(tmp_path_factory.mktemp("debian")), (base,))
    os.makedirs(f"{machine.path}/upper/root", mode=0o700)
    subprocess.run(["cp", package, f"{machine.path}/upper/root/pyunionfs.deb"], check=True)
    return machine


@pytest.fixture(scope="session")
def installed(debian, tmp_path_factory):
    """The same with the package installed, from nothing."""
    machine = debian.above(tmp_path_factory.mktemp("installed"))
    machine.must(f"{INSTALL} /root/pyunionfs.deb")
    return machine


@pytest.fixture
def machine(installed, tmp_path):
    """One with the package, for a test alone."""
    return installed.above(tmp_path)
