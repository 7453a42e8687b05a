"""A probe that cannot fail proves nothing: here every check meets a rename that is broken."""

import contextlib
import errno
import os
import shutil
import signal
import time

import pytest

from unionfs.probe import catalogue, extensions, runner
from unionfs.probe.model import Verdict

rename = os.rename
renameat2 = extensions.renameat2
CHECKS = [check for _, checks in catalogue.groups() for check in checks]
WINDOW = 0.0005  # seconds between the steps of what should be one


def does_nothing(_source, _target):
    pass


def removes_first(source, target):
    """Replace in two steps, as many FUSE file systems did; and whatever is there."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        if os.path.isdir(target) and not os.path.islink(target):
            shutil.rmtree(target)
        else:
            os.unlink(target)
    time.sleep(WINDOW)
    rename(source, target)


def copies(source, target):
    """Write into the target that is there, as mv does between file systems."""
    if not os.path.isfile(source):
        return rename(source, target)
    with open(source, "rb") as old, open(target, "wb") as new:
        time.sleep(WINDOW)
        content = old.read()
        new.write(content[: len(content) // 2])
        new.flush()
        time.sleep(WINDOW)
        new.write(content[len(content) // 2 :])
    return os.unlink(source)


def refuses(_source, _target):
    raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))


def found_by(broken, check, directory, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", broken)
        patch.setattr(extensions, "renameat2", _with_flags(broken))
        return runner.run(check, str(directory), rounds=100)


def _with_flags(broken):
    def call(_old_fd, old, _new_fd, new, _flags):
        broken(os.fsdecode(old), os.fsdecode(new))

    return call


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.slug)
def test_every_check_finds_a_rename_that_does_nothing_or_that_removes_first(
    check, tmp_path, monkeypatch
):
    outcomes = [
        found_by(broken, check, tmp_path, monkeypatch) for broken in (does_nothing, removes_first)
    ]
    if all(outcome.verdict is Verdict.NOT_TRIED for outcome in outcomes):
        pytest.skip(outcomes[0].seen)
    assert Verdict.DIFFERS in [outcome.verdict for outcome in outcomes], outcomes


@pytest.mark.parametrize(
    ("broken", "name", "seen"),
    [
        (removes_first, "file-over-file", ""),  # the outcome alone is right
        (removes_first, "opened-while-replaced", "ENOENT"),
        (removes_first, "looked-up-while-replaced", "ENOENT"),
        (removes_first, "mapped-while-replaced", "ENOENT"),
        (removes_first, "first-replacement", "ENOENT"),
        (removes_first, "directory-while-replaced", "ENOENT"),
        (removes_first, "symlink-while-replaced", "ENOENT"),
        (removes_first, "directory-over-full", "succeeds, not ENOTEMPTY or EEXIST"),
        (removes_first, "file-over-directory", "succeeds, not EISDIR"),
        (removes_first, "onto-itself", "ENOENT"),
        (copies, "file-over-file", ""),
        (copies, "opened-while-replaced", "empty"),
        (copies, "inode-number", "source: another"),
        (copies, "open-target", "another content"),
        (copies, "symlink-replaced", "file is 'new', not 'kept'"),
        (copies, "passwd", "the old file is still there"),
        (refuses, "directory-to-nothing", "EXDEV: Invalid cross-device link"),
        (refuses, "useradd", "rename: EXDEV (passwd: Authentication token manipulation error)"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_what_is_seen_tells_what_is_broken(broken, name, seen, tmp_path, monkeypatch):
    (check,) = (check for check in CHECKS if check.slug == name)
    outcome = found_by(broken, check, tmp_path, monkeypatch)
    assert outcome.verdict is (Verdict.DIFFERS if seen else Verdict.HOLDS), outcome
    assert seen in outcome.seen


def test_a_check_that_hangs_or_dies_is_an_outcome(tmp_path, monkeypatch):
    (check,) = (check for check in CHECKS if check.slug == "file-over-file")
    dies = found_by(
        lambda _s, _t: os.kill(os.getpid(), signal.SIGKILL), check, tmp_path, monkeypatch
    )
    monkeypatch.setattr(runner, "HANG", 0.3)
    hangs = found_by(lambda _s, _t: time.sleep(60), check, tmp_path, monkeypatch)
    assert [hangs.seen, dies.seen] == ["no answer within 0.3 s", "killed by SIGKILL"]
