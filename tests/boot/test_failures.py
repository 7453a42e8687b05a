"""What a machine does when something fails: it comes up, its root unharmed, and says so."""

import re

import pytest

from .guest import Disk
from .scripts import BARE

LOST = "CHANGES ARE KEPT IN RAM AND WILL BE LOST"
SAYS = """
echo system=$(systemctl is-system-running --wait)
echo mode=$(cat /run/unionfs/mode)
echo root=$(findmnt -no FSTYPE /)
echo ssh=$(systemctl is-active ssh)
echo writable=$(touch /etc/new 2>&- && echo yes)
echo unharmed=$(touch /ro/etc/new 2>&- || echo yes)
echo motd=$(grep -c '{said}' /run/motd.d/unionfs)
echo journal=$(journalctl -b -t unionfs | grep -c '{said}')
"""
UP = {
    "system": "running", "mode": "RAM upper", "root": "fuse.pyunionfs", "ssh": "active",
    "writable": "yes", "unharmed": "yes", "motd": "1", "journal": "1",
}  # fmt: skip
OVERLAY = {**UP, "mode": "overlayfs instead of the union", "root": "overlay"}
DEAD = "the daemon cannot serve"

# What a root has lost, as after a bad edit or a half upgrade.
PYTHON = {"/usr/bin/python3": None}
CONFIGURATION = {
    "/usr/lib/python3/dist-packages/unionfs/mounting/options.py": "this is no Python\n"
}


@pytest.fixture
def losing(machine, image, tmp_path):
    """Make a machine whose root has lost something."""

    def make(lost):
        root = image.altered(str(tmp_path / "root.ext4"), lost) if lost else image.ext4
        return machine(root=Disk(root, "root", writable=False))

    return make


@pytest.mark.parametrize(
    ("words", "lost", "expected", "said"),
    [
        ("unionfs=tmpfs module_blacklist=fuse", {}, OVERLAY, DEAD),
        ("unionfs=tmpfs", PYTHON, OVERLAY, DEAD),
        ("unionfs=tmpfs", CONFIGURATION, OVERLAY, DEAD),
        ("unionfs=LABEL=none unionfs.wait=3", {}, UP, f"{LOST}: the disk LABEL=none cannot"),
        ("unionfs=tmpfs:size=1m", {}, UP, "less than 16 MB is too little"),
        ("unionfs=tmpf", {}, UP, f"{LOST}: .tmpf. on the kernel command line is unknown"),
    ],
    ids=["FUSE", "Python", "configuration", "disk", "size", "word"],
)
def test_a_machine_that_lacks_something_comes_up_and_says_so(losing, words, lost, expected, said):
    ended = losing(lost).boot(words, SAYS.format(said=said))
    assert ended.values() == expected
    assert said.replace(".tmpf.", "'tmpf'") in ended.console
    assert ended.down == "Power down"


def test_without_fuse_and_overlayfs_the_root_is_read_only_and_reachable(machine):
    ended = machine().boot("unionfs=tmpfs module_blacklist=fuse,overlay", SAYS.format(said=DEAD))
    expected = {**UP, "mode": "read-only root", "root": "ext4", "writable": ""}
    assert {**ended.values(), "system": "running"} == expected  # degraded, as any read-only root
    assert ended.down == "Power down"


FILL = """
rm -f /etc/x
head -c 1G /dev/zero >/root/fill 2>&-
echo full=$(echo text >/etc/x 2>&- || echo yes)
echo reads=$(wc -l </etc/passwd | grep -c .),$(/bin/ls /usr/bin | grep -c '^ls$')
full='\\(100\\|9[5-9]\\) % full'
for second in $(seq 60); do grep -q "$full" /run/motd.d/unionfs && break; sleep 1; done
echo motd=$(grep -c "$full" /run/motd.d/unionfs)
echo login=$(echo exit | script -qc "login -f root" /dev/null | grep -c "$full")
echo journal=$(journalctl -b | grep -c "$full")
rm /root/fill && echo again=$(echo text >/etc/x && cat /etc/x)
echo system=$(systemctl is-system-running)
"""


def test_a_full_ram_upper_is_said_and_can_be_emptied(machine):
    ended = machine().boot(f"{BARE} unionfs=tmpfs:size=64m", FILL)
    assert ended.values() == {
        "full": "yes", "reads": "1,1", "motd": "1", "login": "1", "journal": "1",
        "again": "text", "system": "running",
    }  # fmt: skip
    assert re.search(r"upper is (100|9[5-9]) % full", ended.console)
    assert ended.down == "Power down"


# Those that take memory are killed first, and start again; PID 1 and the daemon must not be.  They
# are units of their own: PID 1 ends a unit in which the kernel has killed a process.
PRESSURE = """
daemon=$(pgrep '^unionfs$')
echo -900 >/proc/self/oom_score_adj
hog="taken = []; [taken.append(b'x' * (1 << 24)) for _ in iter(int, 1)]"
how="-p OOMScoreAdjust=1000 -p OOMPolicy=continue -p Restart=always -p StartLimitIntervalSec=0"
for number in 1 2 3; do systemd-run -q --unit hog$number $how python3 -c "$hog"; done
rounds=0 end=$(($(date +%s) + 60))
while [ "$(date +%s)" -lt $end ]; do
    echo $rounds >/root/f && cat /root/f >/dev/null && cp /bin/true /root/run && /root/run &&
        rm /root/run && ls /usr/share >/dev/null && rounds=$((rounds + 1)) || echo failed=yes
done
systemctl kill -s KILL hog1 hog2 hog3; systemctl stop hog1 hog2 hog3
echo killed=$(($(dmesg | grep -c 'Out of memory: Killed process') > 0))
echo spared=$(dmesg | grep 'Killed process' | grep -cE 'unionfs|systemd')
echo same=$(($(pgrep '^unionfs$') == daemon))
echo rounds=$rounds
"""


def test_the_root_answers_while_memory_has_run_out(machine):
    ended = machine(memory=512).boot(f"{BARE} unionfs=tmpfs", PRESSURE)
    values = ended.values()
    rounds = int(values.pop("rounds"))
    assert values == {"killed": "1", "spared": "0", "same": "1"}
    assert rounds >= 3, ended.report
    assert ended.down == "Power down"


@pytest.mark.parametrize(
    ("dead", "down"),
    [("halt", "System halted"), ("panic", "Kernel panic")],
)
def test_a_machine_whose_daemon_died_does_what_it_was_told(machine, upper, dead, down):
    script = "touch /etc/x; pkill -9 -f '^@unionfs$'; sleep 60"
    guest = machine(upper=upper)
    ended = guest.boot(f"{BARE} unionfs=LABEL=changes unionfs.dead={dead}", script, until=down)
    assert "unionfs: the daemon of / died (killed by SIGKILL)" in ended.console
    assert down in ended.console


def test_a_machine_whose_daemon_died_comes_back_by_itself(machine, upper):
    script = """
    if [ -e /root/killed ]; then
        echo back=$(systemctl is-system-running --wait),$(cat /root/killed)
    else
        echo synced >/root/killed
        pkill -9 -f '^@unionfs$'
        sleep 60
    fi
    """
    ended = machine(upper=upper).boot(f"{BARE} unionfs=LABEL=changes", script, comes_back=True)
    assert ended.values() == {"back": "running,synced"}
    assert "the daemon of / died (killed by SIGKILL): the machine restarts" in ended.console
    assert ended.down == "Restarting system"
