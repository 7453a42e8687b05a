"""A daemon is the same whoever started it; the command of `run` gets what its caller had.

Both are laws, and told by comparison: the daemon of a caller who is in some state with that of an
ordinary one, and the command below `run` with the same command below the same caller alone.
"""

import itertools
import logging
import os
import re
import shlex
import signal
import subprocess
import sys
import syslog
import tempfile

import pytest

from tests.commands.conftest import ROOT, SECONDS, wait_for
from tests.commands.test_mount8 import Machine
from unionfs.mounting import logs

CLOSED = [
    " ".join(f"{fd}>&-" for fd in fds)
    for count in (1, 2, 3)
    for fds in itertools.combinations(range(3), count)
]
SIGNALS = "HUP,INT,QUIT,USR1,USR2,ALRM,TERM,TSTP,TTIN,TTOU"
# Soft limits with which Python still starts.
LIMITS = (
    "--as=120000000: --core=unlimited: --cpu=20: --data=60000000: --fsize=4096: --memlock=0:"
    " --msgqueue=0: --nofile=20: --nproc=1: --rss=0: --rttime=1000: --sigpending=0: --stack=262144:"
)

# What a caller may be like: words before the command.
CALLERS = {
    "umask": "sh -c 'umask 0777; exec \"$@\"' sh",
    "limits": f"prlimit {LIMITS}",
    "blocked signals": "env --block-signal",
    "ignored signals": f"env --ignore-signal={SIGNALS}",
    "ignored ends of children": "env --ignore-signal=CHLD",  # mount(8) itself fails with that
    "nothing in the environment": "env -i",
    "no priority": "nice -n 9 chrt --batch 0 ionice -c 3",
    "likely to be killed": "sh -c 'echo 700 >/proc/self/oom_score_adj; exec \"$@\"' sh",
    "other groups": "setpriv --regid 4 --groups 4,27",
    "open files": "sh -c 'exec \"$@\" 5</etc/passwd 7>/dev/full 9>/dev/shm/unionfs-test-lock' sh",
    **{f"closed {closed}": f"sh -c 'exec \"$@\" {closed}' sh" for closed in CLOSED},
}
SORTS = [caller for caller in CALLERS if caller not in {f"closed {few}" for few in CLOSED[:-1]}]
FOR_MOUNT_8 = [caller for caller in SORTS if "children" not in caller]

# Prints what the process $1 has.  A shell blocks signals while it starts a program: so `read`.
RECORD = r"""
while read key value; do
    case $key in
        Uid:|Gid:|Groups:|SigPnd:|ShdPnd:|SigBlk:|SigIgn:|SigCgt:) echo "$key $value";;
    esac
done </proc/$1/status
cat /proc/$1/limits /proc/$1/oom_score_adj
cut -d ' ' -f 18,19,40,41 /proc/$1/stat
ionice -p $1
"""
DAEMON = (
    RECORD
    + r"""
readlink /proc/$1/cwd | grep -x / || echo a layer
[ $(cut -d ' ' -f 6 /proc/$1/stat) = $1 ] && echo a session of its own
readlink /proc/$1/fd/* | grep -E '^/etc/passwd|^/dev/full|unionfs-test-lock'
true
"""
)
COMMAND = (
    RECORD
    + r"""
pwd
umask
env
ls -l /proc/$1/fd
"""
)


class Place:
    """A bench with the command as a script, whatever is in the environment, and files to tell by.

    They are in /dev/shm, which a command of `run` has in common with everybody.
    """

    def __init__(self, bench):
        self.bench = bench
        self.shared = tempfile.mkdtemp(prefix="unionfs-test-", dir="/dev/shm")
        self.script("daemon", DAEMON)
        self.script("command", COMMAND)
        program = f"import sys; sys.path.insert(0, {ROOT!r})\nfrom unionfs.cli import main\n"
        self.script("unionfs", f"{program}sys.exit(main())\n", f"{sys.executable} -I")

    def script(self, name, text, interpreter="/bin/sh"):
        with open(self.at(name), "w") as file:
            file.write(f"#!{interpreter}\n{text}")
        os.chmod(self.at(name), 0o755)

    def at(self, name):
        return os.path.join(self.shared, name)

    def said(self, name):
        """Its lines, without what belongs to the moment: dates of links, pipes' numbers, `_`."""
        with open(self.at(name)) as file:
            lines = [line for line in file if not line.startswith(("_=", "total "))]
        return [re.sub(r"^l.* ([0-9]+ -> [^\[]*)(.*)", r"\1", line) for line in lines]

    def layers(self):
        layers = [f"{key}dir={self.bench.at(key)}" for key in ("lower", "upper", "work")]
        return ",".join([*layers, "fsync=off"])

    def daemon(self, status):
        """What the daemon is like, of which `unionfs status` says this."""
        pid = re.search("process ([0-9]+)", status)[1]
        return subprocess.check_output([self.at("daemon"), pid], text=True).splitlines(True)

    def close(self):
        for name in os.listdir(self.shared):
            os.unlink(self.at(name))
        os.rmdir(self.shared)


@pytest.fixture
def ground(tmp_path):
    """A directory of the machine's root, which alone `run` can start a command in."""
    return tmp_path


@pytest.fixture
def place(bench):
    place = Place(bench)
    yield place
    place.close()


@pytest.fixture(scope="module")
def ordinary():
    """What there is to compare with, by the way to get it; filled by the first test that asks."""
    return {}


def below(caller, command):
    """*command* as that caller runs it."""
    return [*shlex.split(CALLERS.get(caller, "")), *command]


def serves(mnt):
    """The union reads and writes, also more than a limit of the caller's."""
    content = os.urandom(100_000)
    with open(os.path.join(mnt, "new"), "wb") as file:
        file.write(content)
    with open(os.path.join(mnt, "new"), "rb") as new, open(os.path.join(mnt, "file")) as old:
        return (new.read(), old.read()) == (content, "lower\n")


def by_mount(place, caller):
    """Mount, and tell what the daemon is like."""
    bench = place.bench
    mount = [place.at("unionfs"), "mount", "-o", place.layers(), bench.at("mnt")]
    done = bench.run(below(caller, mount), stdin=subprocess.DEVNULL)
    assert (done.status, done.out) == (0, "")
    said = place.daemon(bench.unionfs("status mnt").out)
    assert serves(bench.at("mnt"))
    assert bench.unionfs("umount mnt").status == 0
    return said


@pytest.mark.parametrize("caller", CALLERS)
def test_a_daemon_is_the_same_whoever_mounts(place, caller, ordinary):
    expected = ordinary.get("mount") or ordinary.setdefault("mount", by_mount(place, ""))
    assert by_mount(place, caller) == expected


@pytest.fixture
def machine(place):
    machine = Machine(place.bench)
    yield machine
    machine.close()


def by_mount_8(machine, place, caller):
    """Have mount(8) mount, and tell what the daemon is like."""
    mount = ["mount", "-t", "fuse.unionfs", "-o", place.layers(), "unionfs", place.bench.at("mnt")]
    done = machine.run(*below(caller, mount))
    assert (done.status, done.out) == (0, "")
    said = place.daemon(machine.run("/usr/local/sbin/unionfs", "status", "mnt").out)
    assert serves(f"/proc/{machine.holder.pid}/root{place.bench.at('mnt')}")
    assert machine.run("/usr/local/sbin/unionfs", "umount", "mnt").status == 0
    return said


@pytest.mark.parametrize("caller", FOR_MOUNT_8)
def test_a_daemon_is_the_same_whoever_asks_mount_8(machine, place, caller, ordinary):
    expected = ordinary.get("mount") or ordinary.setdefault("mount", by_mount(place, ""))
    assert by_mount_8(machine, place, caller) == expected


def by_run(place, caller):
    """Run a command, and tell what the daemon and the command are like."""
    tell = (
        f"set $$; {{ . {place.at('command')}; }} >{place.at('command.out')};"
        f" read daemon rest </proc/$PPID/task/$PPID/children;"
        f" {place.at('daemon')} $daemon >{place.at('daemon.out')}"
    )
    run = [place.at("unionfs"), "run", "-q", "--", "sh", "-c", tell]
    assert place.bench.run(below(caller, run), stdin=subprocess.DEVNULL).status == 0
    return place.said("daemon.out"), place.said("command.out")


def alone(place, caller):
    """Run the command without `unionfs run`, and tell what it is like."""
    tell = f"set $$; {{ . {place.at('command')}; }} >{place.at('command.out')}"
    shell = below(caller, ["sh", "-c", tell])
    assert place.bench.run(shell, stdin=subprocess.DEVNULL).status == 0
    return place.said("command.out")


@pytest.mark.parametrize("caller", SORTS)
def test_a_command_of_run_has_what_its_caller_had_and_its_daemon_has_not(place, caller, ordinary):
    expected = ordinary.get("run") or ordinary.setdefault("run", by_run(place, "")[0])
    daemon, command = by_run(place, caller)
    assert command == alone(place, caller)
    assert daemon == expected


def test_whoever_reads_what_a_mount_says_comes_to_the_end(place):
    """The caller's pipes end with the command, whichever descriptor they were given by."""
    bench = place.bench
    mount = shlex.join([place.at("unionfs"), "mount", "-o", place.layers(), bench.at("mnt")])
    for way in (f"x=$({mount}); echo $x", f"{mount} 2>&1 | cat", f"x=$({mount} 7>&1)"):
        assert bench.run(["sh", "-c", way]) == (0, "" if "echo" not in way else "\n", "")
        assert bench.unionfs("umount mnt").status == 0


def test_a_lock_of_the_callers_ends_with_the_command(place):
    bench = place.bench
    mount = [place.at("unionfs"), "mount", "-o", place.layers(), bench.at("mnt")]
    assert bench.run(["flock", bench.at("lock"), *mount]) == (0, "", "")
    assert bench.run(["flock", "--nonblock", bench.at("lock"), "true"]).status == 0
    assert bench.unionfs("umount mnt").status == 0


def test_run_leaves_its_output_to_the_command(place):
    """Who reads it comes to the end when the command has closed it, though it goes on."""
    words = [place.at("unionfs"), "run", "-q", "--", "sh", "-c", "echo said; exec >&-; read line"]
    run = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert run.stdout.read() == "said\n"
    assert run.poll() is None
    run.communicate("\n", timeout=SECONDS)
    assert run.returncode == 0


@pytest.mark.parametrize("number", ["INT", "HUP"])
def test_in_the_foreground_what_the_caller_ignores_is_ignored(place, number):
    """As with nohup(1), or `&` in a script: that the terminal is gone says nothing then."""
    bench = place.bench
    mount = [place.at("unionfs"), "mount", "-vf", "-o", place.layers(), bench.at("mnt")]
    daemon = subprocess.Popen(
        ["env", f"--ignore-signal={number}", *mount], stderr=subprocess.PIPE, text=True
    )
    wait_for(bench.mounts)
    daemon.send_signal(getattr(signal, f"SIG{number}"))
    assert serves(bench.at("mnt"))
    daemon.send_signal(signal.SIGTERM)
    said = daemon.communicate(timeout=SECONDS)[1]
    assert re.findall("SIG.*: unmounting", said) == ["SIGTERM: unmounting"]
    assert (daemon.returncode, bench.mounts()) == (0, [])


def test_a_hang_up_ends_a_daemon_in_the_foreground_well(place):
    bench = place.bench
    mount = [place.at("unionfs"), "mount", "-f", "-o", place.layers(), bench.at("mnt")]
    daemon = subprocess.Popen(mount)
    wait_for(bench.mounts)
    daemon.send_signal(signal.SIGHUP)
    assert daemon.wait(SECONDS) == 0
    assert bench.mounts() == []


def test_where_the_working_directory_is_gone_absolute_names_do(place):
    bench = place.bench
    unionfs = place.at("unionfs")
    mount = [unionfs, "mount", "-o", place.layers(), bench.at("mnt")]
    gone = ["sh", "-c", 'mkdir gone && cd gone && rmdir ../gone && exec "$@"', "sh"]
    assert bench.run([*gone, *mount]) == (0, "", "")
    assert bench.run([*gone, unionfs, "umount", bench.at("mnt")]) == (0, "", "")
    assert bench.run([*gone, unionfs, "run", "-q", "--", "pwd"]) == (0, "/\n", "")
    for line in ("mount --lower / m", "umount m", "status m", "diff m", "run --keep k -- true"):
        result = bench.run([*gone, unionfs, *line.split()])
        why = "unionfs: the working directory is gone or out of reach: give absolute names\n"
        assert result == (2, "", why)


def test_too_few_descriptors_are_told(place):
    """A hard limit can only be lifted with CAP_SYS_RESOURCE."""
    bench = place.bench
    words = [place.at("unionfs"), "mount", "-o", place.layers(), bench.at("mnt")]
    without = ["setpriv", "--bounding-set=-sys_resource"]
    result = bench.run(["prlimit", "--nofile=10:10", *without, *words])
    assert (result.status, result.out) == (2, "")
    assert result.err == "unionfs: the layers cannot be opened: Too many open files\n"


def test_limits_are_lifted_as_far_as_this_process_may(place):
    script = (
        "import resource; from unionfs.host import inherited; inherited.lift_limits();"
        "print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    )
    result = place.bench.run(["prlimit", "--nofile=100:200", sys.executable, "-c", script])
    with open("/proc/self/status") as lines:
        bits = next(int(line.split()[1], 16) for line in lines if line.startswith("CapEff"))
    with open("/proc/sys/fs/nr_open") as file:
        most = int(file.read()) if bits >> 24 & 1 else 200  # CAP_SYS_RESOURCE
    assert (result.status, result.out) == (0, f"{most}\n")


def test_a_mount_point_is_found_by_its_bytes_in_any_locale(bench):
    os.mkdir(bench.at("ü"))
    bench.environment |= {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    daemon = bench.start("mount -f --lower lower --ram ü", stderr=subprocess.PIPE)
    wait_for(bench.mounts)
    daemon.send_signal(signal.SIGTERM)
    assert daemon.communicate(timeout=SECONDS)[1] == ""
    assert (daemon.returncode, bench.mounts()) == (0, [])


def test_names_that_are_no_text_can_be_logged(monkeypatch):
    lines = []
    monkeypatch.setattr(syslog, "syslog", lambda _priority, line: lines.append(line.encode()))
    logger = logging.getLogger("unionfs.test")
    monkeypatch.setattr(logger, "propagate", False)  # to pytest, which sends text between processes
    logger.addHandler(logs._Syslog())  # noqa: SLF001
    logger.warning("'%s' is full", os.fsdecode(b"\xff"))
    assert lines == [rb"'\udcff' is full"]
