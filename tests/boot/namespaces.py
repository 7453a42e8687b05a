"""A boot without a machine: the image's init wrapper as PID 1 of new namespaces, in seconds."""

import os
import subprocess
from typing import NamedTuple

HERE = os.path.dirname(os.path.abspath(__file__))
SECONDS = 120
NAMESPACES = ("--mount", "--pid", "--fork", "--cgroup", "--uts", "--ipc", "--kill-child")


class Ended(NamedTuple):
    """What became of the namespaces."""

    status: int  # PID 1's; 129: reboot(2) asked for a restart, 130: for a halt
    log: str  # what went to the kernel's log
    console: str


def boot(image, path, words, script, *, disk=None, hidden=""):
    """Boot with *words* on the kernel command line and *script* instead of /sbin/init."""
    scratch = os.path.join(str(path), "boot")
    os.mkdir(scratch)
    _write(scratch, "cmdline", f"{words} unionfs.init=/run/init\n")
    _write(scratch, "init", f"#!/bin/bash\n{script}\n")
    os.chmod(os.path.join(scratch, "init"), 0o755)
    for name in ("kmsg", "console"):
        _write(scratch, name, "")
    command = ["sh", f"{HERE}/namespaces.sh", scratch, image.ext4, *([disk] if disk else [])]
    done = subprocess.run(
        ["unshare", *NAMESPACES, *command],
        env={**os.environ, "HIDDEN": hidden}, timeout=SECONDS, check=False,
    )  # fmt: skip
    status = done.returncode if done.returncode >= 0 else 128 - done.returncode
    return Ended(status, _read(scratch, "kmsg"), _read(scratch, "console"))


def _write(scratch, name, text):
    with open(os.path.join(scratch, name), "w") as file:
        file.write(text)


def _read(scratch, name):
    with open(os.path.join(scratch, name)) as file:
        return file.read()
