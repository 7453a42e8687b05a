"""On what a run was measured: the machine, the kernel, the versions of all contenders."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from bench.contenders import CONTENDERS, PROJECT

PACKAGES = tuple(entry.package for entry in CONTENDERS if entry.package)
EXTRA_PACKAGES = ("fio", "git", "e2fsprogs")  # that the workloads, and the layers, need


def describe(base: Path) -> dict[str, str]:
    """Return what a reader must know to judge the figures."""
    found = {
        "kernel": platform.release(),
        "cpu": f"{os.cpu_count()} x {_cpu()}",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') >> 30} GiB",
        "layers on": _filesystem(base),
        # Distributions build it with profiles, others may not: a sixth of a request's time.
        "python": f"{platform.python_version()} ({os.path.realpath(sys.executable)})",
    }
    for name in ("pyfuse3", "trio"):
        found[name] = metadata.version(name)
    return found | {name: _debian(name) for name in PACKAGES}


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _filesystem(path: Path) -> str:
    words = ("df", "--output=fstype", path)
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()[-1]


def _debian(package: str) -> str:
    words = ("dpkg-query", "-W", "-f", "${Version}", package)
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except FileNotFoundError:  # not a Debian
        return "unknown"
    return done.stdout.strip() or "not installed"


def install() -> int:
    """Install those of the peers and tools that are missing, from Debian; return an exit status."""
    words = (PROJECT / "tools" / "packages.sh", *PACKAGES, *EXTRA_PACKAGES)
    return subprocess.run(words, check=False).returncode
