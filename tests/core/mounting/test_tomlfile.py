"""/etc/unionfs.toml: what it says, and what is said of each mistake, with its line."""

import pytest

from unionfs.mounting import tomlfile
from unionfs.mounting.configuration import Configuration, Directory, Disk, Planted, Ram, Rule
from unionfs.mounting.options import Refused

FILE = "/etc/unionfs.toml"

WHOLE = """\
lower = ["/image", "/"]
persist = [
    "/etc/passwd",   # accounts
    '/etc/ssh/ssh_host_*',
    "!/etc/ssh/moduli",
]
empty = ["/tmp/"]
dirs = ["/var/log"]
options = "noatime,fsync=strict"

[scratch]
ram = "25%"

[state]
disk = "LABEL=state"
mount_options = "noatime"
required = true
"""


def test_all_of_it():
    assert tomlfile.parsed(WHOLE) == Configuration(
        source=FILE,
        lowers=("/image", "/"),
        scratch=(Ram("size=25%"),),
        state=(Disk("LABEL=state", options="noatime"),),
        state_required=True,
        rules=(
            Rule("/etc/passwd", f"{FILE}, line 3"),
            Rule("/etc/ssh/ssh_host_*", f"{FILE}, line 4"),
            Rule("!/etc/ssh/moduli", f"{FILE}, line 5"),
        ),
        planted=(Planted("empty", "/tmp"), Planted("dirs", "/var/log")),
        options=("noatime,fsync=strict",),
    )


def test_nothing_is_the_root_over_ram():
    assert tomlfile.parsed("") == Configuration(source=FILE, lowers=("/",), scratch=(Ram(),))


def test_sides_may_be_directories_and_tables_inline():
    found = tomlfile.parsed(
        'scratch = { directory = "/data/scratch" }\nstate.directory = "/data/state/"\n'
    )
    assert found.scratch == (Directory("/data/scratch"),)
    assert found.state == (Directory("/data/state"),)


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("persist = [", "", "see toml.io for the form"),
        ('\nlower = "/\n', "line 2", "see toml.io for the form"),
        ("\npersists = []", "line 2", "'persists' is unknown: did you mean persist?"),
        ("zebra = 1", "line 1", "'zebra' is unknown: known are lower, persist, empty"),
        ("[state]\n\nlabel = 'x'", "line 3", "'label' is unknown in [state]: known are disk"),
        ("state = {dsk = 'x'}", "line 1", "'dsk' is unknown in [state]: did you mean disk?"),
        ("state.dsk = 'x'", "line 1", "'dsk' is unknown in [state]: did you mean disk?"),
        ("[stat]\n", "line 1", "'stat' is unknown: did you mean state?"),
        ("persist = '/etc'", "line 1", 'persist is a string: say persist = ["...", "..."]'),
        ("persist = [\n1]", "line 1", "persist has a number in it: each must be in quotes"),
        (
            "persist = [\n'/a',\n'etc/b',\n]\n[state]\ndirectory='/s'",
            "line 3",
            "bad rule 'etc/b': the path is not absolute; say '/etc/b'",
        ),
        ("persist = ['/a']", "line 1", "needs a place: say disk or directory in [state]"),
        ("lower = 5", "line 1", 'lower is a number: say lower = ["...", "..."]'),
        ("lower = []", "line 1", 'a union needs a lower layer: say lower = "/"'),
        ("lower = 'etc'", "line 1", "'etc' is no absolute path: say '/etc'"),
        ("empty = ['tmp']", "line 1", "'tmp' is no absolute path: say '/tmp'"),
        ("[scratch]\nram = 5", "line 2", 'ram is a number: say ram = "..."'),
        ("[scratch]\nram = 'big'", "line 2", "bad size 'big': give bytes with an optional k"),
        ("[scratch]\nram = '1g'\ndisk = '/dev/x'", "line 3", "ram and disk exclude each other"),
        ("[scratch]\nram = '1g'\nmount_options = 'x'", "line 3", "are those of a disk"),
        ("[state]\nram = '1g'", "line 2", "'ram' is unknown in [state]"),
        (
            "[state]\ndisk = 'state'",
            "line 2",
            "'state' is no disk: say LABEL=..., UUID=... or /dev",
        ),
        ("[state]\nrequired = 'yes'", "line 2", "required is a string: say required = true, or f"),
        ("state = 1", "line 1", "state is a number: say [state], and its keys below that"),
        ("options = 'fsync=never'", "line 1", "fsync is one of auto, strict, off"),
        ("options = ['ro',\n'upperdir=/x']", "line 2", "'upperdir' is no option here: say it in"),
        ("options = 'boot=on'", "line 1", "'boot' is no option here: the boot says it by itself"),
        ("options = 'noopen=on,loop=off'", "line 1", "noopen=on needs loop=on: leave loop=off out"),
        (
            "options = 'passthrough=all'\npersist = ['/a']\n[state]\ndirectory = '/s'",
            "line 1",
            "passthrough=all and a state directory exclude each other: leave one out",
        ),
        ("options = 2026-01-01", "line 1", "options is a date or time: say options = ["),
    ],
)
def test_a_mistake_is_told_with_its_line_and_what_would_be_right(text, line, says):
    with pytest.raises(Refused) as caught:
        tomlfile.parsed(text)
    assert str(caught.value).startswith(f"{FILE}, {line}" if line else f"{FILE}, ")
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "x.toml does not exist: 'unionfs config --suggest' proposes one"),
        (b"lower = '\xff'", "x.toml: byte 9 is not UTF-8: save it as that"),
    ],
)
def test_a_file_that_cannot_be_read_is_said(tmp_path, content, says):
    if content is not None:
        (tmp_path / "x.toml").write_bytes(content)
    with pytest.raises(Refused) as caught:
        tomlfile.read(f"{tmp_path}/x.toml")
    assert str(caught.value) == f"{tmp_path}/{says}"
