"""`unionfs run`: the command sees a root of its own; the machine sees nothing of it."""

import os
import pty
import signal
import subprocess

import pytest

from tests.commands.conftest import SECONDS, wait_for


@pytest.fixture
def ground(tmp_path):
    """A directory of the machine's root, which alone the command can change."""
    return tmp_path


@pytest.fixture
def probe(bench):
    """A file of the machine that is there before and after."""
    bench.write("probe", "before\n")
    return bench


@pytest.mark.parametrize(
    ("command", "status"),
    [
        ("true", 0),
        ("false", 1),
        ("sh -c 'exit 77'", 77),
        ("sh -c 'kill -9 $$'", 137),
        ("sh -c 'kill -TERM $$'", 143),
        ("no-such-command", 127),
        ("/no/such/command", 127),
        ("/etc/passwd", 126),
        ("/etc", 126),
    ],
)
def test_the_exit_status_is_passed_through(bench, command, status):
    assert bench.unionfs(f"run -q -- {command}").status == status


def test_what_the_command_changes_is_not_there_afterwards(probe):
    script = "echo after >probe; echo new >new; mkdir /etc/unionfs-test; cat probe new"
    result = probe.unionfs(f"run -q -- sh -c '{script}; ls -d /etc/unionfs-test'")
    assert result == (0, "after\nnew\n/etc/unionfs-test\n", "")
    assert probe.read("probe") == "before\n"
    assert not os.path.exists(probe.at("new"))
    assert not os.path.exists("/etc/unionfs-test")


def test_what_the_kernel_provides_is_in_place(bench):
    script = "test -e /proc/self/exe && test -d /sys/kernel && echo x >/dev/null && test -d /run"
    assert bench.unionfs(f"run -q -- sh -ec '{script}; pwd; id -u'").out == f"{bench.path}\n0\n"


def test_input_and_output_are_the_commands(bench):
    result = bench.unionfs("run -q -- sh -c 'cat; echo to stderr >&2'", input="to stdin\n")
    assert result == (0, "to stdin\n", "to stderr\n")


def test_no_descriptor_of_ours_reaches_the_command(bench):
    result = bench.unionfs("run -q -- sh -c 'ls /proc/$$/fd'", stdin=subprocess.DEVNULL)
    assert result.out.split() == ["0", "1", "2"]


def test_the_terminal_is_the_commands(bench):
    pid, fd = pty.fork()
    if not pid:
        words = bench.words("run -q -- sh -c 'test -t 0 && test -t 1 && tty && read a && echo =$a'")
        os.execve(words[0], words, bench.environment)
    os.write(fd, b"typed\n")
    said = b""
    while b"=typed" not in said:
        said += os.read(fd, 1000)
    assert b"/dev/pts/" in said
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    os.close(fd)


def test_ctrl_c_reaches_the_command_once(bench):
    bench.write(
        "count.sh",
        """n=0; trap 'n=$((n+1))' INT; echo ready
        while [ $n = 0 ]; do sleep 0.05; done
        sleep 0.3; exit 4$n
        """,
    )
    pid, fd = pty.fork()
    if not pid:
        # Where it is ignored from the start, as below `nohup ... &`, a shell cannot trap it.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        words = bench.words("run -q -- sh {bench}/count.sh")
        os.execve(words[0], words, bench.environment)
    said = b""
    while b"ready" not in said:
        said += os.read(fd, 1000)
    os.write(fd, b"\x03")
    status = os.waitpid(pid, 0)[1]
    os.close(fd)
    assert os.waitstatus_to_exitcode(status) == 41


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_signals_are_passed_on(bench, number):
    script = f"trap 'exit 42' {number.value}; echo ready; while :; do sleep 0.05; done"
    process = bench.start(f'run -q -- sh -c "{script}"', stdout=subprocess.PIPE)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    process.communicate(timeout=SECONDS)
    assert process.returncode == 42


def test_what_goes_on_in_the_background_is_ended(bench):
    result = bench.unionfs("run -q -- sh -c 'sleep 1000 & setsid sleep 1000 & exit 5'")
    assert (result.status, result.err) == (5, "")
    assert bench.processes() == []


@pytest.mark.parametrize("victim", ["command", "daemon"])
def test_nothing_stays_behind_when_killed(bench, victim):
    bench.environment["TMPDIR"] = bench.at("work")
    process = bench.start(
        "run -q -- sh -c 'sleep 1000 & echo ready; sleep 1000'",
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout.readline() == "ready\n"
    with open(f"/proc/{process.pid}/task/{process.pid}/children") as file:
        children = file.read().split()
    os.kill(process.pid if victim == "command" else int(children[0]), signal.SIGKILL)
    process.communicate(timeout=SECONDS)
    assert process.returncode == (-9 if victim == "command" else 1)
    wait_for(lambda: not bench.processes())
    assert bench.mounts() == []
    assert bench.ls("work") == []


def test_kept_changes_are_kept_and_gone_on_from(probe):
    assert probe.unionfs("run -q --keep kept -- sh -c 'echo after >probe; rm lower/file'") == (
        0,
        "",
        "",
    )
    assert probe.read("probe") == "before\n"
    assert probe.ls("kept") == ["upper", "work"]
    assert probe.read(f"kept/upper{probe.path}/probe") == "after\n"
    result = probe.unionfs("run -q --keep kept -- sh -c 'cat probe; ls -A lower'")
    assert result == (0, "after\n", "")
    assert probe.ls("lower") == ["file"]


def test_another_lower_is_the_root(bench):
    for name in ("proc", "dev", "sys", "run", "bin"):
        os.mkdir(bench.at(f"lower/{name}"))
    subprocess.run(["cp", "/bin/busybox", bench.at("lower/bin/busybox")], check=False)
    script = "import os; print(sorted(os.listdir('/')))"
    if not os.path.exists(bench.at("lower/bin/busybox")):
        result = bench.unionfs(f'run -q --lower lower --lower / -- python3 -c "{script}"')
        assert "'file'" in result.out
        assert result.status == 0
        return
    result = bench.unionfs("run -q --lower lower -- /bin/busybox ls /")
    assert result.out.split() == ["bin", "dev", "file", "proc", "run", "sys"]


def test_the_size_of_the_ram_is_honoured(bench):
    script = "dd if=/dev/zero of=/big bs=1M count=8"
    result = bench.unionfs(f"run -q --ram 4M -- {script}")
    assert result.status == 1
    assert "No space left on device" in result.err
    assert not os.path.exists("/big")


def test_the_summary_names_what_changed(probe):
    result = probe.unionfs("run -- sh -c 'echo after >probe; rm lower/file; mkdir fresh'")
    assert result.status == 0
    for line in (f"added    {probe.path}/fresh", f"deleted  {probe.path}/lower/file",
                 f"changed  {probe.path}/probe"):  # fmt: skip
        assert line in result.err
    assert result.err.endswith("thrown away\n")
    assert probe.unionfs("run -- true").err == "unionfs: nothing was changed\n"
