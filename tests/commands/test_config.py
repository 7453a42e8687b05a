"""`unionfs config`: explained, proposed, and refused with the line that is wrong."""

import tomllib

import pytest

from tests.trees import Link, plant
from unionfs.mounting import tomlfile

TOML = """\
persist = ["/etc/passwd", "/etc/ssh", "!/etc/ssh/moduli", "/var/run/x", "/etc/ssh/sshd_config"]
empty = ["/tmp", "/etc/ssh"]
options = "noatime"
[state]
disk = "LABEL=state"
"""

EXPLAINED = """\
file         /etc/unionfs.toml
lower        / is only read
scratch      what is changed goes to RAM, gone at each mount
state        what persists goes to the disk LABEL=state, and stays
             where it cannot be had, all goes to scratch, with a warning
persist      /etc/passwd
             /etc/ssh
             /etc/ssh/moduli does not
             /var/run/x
             /etc/ssh/sshd_config
planted      /tmp begins empty
             /etc/ssh begins empty
options      noatime
doubt        /etc/unionfs.toml, line 1: '/var/run/x' is below a symlink, where nothing persists: \
say /run/x
             /etc/unionfs.toml, line 1: '/etc/ssh/sshd_config' changes nothing: rules before it \
say the same
             '/etc/ssh' (empty) persists: it begins as it was
"""


@pytest.fixture
def root(tmp_path):
    return plant(tmp_path / "root", {"etc": {"unionfs.toml": TOML}, "var": {"run": Link("/run")}})


def told(bench, root, line):
    """Return what is said, with the root left out of the files' names."""
    status, out, err = bench.unionfs(f"{line} --root {root}")
    return status, out.replace(str(root), ""), err.replace(str(root), "")


def test_check_explains_and_doubts(bench, root):
    assert told(bench, root, "config --check") == (0, EXPLAINED, "")


def test_a_file_that_is_named_is_one_of_this_machine(bench):
    bench.write("own.toml", "lower = 'x'")
    status, _, err = bench.unionfs("config --check own.toml")
    assert (status, err) == (2, "unionfs: own.toml, line 1: 'x' is no absolute path: say '/x'\n")


def test_check_takes_fedoras_file_where_there_is_no_other(bench, root):
    (root / "etc/unionfs.toml").unlink()
    plant(root / "etc/sysconfig", {"readonly-root": "READONLY=yes\nRW_LABEL=rw\n"})
    (root / "etc/statetab").write_text("/etc/passwd\n")
    status, out, err = told(bench, root, "config --check")
    assert (status, err) == (0, "")
    assert out.splitlines()[:5] == [
        "file         /etc/sysconfig/readonly-root",
        "lower        / is only read",
        "scratch      what is changed goes to the disk LABEL=rw, gone at each mount",
        "             where that cannot be had, RAM",
        "persist      /etc/passwd",
    ]


@pytest.mark.parametrize(
    ("content", "line", "said"),
    [
        (
            "persists = []",
            "config --check",
            "/etc/unionfs.toml, line 1: 'persists' is unknown: did",
        ),
        ("lower = '/etc'", "config --boot", "/etc/unionfs.toml: at boot / has to be a lower layer"),
        (None, "config --check", "there is neither /etc/unionfs.toml nor /etc/sysconfig/readonly-"),
        (None, "config --check /etc/x.toml", "/etc/x.toml does not exist: 'unionfs config --sug"),
        (None, "config --check /etc/x", "/etc/x does not exist"),
    ],
)
def test_what_is_wrong_is_refused_with_status_two(bench, root, content, line, said):
    (root / "etc/unionfs.toml").unlink()
    if content:
        (root / "etc/unionfs.toml").write_text(content)
    status, out, err = told(bench, root, line)
    assert (status, out) == (2, "")
    assert err.startswith(f"unionfs: {said}")


@pytest.mark.parametrize(
    ("toml", "lines", "said"),
    [
        (TOML, ["scratch now tmpfs -", "state wait LABEL=state -"], ""),
        (
            (
                "persist=['/a']\n[scratch]\nram='1g'\n"
                "[state]\ndisk='/dev/vdb'\nmount_options='nodev'\nrequired=true"
            ),
            ["scratch now tmpfs:size=1g -", "state wait /dev/vdb nodev", "required"],
            "",
        ),
        # Nothing persists: no state is waited for.
        ("[state]\ndisk='LABEL=state'", ["scratch now tmpfs -"], ""),
        # Directories: on which disk they are stands in fstab.
        (
            "persist=['/a']\nscratch.directory='/data'\nstate.directory='/data/x/state'",
            ["scratch wait UUID=1 noatime", "state wait UUID=1 noatime x/state"],
            "",
        ),
        (
            "persist=['/a']\nstate.directory='/srv/state'",
            ["scratch now tmpfs -"],
            "unionfs: state: the directory /srv/state cannot be used at boot\n",
        ),
    ],
)
def test_the_boot_scripts_are_told_places_word_by_word(bench, root, toml, lines, said):
    (root / "etc/unionfs.toml").write_text(toml)
    (root / "etc/fstab").write_text("/dev/x / ext4\nUUID=1 /data ext4 noatime,nofail 0 2\n")
    status, out, err = told(bench, root, "config --boot")
    assert (status, err) == (0, said)
    assert out.splitlines() == ["file - /etc/unionfs.toml", *lines]


INSTALLED = {
    "etc": {
        "passwd": "", "shadow": "", "machine-id": "", "ssh": {"ssh_host_rsa_key": ""},
        "NetworkManager": {"system-connections": {}},
    },
    "var": {
        "lib": {"bluetooth": {}, "systemd": {"timesync": Link("../private/systemd/timesync")}},
        "log": Link("/data/log"),
    },
    "data": {"log": {"journal": {}}},
    "home": {},
}  # fmt: skip


def test_what_is_installed_is_proposed_with_its_reason_and_as_a_file_that_can_be_used(
    bench, tmp_path
):
    root = plant(tmp_path / "root", INSTALLED)
    status, out, err = bench.unionfs(f"config --suggest --root {root}")
    assert (status, err) == (0, "")
    assert tomllib.loads(out)["persist"] == [
        "/etc/ssh/ssh_host_*",
        "/etc/machine-id",
        "/etc/passwd",
        "/etc/shadow",
        "/etc/NetworkManager/system-connections",
        "/var/lib/bluetooth",
        "/var/lib/systemd/timesync",
        "/data/log/journal",
    ]
    assert "    # bluetooth pairings: else all devices have to be paired again\n" in out
    assert tomlfile.parsed(out).persist == tuple(tomllib.loads(out)["persist"])


def test_where_nothing_is_installed_nothing_is_proposed(bench, tmp_path):
    status, out, _ = bench.unionfs(f"config --suggest --root {plant(tmp_path / 'root', {})}")
    assert (status, tomllib.loads(out)["persist"]) == (0, [])
