"""`unionfs status`: which unions there are, and where their layers are now."""

import fcntl
import json
import os
import select
import signal
import struct
import subprocess
import termios

import pytest

from tests.commands.conftest import SECONDS, stop, wait_for

LAYERS = "--lower lower --upper upper --work work"


def table(bench):
    """The exit status, and the rows of this bench's unions: others may be on the machine, too."""
    result = bench.unionfs("status")
    title, *rows = result.out.splitlines()
    assert title.split() == ["MOUNT", "POINT", "DAEMON", "FULL", "LAYERS"]
    ours = [row.replace(bench.path, "") for row in rows if bench.path in row]
    return result.status, [" ".join(row.split()) for row in ours]


def percent(path):
    figures = os.statvfs(path)
    bytes_used = 100 * (figures.f_blocks - figures.f_bfree) // figures.f_blocks
    return max(bytes_used, 100 * (figures.f_files - figures.f_ffree) // figures.f_files)


def pid_of(bench, mnt):
    return json.loads(bench.unionfs(f"status --json {mnt}").out)["pid"]


@pytest.fixture
def several(bench):
    """Three unions, of several types, and their daemons."""
    for name in ("mnt2", "mnt3", "lower2"):
        os.mkdir(bench.at(name))
    assert bench.unionfs(f"mount --lower lower2 {LAYERS} mnt").status == 0
    assert bench.unionfs("mount --lower lower -o subtype= mnt2").status == 0
    assert bench.unionfs("mount --lower lower --ram -o fsname=a,subtype=b mnt3").status == 0
    bench.daemons = [pid_of(bench, mnt) for mnt in ("mnt", "mnt2", "mnt3")]
    yield bench
    for mnt in ("mnt", "mnt2", "mnt3"):
        assert bench.unionfs(f"umount {mnt}").status == 0


def test_all_unions_are_listed(several):
    first, second, third = several.daemons
    assert table(several)[1] == [
        f"/mnt process {first} {percent(several.at('upper'))} % /upper over /lower2 and 1 more",
        f"/mnt2 process {second} /lower",
        f"/mnt3 process {third} 0 % ram over /lower",
    ]
    found = {
        union["mountpoint"]: union for union in json.loads(several.unionfs("status --json").out)
    }
    union = found[several.at("mnt")]
    assert (union["namespace"], union["state"]) == (None, "serving")
    single = json.loads(several.unionfs("status --json mnt").out)
    assert single.pop("changes") == {"size": 0, "inodes": 0, "largest": []}
    for status in (single, union["status"]):  # others write to the disk, too
        for layer in (status["layers"]["upper"], status["layers"]["work"]):
            assert layer.pop("room")["size"] > 0
        assert all(layer.pop("room")["size"] > 0 for layer in status["layers"]["lowers"])
    assert {"state": "serving", **union["status"]} == single


def test_those_that_do_not_serve_are_listed(several):
    """What is called a union; who is called otherwise cannot be told from others then."""
    first, second, third = several.daemons
    stop(first)
    os.kill(second, signal.SIGKILL)
    rows = [
        "/mnt does not answer",
        "/mnt2 is dead: unmount it",
        f"/mnt3 process {third} 0 % ram over /lower",
    ]
    try:
        wait_for(lambda: table(several) == (1, rows))  # two seconds may be too few to answer
        assert several.unionfs("status mnt") == (1, "daemon       does not answer\n", "")
        assert json.loads(several.unionfs("status --json mnt").out) == {"state": "silent"}
    finally:
        os.kill(first, signal.SIGCONT)


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_a_name_that_is_no_text_is_listed_beside_others(several, locale):
    several.environment |= {"LC_ALL": locale, "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    name = os.fsdecode(b"no\xfftext")
    os.mkdir(several.at(name))
    assert several.unionfs(f"mount --lower lower {name}").status == 0
    try:
        assert [row.split()[0] for row in table(several)[1]] == [
            "/mnt", "/mnt2", "/mnt3", f"/{name}",
        ]  # fmt: skip
        found = json.loads(several.unionfs("status --json").out)
        assert several.at(name) in {union["mountpoint"] for union in found}
    finally:
        assert several.unionfs(f"umount {name}").status == 0


def test_a_bind_mount_is_not_another_union(several):
    os.mkdir(several.at("mnt4"))
    subprocess.run(["mount", "--bind", several.at("mnt/"), several.at("mnt4")], check=True)
    rows = table(several)[1]
    subprocess.run(["umount", several.at("mnt4")], check=True)
    assert len(rows) == 3


def test_unions_in_other_mount_namespaces_are_listed(bench):
    run = bench.start("run --keep mnt -q -- sh -c 'echo ready; exec cat'",
                      stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
    assert run.stdout.readline() == "ready\n"
    unions = json.loads(bench.unionfs("status --json").out)
    run.communicate(timeout=SECONDS)
    (union,) = [union for union in unions if f"{bench.path}/mnt/upper" in json.dumps(union)]
    assert union["namespace"] in (union["status"]["pid"], run.pid)
    assert union["status"]["layers"]["upper"]["place"] == bench.at("mnt/upper")


def places(bench):
    """What `status` says of upper, work and the lowers."""
    lines = bench.unionfs("status mnt").out.replace(bench.path, "").splitlines()
    told = [line.split(None, 1) for line in lines]
    return [place for key, place in told if key in {"upper", "work", "lower"}]


def test_a_layer_is_shown_where_it_is_now(bench):
    assert bench.unionfs(f"mount {LAYERS} mnt").status == 0
    assert places(bench) == ["/upper", "/work", "/lower"]
    os.mkdir(bench.at("elsewhere"))
    os.rename(bench.at("upper"), bench.at("elsewhere/up per"))
    os.rename(bench.at("lower"), bench.at("lower.old"))
    os.mkdir(bench.at("lower"))  # another one of that name
    assert places(bench) == [
        "/elsewhere/up per (mounted as /upper)",
        "/work",
        "/lower.old (mounted as /lower)",
    ]
    assert bench.unionfs("umount mnt").status == 0


def test_a_layer_that_is_deleted_is_shown_so(bench):
    assert bench.unionfs(f"mount {LAYERS} mnt").status == 0
    os.unlink(bench.at("lower/file"))
    os.rmdir(bench.at("lower"))
    assert places(bench) == ["/upper", "/work", "/lower (deleted)"]
    os.mkdir(bench.at("lower"))
    assert places(bench)[2] == "/lower (deleted)"
    layer = json.loads(bench.unionfs("status --json mnt").out)["layers"]["lowers"][0]
    assert (layer["name"], layer["place"], layer["deleted"]) == (bench.at("lower"), None, True)
    assert bench.unionfs("umount mnt").status == 0


@pytest.mark.parametrize("kind", ["tmpfs", "ext4", "xfs", "btrfs", "overlay"])
def test_a_layer_on_a_mount_that_was_moved_is_found(bench, kind):
    """As at a boot: the root file system is moved aside after the union was made of it."""
    for name in ("private", "private/disk", "private/ro", "ovl", "ovlwork"):
        os.mkdir(bench.at(name))
    # mount --move does not go with shared mounts
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", bench.at("private")], check=True)
    subprocess.run(["mount", "--make-private", bench.at("private")], check=True)
    for name in ("private/disk", "private/ro"):
        os.mkdir(bench.at(name))
    mount = ["mount", "-t", kind, kind, "private/disk"]
    if kind == "overlay":
        mount += ["-o", "lowerdir=lower,upperdir=ovl,workdir=ovlwork"]
    elif kind != "tmpfs":
        with open(bench.at("image"), "wb") as file:
            file.truncate(400 << 20)
        subprocess.run([f"mkfs.{kind}", "-q", bench.at("image")], check=True)
        mount = ["mount", "-o", "loop", "image", "private/disk"]
    subprocess.run(mount, cwd=bench.path, check=True)
    os.mkdir(bench.at("private/disk/sub"))
    words = "mount --lower private/disk --lower private/disk/sub --ram mnt"
    assert bench.unionfs(words) == (0, "", "")
    subprocess.run(["mount", "--move", "private/disk", "private/ro"], cwd=bench.path, check=True)
    said = places(bench)[-2:]
    subprocess.run(["umount", bench.at("private/ro")], check=True)
    hidden = places(bench)[-2:]
    assert bench.unionfs("umount mnt").status == 0
    subprocess.run(["umount", bench.at("private")], check=True)
    assert said[0] == "/private/ro (mounted as /private/disk)"
    # overlayfs has no file handles by default
    assert said[1] in {
        "/private/ro/sub (mounted as /private/disk/sub)",
        *(["/private/disk/sub (moved, out of sight)"] if kind == "overlay" else []),
    }
    assert hidden == [
        "/private/disk (moved, out of sight)",
        "/private/disk/sub (moved, out of sight)",
    ]


def test_names_that_are_no_text_are_shown(bench):
    os.rename(bench.at("lower"), os.fsencode(bench.path) + b"/\xff\n")
    words = [*bench.words("mount --ram --lower"), os.fsencode(bench.path) + b"/\xff\n", "mnt"]
    assert bench.run(words).status == 0
    words = [*bench.words("status"), "mnt"]
    done = subprocess.run(
        words, cwd=bench.path, env=bench.environment, capture_output=True, check=True
    )
    assert bench.unionfs("umount mnt").status == 0
    assert b"lower        " + os.fsencode(bench.path) + b"/\xff\\n\n" in done.stdout


# How full


@pytest.fixture
def ram(bench):
    """A union whose upper is a RAM disk of 20 MB."""
    bench.write("lower/big", "x" * (3 << 20))
    assert bench.unionfs("mount --lower lower --ram 20M mnt").status == 0
    yield bench
    assert bench.unionfs("umount mnt").status == 0


def fill(bench, name, size):
    bench.write(f"mnt/{name}", "x" * size)


def test_room_and_the_largest_changes_are_told(ram):
    os.mkdir(ram.at("mnt/d"))
    fill(ram, "d/new", 2 << 20)
    for number in range(12):
        fill(ram, f"small{number}", 4096 * (number + 1))
    os.rename(ram.at("mnt/big"), ram.at("mnt/renamed"))  # copies no content up
    with open(ram.at("mnt/file"), "a") as file:
        file.write("x")
    lines = ram.unionfs("status mnt").out.splitlines()
    changes = next(index for index, line in enumerate(lines) if line.startswith("changes"))
    assert lines[2].split(" used")[0].strip() == "2.3M of 20M"
    assert lines[changes:] == [
        "changes      2.3M in 17 files and directories",
        "        2.0M /d/new",
        *(f"{4 * number:>11}K /small{number - 1}" for number in range(12, 3, -1)),
    ]
    document = json.loads(ram.unionfs("status --json mnt").out)
    assert document["changes"]["largest"][0] == {"path": "/d/new", "size": 2 << 20}
    assert (document["changes"]["inodes"], len(document["changes"]["largest"])) == (17, 10)
    room = document["layers"]["upper"]["room"]
    figures = os.statvfs(ram.at("mnt"))
    assert room["size"] == figures.f_blocks * figures.f_frsize == 20 << 20
    assert room["used"] == room["size"] - figures.f_bfree * figures.f_frsize
    assert room["inodes"] - room["inodes_used"] == figures.f_ffree


@pytest.mark.parametrize(
    ("megabytes", "status", "level", "said"),
    [
        (10, 0, 0, []),
        (17, 1, 80, ["warning      upper is 85 % full, 17M of 20M"]),
        (19.5, 1, 95, ["critical     upper is 97 % full, 20M of 20M"]),
    ],
)
def test_an_upper_that_fills_up_is_a_bad_status(ram, megabytes, status, level, said):
    fill(ram, "f", int(megabytes * (1 << 20)))
    result = ram.unionfs("status mnt")
    warnings = [line for line in result.out.splitlines() if line[:8] in {"warning ", "critical"}]
    assert (result.status, warnings) == (status, said)
    document = json.loads(ram.unionfs("status --json mnt").out)
    assert (document["state"], document["level"]) == ("serving", level)
    (union,) = [
        union
        for union in json.loads(ram.unionfs("status --json").out)
        if union["mountpoint"] == ram.at("mnt")
    ]
    assert union["status"]["level"] == level


def look(view):
    """Return the lines of the next look."""
    lines = []
    while (line := view.stdout.readline()) != "\n":
        assert line, "it has ended"
        lines.append(line)
    return lines


def test_the_live_view_tells_how_upper_grows_and_ends_with_the_union(bench):
    assert bench.unionfs("mount --lower lower --ram 20M mnt").status == 0
    view = bench.start("status --watch mnt", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    first = look(view)
    fill(bench, "f", 10 << 20)
    while (last := look(view))[-2] != "         10M /f\n":  # it was not all there yet
        assert last[-1].startswith("growth       ")
    assert bench.unionfs("umount mnt").status == 0
    _, said = view.communicate(timeout=SECONDS)
    assert [line.split()[0] for line in first][-1] == "changes"
    assert last[-1].startswith("growth       ")
    assert " a second, full in " in last[-1]
    assert (view.returncode, said) == (1, f"unionfs: no union is mounted at '{bench.at('mnt')}'\n")


def test_the_live_view_ends_by_sigint_with_the_status_of_the_last_look(ram):
    for size, status in ((1, 0), (17, 1)):
        fill(ram, "f", size << 20)
        view = ram.start("status --watch mnt", stdout=subprocess.PIPE)
        assert view.stdout.readline().startswith("daemon")
        view.send_signal(signal.SIGINT)
        view.communicate(timeout=SECONDS)
        assert view.returncode == status


def frames_on_a_terminal(bench, columns, rows):
    """Return the lines of the first two frames that `status --watch` draws there."""
    screen, terminal = os.openpty()
    try:
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))
        view = bench.start("status --watch mnt", stdout=terminal)
        drawn = b""
        while drawn.count(b"\x1b[J") < 2:
            assert select.select([screen], [], [], SECONDS)[0], "nothing more is drawn"
            drawn += os.read(screen, 1 << 16)
        view.send_signal(signal.SIGINT)
        view.communicate(timeout=SECONDS)
    finally:
        os.close(screen)
        os.close(terminal)
    _, *frames = drawn.decode().replace("\r", "").split("\x1b[H")
    return [frame.split("\n")[:-1] for frame in frames]


@pytest.mark.parametrize(
    ("size", "room"), [((40, 8), (7, 39)), ((0, 0), (23, 79))], ids=["small", "unknown"]
)
def test_the_live_view_draws_on_a_terminal_no_more_than_has_room(ram, size, room):
    ram.environment |= {"COLUMNS": "200", "LINES": "50"}  # of another terminal
    for number in range(30):
        ram.write(f"mnt/{number}" + "n" * 100, "x")
    frames = frames_on_a_terminal(ram, *size)
    assert len(frames) == 2
    rows, columns = room
    for lines in frames:
        assert len(lines) <= rows
        assert max(len(line) - len("\x1b[K") for line in lines) == columns


def test_watch_and_json_exclude_each_other(plain):
    result = plain.unionfs("status --watch --json")
    assert (result.status, result.out) == (2, "")
