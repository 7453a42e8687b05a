"""Fedora's readonly-root, in a root of a few files."""

import pytest

from tests.trees import Link, plant
from unionfs.mounting import readonlyroot
from unionfs.mounting.configuration import Configuration, Directory, Disk, Planted, Ram
from unionfs.mounting.options import Refused

FILE = "/etc/sysconfig/readonly-root"

# As Fedora ships it.
STOCK = """\
# Set to 'yes' to mount the system filesystems read-only.
READONLY=no
TEMPORARY_STATE=no
RW_MOUNT=/var/lib/stateless/writable
RW_LABEL=stateless-rw
RW_OPTIONS=
STATE_LABEL=stateless-state
STATE_MOUNT=/var/lib/stateless/state
STATE_OPTIONS=
CLIENTSTATE=
SLAVE_MOUNTS=yes
"""
ON_SCRATCH = Disk("LABEL=stateless-rw", "/var/lib/stateless/writable", awaited=False)
ON_STATE = Disk("LABEL=stateless-state", "/var/lib/stateless/state")


@pytest.fixture
def read(tmp_path):
    """Read what a root with these files asks for; *etc* is its /etc."""

    def read(text=STOCK, var=None, run=None, **etc):
        etc = {name.replace("_", "."): tree for name, tree in etc.items()}
        etc["sysconfig"] = {"readonly-root": text}
        plant(tmp_path / "root", {"etc": etc, "var": var or {}, "run": run or {}, "tmp": {}})
        return again()

    def again():
        return readonlyroot.read(f"{tmp_path}/root{FILE}", str(tmp_path / "root"))

    read.again = again
    return read


def texts(configuration):
    return [rule.text for rule in configuration.rules]


def notes(configuration):
    """Return what is said, the file by its name alone."""
    return [note.replace(configuration.source, FILE) for note in configuration.notes]


def test_what_fedora_ships_is_scratch_by_label_or_in_ram_and_no_state(read, tmp_path):
    assert read() == Configuration(
        source=f"{tmp_path}/root{FILE}",
        lowers=("/",),
        scratch=(ON_SCRATCH, Ram()),
        state=(Disk("LABEL=stateless-state", "/var/lib/stateless/state", awaited=False),),
        state_adds_rules=True,
    )


def test_state_is_waited_for_when_something_is_to_persist(read):
    found = read(statetab="/etc/passwd\n")
    assert found.state == (ON_STATE,)
    assert texts(found) == ["/etc/passwd"]


def test_fstab_comes_before_labels(read):
    fstab = """\
# scratch and state
/dev/vdb /var/lib/stateless/writable ext4 defaults,noauto,noatime 0 0
UUID=ab /var/lib/stateless/state/ xfs x-systemd.automount 0 0
/dev/vdc /srv ext4
"""
    found = read(STOCK + "STATE_OPTIONS='-o nodev'", fstab=fstab, statetab="/etc/x\n")
    assert found.scratch == (
        Disk("/dev/vdb", "/var/lib/stateless/writable", "ext4", "noatime"), ON_SCRATCH, Ram(),
    )  # fmt: skip
    assert found.state == (Disk("UUID=ab", "/var/lib/stateless/state", "xfs", "nodev"), ON_STATE)


def test_fstab_may_have_tmpfs_or_a_bind_mount_there(read):
    fstab = (
        "tmpfs /var/lib/stateless/writable tmpfs size=1g,noauto 0 0\n"
        "/data/of\\040it /var/lib/stateless/state none bind 0 0\n"
    )
    found = read(fstab=fstab, statetab="/etc/x\n")
    assert found.scratch == (Ram("size=1g"), ON_SCRATCH, Ram())
    assert found.state == (Directory("/data/of it"), ON_STATE)


@pytest.mark.parametrize(
    ("line", "label"),
    [
        ("RW_LABEL=plain", "plain"),
        ("  export RW_LABEL='in single'  # a comment", "in single"),
        ('RW_LABEL="in \\"double\\""', 'in "double"'),
        ("RW_LABEL=a'b c'\"d\"e\\ f;", "ab cde f"),
        ("RW_LABEL=a#b # c", "a#b"),
        ("RW_LABEL='$HOME'", "$HOME"),
        ("RW_LABEL=it\\'s", "it's"),
        ("RW_LABEL=''a\"\"", "a"),
        ('RW_LABEL="\\$a"\\`b', "$a`b"),
    ],
)
def test_values_are_quoted_as_in_sh(read, line, label):
    assert read(f"\n#{STOCK}\n{line}\n").scratch[0].device == f"LABEL={label}"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("RW_LABEL=$NAME", "what $ and ` stand for is not known here; write it out"),
        ('RW_LABEL="`hostname`"', "what $ and ` stand for is not known here; write it out"),
        ("RW_LABEL=\"it's $x's\"", "what $ and ` stand for is not known here; write it out"),
        ("RW_LABEL='open", "'RW_LABEL='open' is not understood; say NAME=VALUE"),
        ("RW_LABEL = x", "'RW_LABEL = x' is not understood; say NAME=VALUE"),
        ("if true; then", "'if true; then' is not understood; say NAME=VALUE"),
        ("RW_MOUNT=var/x", "RW_MOUNT=var/x is no absolute path; say RW_MOUNT=/var/x"),
    ],
)
def test_a_line_that_is_not_understood_is_named(read, line, says):
    with pytest.raises(Refused) as caught:
        read(f"READONLY=no\n{line}\n")
    assert f"{FILE}, line 2: " in str(caught.value)
    assert says in str(caught.value)


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises(Refused, match="/etc/sysconfig/readonly-root does not exist"):
        readonlyroot.read(FILE, str(tmp_path))


def test_options_are_those_that_mount_would_get(read):
    assert read('RW_OPTIONS="-o size=1g -onosuid"').scratch == (Ram("size=1g,nosuid"),)
    found = read("RW_OPTIONS='size=1g --verbose'")
    assert found.scratch == (Ram("size=1g"),)
    assert tuple(notes(found)) == (
        f"{FILE}, line 1: '--verbose' of RW_OPTIONS means nothing here: left out",
    )


def test_state_of_a_client_may_be_a_directory_and_not_on_a_server(read, tmp_path):
    plant(tmp_path / "root", {"clients": {"anna": {}}})
    assert read("CLIENTSTATE=/clients").state == (Directory("/clients"),)
    (tmp_path / "root/etc/hostname").write_text("anna\n")
    assert read.again().state == (Directory("/clients/anna"),)


def test_state_on_a_server_is_refused_with_the_reason(read):
    found = read("CLIENTSTATE=10.0.0.1:/state")
    assert found.state == ()
    assert notes(found)[0].startswith(f"{FILE}, line 1: '10.0.0.1:/state' is on a server; NFS has")


def test_fedoras_own_service_is_not_to_run_as_well(read):
    (note,) = notes(read("READONLY=yes"))
    assert note.startswith(
        f"{FILE}, line 1: READONLY=yes makes Fedora's own readonly-root mount over"
    )


def test_statetab_has_paths_and_globs_in_any_number(read):
    found = read(
        statetab="# comment\n/etc/ssh/ssh_host_* /etc/machine-id\n\n",
        statetab_d={"b": "/var/b/\n", "a": "/var/a\n", "c.rpmsave": "/no\n", "d~": "/no\n"},
    )
    assert texts(found) == ["/etc/ssh/ssh_host_*", "/etc/machine-id", "/var/a", "/var/b"]
    assert found.rules[1].where == "/etc/statetab, line 2"


def test_symlinks_above_a_path_are_followed_as_a_bind_mount_does(read):
    var = {"run": Link("/run"), "mail": Link("spool/mail"), "spool": {"mail": {}}}
    found = read(var=var, statetab="/var/run/x/y /var/mail /var/mail/anna /var/spool/../log\n")
    assert texts(found) == ["/run/x/y", "/var/mail", "/var/spool/mail/anna", "/var/log"]


def test_a_bad_path_is_named_with_its_line(read):
    with pytest.raises(
        Refused, match=r"/etc/statetab\.d/x, line 2: bad rule 'etc/passwd': the path"
    ):
        read(statetab_d={"x": "/fine\netc/passwd\n"})


def test_of_rwtab_only_what_shows_less_than_the_root_is_planted(read):
    found = read(
        var={"log": {"a": {}, "b": {}, "file": ""}, "tmp": {}},
        rwtab="dirs\t/var/log/[ab]\nempty /tmp\nempty /not/there\nempty /var/log/file\n",
        rwtab_d={"more": "files /etc/adjtime\nempty\t/var/tmp extra\nfull /etc\nempty\n"},
        run={"initramfs": {"rwtab": "empty /run/initramfs\n"}},
    )
    assert found.planted == (
        Planted("dirs", "/var/log/a"),
        Planted("dirs", "/var/log/b"),
        Planted("empty", "/tmp"),
        Planted("empty", "/var/tmp"),
        Planted("empty", "/run/initramfs"),
    )
    assert tuple(notes(found)) == (
        "/etc/rwtab.d/more, line 3: 'full' is none of empty, dirs and files: left out",
    )


def test_state_may_have_rules_of_its_own(read, tmp_path):
    read(statetab="/etc/root\n", statetab_d={"own": "/etc/own\n"})
    state = plant(
        tmp_path / "state",
        {"etc": {"statetab": "/etc/state\n", "statetab.d": {"new": "/etc/new\n"}}, "files": "/f\n"},
    )
    rules = readonlyroot.rules_on(str(state), str(tmp_path / "root"))
    assert [rule.text for rule in rules] == [
        "/etc/statetab", "/etc/state", "/etc/statetab.d/new", "/etc/new", "/etc/own", "/f",
    ]  # fmt: skip
