"""The probe on file systems that keep all promises, and its command line."""

import json
import subprocess

import pytest

from tests.probe.filesystems import FRESH, PLAIN, TMPFS, prepared, probe, verdicts


def findings(report, *, but):
    """Return what did not hold, but for one verdict."""
    return [
        (check["name"], check["verdict"], check["seen"])
        for check in report["checks"]
        if check["verdict"] not in ("holds", but)
    ]


@pytest.mark.parametrize("system", [PLAIN, TMPFS], ids=lambda system: system.name)
def test_all_holds_on_a_plain_directory(system, tmp_path):
    if system.missing:
        pytest.skip(system.missing)
    with prepared(system, tmp_path / "base", FRESH) as directory:
        report = verdicts(directory, FRESH, rounds=200)
        assert findings(report, but="not supported") == []
        assert report["posix"]
        assert list(directory.glob("unionfs-probe*")) == []


def test_the_table_tells_what_was_seen_and_ends_with_the_conclusion(tmp_path):
    result = probe(tmp_path, "--rounds=1")
    lines = result.stdout.splitlines()
    assert result.returncode == 0
    assert lines[0].startswith(f"{tmp_path}: ")
    assert "  file over a file                                 holds" in lines
    assert lines[-1] == "What POSIX requires of rename(2) holds here."
    assert max(map(len, lines)) <= 110
    assert list(tmp_path.iterdir()) == []


def test_planted_objects_are_used_and_removed(tmp_path):
    assert probe(tmp_path, "--plant", "sources").returncode == 0
    place = tmp_path / "unionfs-probe" / "file-over-file"
    assert [path.name for path in place.iterdir()] == ["source"]
    assert probe(tmp_path, "--plant", "targets").returncode == 0
    assert sorted(path.name for path in place.iterdir()) == ["source", "target"]
    assert probe(tmp_path, "--planted", "--rounds=1").returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_planted_objects_that_are_wrong_are_noticed(tmp_path):
    probe(tmp_path, "--plant", "all")
    (tmp_path / "unionfs-probe" / "file-over-file" / "source").write_text("other")
    result = probe(tmp_path, "--planted", "--rounds=1", "--json")
    assert result.returncode == 1
    assert findings(json.loads(result.stdout), but="not supported") == [
        ("file-over-file", "differs", "target is 'other', not 'new'")
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing"], "missing: No such file or directory; give a directory to probe"),
        (["/dev/null"], "/dev/null: neither a directory nor a regular file"),
        (["--rounds=0", "."], "--rounds 0: give a number of at least 1"),
        (["--plant=all", "README.md"], "README.md: not a directory; only into one can be planted"),
        (["--planted", "/"], "/: No such file or directory; plant there with --plant first"),
        (["/proc"], "/proc: No such file or directory; the probe must write there"),
    ],
)
def test_bad_input_is_told_and_nothing_is_tried(arguments, message, tmp_path):
    (tmp_path / "README.md").touch()
    *options, path = arguments
    result = probe(path, *options, cwd=tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == f"unionfs: {message}\n"


def test_a_file_is_replaced_as_passwd_does_and_stays_what_it_was(tmp_path):
    file = tmp_path / "shadow"
    file.write_text("root:*:\n")
    file.chmod(0o640)
    result = probe(file)
    assert result.returncode == 0, result.stdout
    assert (file.read_text(), file.stat().st_mode & 0o777) == ("root:*:\n", 0o640)
    assert list(tmp_path.iterdir()) == [file]


def test_a_bind_mounted_file_shows_the_authentication_token_failure(base):
    file = base / "shadow"
    file.write_text("root:*:\n")
    subprocess.run(["mount", "--bind", file, file], check=True)
    try:
        result = probe(file, "--json")
    finally:
        subprocess.run(["umount", file], check=True)
    assert result.returncode == 1
    assert {check["name"]: check["seen"] for check in json.loads(result.stdout)["checks"]} == {
        "passwd-on-file": "rename: EBUSY (passwd: Authentication token manipulation error)",
        "useradd-on-file": "rename: EBUSY (passwd: Authentication token manipulation error)",
    }
    assert list(base.iterdir()) == [file]
