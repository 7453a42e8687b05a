"""A boot without a machine: the image's init wrapper as PID 1 of new namespaces, in seconds."""

import os
import subprocess
from typing import NamedTuple

HERE = os.path.dirname(os.path.abspath(__file__))
SECONDS = 600  # for a boot and its script, on a busy machine
NAMESPACES = ("--mount", "--pid", "--fork", "--cgroup", "--uts", "--ipc", "--kill-child")


class Ended(NamedTuple):
    """What became of the namespaces."""

    status: int  # PID 1's; 129: reboot(2) asked for a restart, 130: for a halt
    log: str  # what went to the kernel's log
    console: str


def boot(root, path, words, script, **how):
    """Boot the file system in the file *root*.

    *words* are on the kernel command line, and *script* runs instead of /sbin/init.
    """
    return start(root, path, words, script, **how).ended()


def start(root, path, words, script, *, disk=None, hidden="", group=None, shared=False):
    """Do that, and do not wait.  *group*: a directory of cgroup v2, which it has for its own."""
    scratch = os.path.join(str(path), "boot")
    os.mkdir(scratch)
    _write(scratch, "cmdline", f"{words} unionfs.init=/run/init\n")
    _write(scratch, "init", f"#!/bin/bash\n{script}\n")
    os.chmod(os.path.join(scratch, "init"), 0o755)
    for name in ("kmsg", "console"):
        _write(scratch, name, "")
    command = ["sh", f"{HERE}/namespaces.sh", scratch, root, *([disk] if disk else [])]
    environment = {**os.environ, "HIDDEN": hidden, "CONTROLLED": group or ""}
    environment |= {"SHARED": "yes"} if shared else {}
    join = 'if [ -n "$CONTROLLED" ]; then echo $$ >"$CONTROLLED/cgroup.procs"; fi; exec "$@"'
    process = subprocess.Popen(
        ["sh", "-ec", join, "join", "unshare", *NAMESPACES, *command], env=environment
    )
    return Running(scratch, process)


class Running(NamedTuple):
    """Namespaces in which something runs."""

    scratch: str
    process: subprocess.Popen

    def console(self):
        """Return what has been said so far."""
        return _read(self.scratch, "console")

    def ended(self):
        """Wait for the end, and return what became of them."""
        try:
            status = self.process.wait(SECONDS)
        finally:
            self.end()
        status = status if status >= 0 else 128 - status
        return Ended(status, _read(self.scratch, "kmsg"), self.console())

    def end(self):
        """End all that runs in there."""
        self.process.kill()
        self.process.wait()


def _write(scratch, name, text):
    with open(os.path.join(scratch, name), "w") as file:
        file.write(text)


def _read(scratch, name):
    with open(os.path.join(scratch, name)) as file:
        return file.read()
