"""`unionfs diff` as a user runs it, on mounted and unmounted uppers."""

import json
import os
import subprocess

import pytest

from tests.commands.conftest import Result

SOME = "echo new > mnt/n; echo changed > mnt/file; mkdir mnt/dir; mv mnt/old mnt/renamed"
LINES = """\
added    /dir
changed  /file (content)
added    /n
deleted  /old (renamed to /renamed)
added    /renamed (renamed from /old)
"""


def shell(bench, line):
    subprocess.run(line, shell=True, cwd=bench.path, check=True)


@pytest.mark.parametrize("layers", ["--upper upper --work work", "--ram 8M"], ids=["upper", "ram"])
def test_a_mounted_union_is_compared_with_the_layers_its_daemon_has(bench, layers):
    os.mkdir(bench.at("lower/old"))
    assert bench.unionfs(f"mount --lower lower {layers} mnt").status == 0
    try:
        shell(bench, SOME)
        assert bench.unionfs("diff mnt") == Result(0, LINES, "")
    finally:
        assert bench.unionfs("umount mnt").status == 0
    if "upper" in layers:
        assert bench.unionfs("diff upper") == Result(0, LINES, "")
        assert bench.unionfs("diff upper --lower lower") == Result(0, LINES, "")


def test_an_upper_of_the_kernel_is_compared_with_the_lowers_that_are_named(bench):
    os.mkdir(bench.at("lower/old"))
    options = "lowerdir=lower,upperdir=upper,workdir=work,redirect_dir=on,metacopy=on"
    done = subprocess.run(
        ["mount", "-t", "overlay", "overlay", "-o", options, "mnt"],
        cwd=bench.path, capture_output=True, check=False,
    )  # fmt: skip
    if done.returncode:
        pytest.skip(f"no kernel overlayfs here: {done.stderr}")
    try:
        shell(bench, SOME)
    finally:
        shell(bench, "umount mnt")
    assert bench.unionfs("diff upper --lower lower") == Result(0, LINES, "")
    refused = bench.unionfs("diff upper")
    assert (refused.status, refused.out) == (2, "")
    assert "--lower" in refused.err


def test_json_gives_every_byte_of_a_name_back(plain):
    name = b"\xff\n\\\xc3\xa4"
    with open(os.path.join(os.fsencode(plain.at("upper")), name), "w"):
        pass
    result = plain.unionfs("diff upper --lower lower --json")
    document = json.loads(result.out)
    assert [os.fsencode(change["path"]) for change in document["changes"]] == [b"/" + name]
    assert document["changes"][0]["kind"] == "added"
    assert document["upper"] == plain.at("upper")
    assert document["lowers"] == [plain.at("lower")]


def test_what_cannot_be_read_is_an_error_with_its_path_as_of_other_tools(plain):
    os.mkdir(plain.at("upper/d"))
    os.setxattr(plain.at("upper/d"), "trusted.overlay.redirect", b"../x")
    plain.write("upper/n", "")
    listed = plain.unionfs("diff upper --lower lower")
    document = plain.unionfs("diff upper --lower lower --json")
    for done in (listed, document):
        assert done.status == 1
        assert done.err.splitlines()[-1] == "unionfs: /d: damaged: see unionfs check"
    assert listed.out == "added    /n\n"
    assert [change["path"] for change in json.loads(document.out)["changes"]] == ["/n"]


def test_a_line_stays_one_line(plain):
    plain.write("upper/a\nb\\", "")
    assert plain.unionfs("diff upper --lower lower").out == "added    /a\\nb\\\\\n"


def test_names_of_aufs(plain):
    plain.write("upper/.wh.file", "")
    assert plain.unionfs("diff upper --lower lower --whiteout aufs").out == "deleted  /file\n"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("diff nowhere", "upper 'nowhere' does not exist"),
        ("diff lower/file", "is not a directory"),
        ("diff upper", "say with --lower which lower layers"),
        ("diff upper --lower nowhere", "lower 'nowhere' does not exist"),
        ("diff", "DIR"),
    ],
)
def test_bad_input_is_refused(plain, line, message):
    result = plain.unionfs(line)
    assert (result.status, result.out) == (2, "")
    assert message in result.err
