"""Checks: files replaced step by step as the programs of the shadow suite do it.

Each function works on a file that may be any, so that `unionfs probe FILE` can
show what becomes of passwd(1) on that very file.  The content stays what it was.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator

from unionfs.probe.model import (
    LACKING,
    Check,
    DiffersError,
    NotSupportedError,
    Trial,
    beyond,
    error_name,
    expect,
    posix,
)
from unionfs.probe.trees import File

ACCOUNTS = "root:x:0:0:root:/root:/bin/bash\n" * 200


@posix("passwd(1): nshadow over shadow", {"target": File(ACCOUNTS, mode=0o640, owner=42)})
def passwd(trial: Trial) -> None:
    """pam_unix, passverify.c, unix_update_shadow: write aside, fchown, fchmod, fsync, rename."""
    change_password("target", "target")
    trial.unchanged()


@posix("useradd(8): lock file, backup, passwd+", {"target": File(ACCOUNTS)})
def useradd(trial: Trial) -> None:
    """shadow, commonio.c: commonio_lock, commonio_close, commonio_unlock."""
    add_user("target", "target")
    trial.shows({"target": ACCOUNTS, "target-": ACCOUNTS})


@posix("vipw(8): old passwd kept as a link", {"target": File(ACCOUNTS)})
def vipw(trial: Trial) -> None:
    """shadow, vipw.c, vipwedit: passwd.edit is written, passwd linked to passwd-, then replaced."""
    _write_like("target.edit", "target", ACCOUNTS.encode())
    _link("target", "target-")
    os.rename("target.edit", "target")
    trial.shows({"target": ACCOUNTS, "target-": ACCOUNTS})
    expect(os.stat("target-").st_nlink == 1, "the kept file still counts two links")


@beyond("dpkg: .dpkg-new over the file, .dpkg-tmp kept", {"target": "old"})
def dpkg(trial: Trial) -> None:
    """dpkg, archive.c, tarobject: the old file is linked aside, the new one renamed over it."""
    fd = os.open("target.dpkg-new", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0)
    with open(fd, "wb", buffering=0) as file:
        file.write(b"new")
        os.fchown(fd, os.geteuid(), os.getegid())
        os.fchmod(fd, 0o644)
        os.fsync(fd)
    _link("target", "target.dpkg-tmp")
    os.rename("target.dpkg-new", "target")
    trial.shows({"target": "new", "target.dpkg-tmp": "old"})
    os.rename("target.dpkg-tmp", "target")
    trial.unchanged()


def change_password(path: str, beside: str) -> None:
    """Replace a file as passwd(1) does /etc/shadow; its helper files are named after *beside*."""
    aside = beside + ".nshadow"
    with _record_lock(beside + ".pwd.lock"), _removed(aside):
        _write_like(aside, path, _content(path))
        _replace(aside, path)


def add_user(path: str, beside: str) -> None:
    """Replace a file as useradd(8) does /etc/passwd: lock, back up, write, rename, unlock."""
    with _lock_file(beside):
        content = _content(path)
        _write_like(beside + "-", path, content)
        with _removed(beside + "+"):
            _write_like(beside + "+", path, content)
            _replace(beside + "+", path)


def _replace(source: str, target: str) -> None:
    """Rename, and tell an error in the words in which people look for it."""
    before = os.stat(target)
    try:
        os.rename(source, target)
    except OSError as exc:
        raise DiffersError(
            f"rename: {error_name(exc.errno)} (passwd: Authentication token manipulation error)"
        ) from None
    after = os.stat(target)
    expect(after.st_ino != before.st_ino, "the old file is still there")
    expect(
        (after.st_mode, after.st_uid, after.st_gid)
        == (before.st_mode, before.st_uid, before.st_gid),
        "another mode or owner",
    )


@contextlib.contextmanager
def _lock_file(path: str) -> Iterator[None]:
    """Hold `path.lock`, made by link(2) from a temporary: it exists, or it does not."""
    mine, lock = f"{path}.{os.getpid()}", path + ".lock"
    with _removed(mine):
        with open(mine, "x", encoding="ascii") as file:
            file.write(f"{os.getpid()}\0")
            file.flush()
            os.fdatasync(file.fileno())
        _link(mine, lock)
        try:
            links = os.stat(mine).st_nlink
            expect(links == 2, f"lock file: link count {links}, not 2")  # noqa: PLR2004 # shadow's
            _locked_out(mine, lock)
        except BaseException:
            os.unlink(lock)
            raise
    with _removed(lock):
        yield


def _locked_out(mine: str, lock: str) -> None:
    try:
        os.link(mine, lock)
    except FileExistsError:
        return
    raise DiffersError("a second link(2) to the lock file succeeds")


@contextlib.contextmanager
def _record_lock(path: str) -> Iterator[None]:
    """Hold the lock of lckpwdf(3): a write lock by fcntl(2)."""
    existed = os.path.lexists(path)
    with open(path, "ab") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX)
        except OSError as exc:
            raise NotSupportedError(f"no locks: {exc.strerror}") from exc
        try:
            yield
        finally:
            if not existed:
                os.unlink(path)


@contextlib.contextmanager
def _removed(path: str) -> Iterator[None]:
    """Leave nothing at *path*, however the block ends."""
    try:
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError as exc:
        if exc.errno in LACKING:
            raise NotSupportedError("no hard links") from None
        raise


def _content(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _write_like(path: str, like: str, content: bytes) -> None:
    """Write a file with mode and owner of another one, and bring it to the disk."""
    st = os.stat(like)
    with open(path, "wb") as file:
        os.fchown(file.fileno(), st.st_uid, st.st_gid)
        os.fchmod(file.fileno(), st.st_mode & 0o7777)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def on_file(path: str) -> tuple[Check, ...]:
    """Return the checks that replace an existing file, with helper files of unused names."""
    beside = f"{path}.unionfs-probe-{os.getpid()}"

    def passwd_on_file(_trial: Trial) -> None:
        with _same_content(path):
            change_password(path, beside)

    def useradd_on_file(_trial: Trial) -> None:
        with _same_content(path), _removed(beside + "-"):
            add_user(path, beside)

    return (
        posix("passwd(1): nshadow over the file", {})(passwd_on_file),
        posix("useradd(8): lock file, backup, FILE+", {})(useradd_on_file),
    )


@contextlib.contextmanager
def _same_content(path: str) -> Iterator[None]:
    before = _content(path)
    yield
    expect(_content(path) == before, "another content")
