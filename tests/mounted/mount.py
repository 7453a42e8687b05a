"""A union mounted for a test: started as a user starts it, ended without a trace.

`Mount` knows the directories and the process; `Mount.check` says what must hold
whenever no request is under way: nothing logged, nothing left in work.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from tests.trees import harvest, plant

ROOT = Path(__file__).parents[2]

# Options for all mounts of a run: UNIONFS_TEST_OPTIONS=loop=off,handshake=off,passthrough=off
EXTRA = tuple(filter(None, os.environ.get("UNIONFS_TEST_OPTIONS", "").split(",")))

PATIENCE = 120.0  # seconds for a daemon to serve or to end, on a busy machine
_MOUNTED_KEY = "trusted.unionfs.status"  # only a live mount of ours answers


def wait_until(claim, seconds=PATIENCE):
    """Wait until *claim* holds: what another process does is not done at once."""
    deadline = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < deadline, "did not come true"
        time.sleep(0.002)


class Mount:
    """Layers in *base* and the union of them at `path`."""

    def __init__(self, base, *, lowers, upper=None, work=None, options=()):
        self.base = base
        self.lowers = tuple(lowers)
        self.upper = upper
        self.work = work
        self.options = (*options, *EXTRA)
        self.path = base / "mnt"
        self.path.mkdir(exist_ok=True)
        self.log = base / "stderr"
        self.process = None

    @classmethod
    def planted(cls, base, upper, *lowers, options=()):
        """Plant the layers from literals; no upper where *upper* is None."""
        places = {}
        if upper is not None:
            places = {"upper": plant(base / "upper", upper), "work": base / "work"}
            places["work"].mkdir()
        directories = [plant(base / f"lower{n}", tree) for n, tree in enumerate(lowers, 1)]
        return cls(base, lowers=directories, options=options, **places)

    def command(self, *words):
        return [sys.executable, "-m", "unionfs.cli", *map(str, words)]

    def start(self):
        """Mount; the process stays our child, so that its end and its words are seen."""
        words = [word for lower in self.lowers for word in ("--lower", lower)]
        if self.upper is not None:
            words += ["--upper", self.upper, "--work", self.work]
        if self.options:
            words += ["-o", ",".join(self.options)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command("mount", "-f", *words, self.path), cwd=ROOT, stderr=log
            )
        wait_until(self._answers)
        return self

    def _answers(self):
        assert self.process.poll() is None, self.log.read_text()
        with contextlib.suppress(OSError):
            self.status = json.loads(os.getxattr(self.path, _MOUNTED_KEY))
            return True
        return False

    def stop(self):
        """Unmount; the process ends well and says nothing."""
        subprocess.run(self.command("umount", self.path), cwd=ROOT, check=True, timeout=PATIENCE)
        assert self.process.wait(PATIENCE) == 0
        self.process = None
        self.check()

    def remount(self, *options):
        """Mount the same layers anew."""
        self.stop()
        if options:
            self.options = (*options, *EXTRA)
        return self.start()

    def check(self):
        """Nothing was logged, and nothing is being staged."""
        logged = self.log.read_text()
        assert logged == "", logged
        if self.work is not None:
            # What was deleted goes when the daemon has nothing else to do: within milliseconds.
            wait_until(lambda: os.listdir(self.work / "work") == [])

    @property
    def serves(self):
        return self.process is not None and self.process.poll() is None

    def remains(self):
        """Tell what is left after the end: mounts below `base`."""
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
        return [line.split()[4] for line in lines if line.split()[4].startswith(f"{self.path}")]

    def kill(self):
        """End a mount that failed, whatever state it is in."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
        for point in reversed(self.remains()):
            subprocess.run(["umount", "-l", point], check=False)

    def take_log(self):
        """Return what was logged, and forget it: the caller expected it."""
        text = self.log.read_text()
        os.truncate(self.log, 0)
        return text

    def on_upper(self):
        """Return upper as a literal."""
        return harvest(self.upper)
