"""Everyday tools as `programs`: editing, version control, a database, packages, copies, logs."""

import contextlib
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator

from .programs import Done, Program, must, outside, read
from .trees import differences, harvest


def _write(path: str, text: str, mode: int = 0o644) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(path, mode)
    os.utime(path, (1_600_000_000, 1_600_000_000))


def _unless(claim: bool, words: str) -> list[str]:
    return [] if claim else [words]


# sed -i


_BEFORE, _AFTER = "one\ntwo\n" * 999, "ONE\ntwo\n" * 999


def _sed() -> Program:
    def plant(top: str) -> None:
        _write(f"{top}/scene/f", _BEFORE, 0o640)
        os.chown(f"{top}/scene/f", 12, 34)

    def whole(top: str, _printed: str) -> list[str]:
        path = f"{top}/scene/f"
        st = os.stat(path)
        owned = (st.st_uid, st.st_gid, st.st_mode & 0o777) == (12, 34, 0o640)
        text = read(path)
        return [
            *_unless(text in (_BEFORE, _AFTER), f"{text!r:.60}"),
            *_unless(owned, f"f belongs to {st.st_uid}:{st.st_gid}, mode {st.st_mode:o}"),
        ]

    def done(top: str) -> list[str]:
        names = os.listdir(f"{top}/scene")
        return _unless(names == ["f"] and read(f"{top}/scene/f") == _AFTER, f"{names}")

    return Program(
        "sed", plant, "sed -i s/one/ONE/ /scene/f", whole, done, ("scene/f",),
        "rm -f /scene/sed??????",
    )  # fmt: skip


# git


_REPOSITORY = """
    git init -q -b main
    git config user.name n; git config user.email e; git config gc.auto 0
    for n in 1 2 3; do mkdir -p d$n; echo $n >d$n/f; echo $n >same
        git add .; git commit -q -m "change $n"; done
"""
_COMMITS = 3


def _plant_repository(top: str) -> None:
    os.makedirs(f"{top}/scene/repo")
    must(outside(f"{top}/scene/repo", _REPOSITORY))


def _git(name: str, script: str, replaced: tuple[str, ...], commits: int) -> Program:
    def look(top: str) -> tuple[int, list[str]]:
        repository = f"{top}/scene/repo"
        words = []
        for command in ("git fsck --strict --no-dangling", "git status --porcelain", "git log -p"):
            answer = outside(repository, command)
            if answer.status != 0 or "missing" in answer.out + answer.err:
                words.append(f"{command}: {answer}")
        return int(outside(repository, "git rev-list --count HEAD").out or 0), words

    def whole(top: str, _printed: str) -> list[str]:
        count, words = look(top)
        return words + _unless(count in {_COMMITS, commits}, f"HEAD has {count} commits")

    def done(top: str) -> list[str]:
        count, words = look(top)
        changed = outside(f"{top}/scene/repo", "git status --porcelain").out
        return [
            *words,
            *_unless(count == commits, f"HEAD has {count} commits"),
            *_unless(not changed, changed),
        ]

    return Program(
        name, _plant_repository, f"cd /scene/repo; {script}", whole, done, replaced,
        # As git itself says when it meets one.
        "find /scene/repo/.git \\( -name '*.lock' -o -name packed-refs.new \\) -delete",
    )  # fmt: skip


def _gits() -> Iterator[Program]:
    yield _git(
        "git-commit",
        "echo 4 >same; echo new >new; git add same new;"
        " git diff --cached --quiet || git commit -q -m fourth",
        ("scene/repo/.git/refs/heads/main",),
        _COMMITS + 1,
    )
    yield _git("git-gc", "git gc -q --prune=now", (), _COMMITS)


# sqlite3


_ROWS = 200
_ADDED = 4  # transactions


def _sqlite(journal: str) -> Program:
    def plant(top: str) -> None:
        os.makedirs(f"{top}/scene")
        with contextlib.closing(sqlite3.connect(f"{top}/scene/db")) as base, base:
            base.execute(f"pragma journal_mode={journal}")
            base.execute("create table t (n integer primary key, text)")
            base.executemany("insert into t values (?, ?)", [(n, "x" * 99) for n in range(_ROWS)])

    def whole(top: str, printed: str) -> list[str]:
        reported = printed.count("committed")
        with contextlib.closing(sqlite3.connect(f"{top}/scene/db")) as base:
            (verdict,) = base.execute("pragma integrity_check").fetchone()
            rows = [n for (n,) in base.execute("select n from t order by n")]
        return [
            *_unless(verdict == "ok", verdict),
            *_unless(rows == list(range(len(rows))), f"rows {rows}"),
            *_unless(len(rows) >= _ROWS + reported, f"{len(rows)} rows, {reported} were reported"),
        ]

    def done(top: str) -> list[str]:
        return whole(top, "committed" * _ADDED)

    added = " ".join(
        f"insert or ignore into t values ({_ROWS + n}, hex(randomblob(3000)));"
        " select 'committed';"
        for n in range(_ADDED)
    )  # fmt: skip
    script = f'sqlite3 -bail -batch /scene/db "{added}"'
    return Program(f"sqlite3-{journal}", plant, script, whole, done, ())


# dpkg


_PACKAGE = """
    package() {
        mkdir -p p/DEBIAN p/usr/share/sample p/etc
        printf 'Package: sample\\nVersion: %s\\nArchitecture: all\\n' "$1" >p/DEBIAN/control
        printf 'Maintainer: nobody <n@example.org>\\nDescription: a sample\\n' >>p/DEBIAN/control
        echo /etc/sample.conf >p/DEBIAN/conffiles
        echo "version $1" | tee p/etc/sample.conf p/usr/share/sample/data >/dev/null
        dpkg-deb --build --root-owner-group p "$1.deb" >/dev/null
    }
    package 1; package 2
"""
_INSTALLED = ("usr/share/sample/data", "etc/sample.conf")


def _dpkg() -> Program:
    def plant(top: str) -> None:
        root = f"{top}/scene/root"
        for name in ("info", "updates", "triggers", "parts"):
            os.makedirs(f"{root}/var/lib/dpkg/{name}")
        for name in ("status", "available"):
            _write(f"{root}/var/lib/dpkg/{name}", "")
        with tempfile.TemporaryDirectory() as directory:
            must(outside(directory, f"{_PACKAGE}\ndpkg --root={root} -i 1.deb"))
            shutil.copy(f"{directory}/2.deb", f"{top}/scene")

    def query(top: str, words: str) -> Done:
        return outside("/", f"dpkg --root={top}/scene/root {words}")

    def whole(top: str, _printed: str) -> list[str]:
        texts = [read(f"{top}/scene/root/{name}") for name in _INSTALLED]
        said = query(top, "-s sample")
        known = said.status == 0 and ("Version: 1\n" in said.out or "Version: 2\n" in said.out)
        installed = "Status: install ok installed\nVersion: 2\n" in said.out.replace(
            "Priority: optional\n", ""
        )
        return [
            *_unless(known, f"{said}"),
            *_unless({*texts} <= {"version 1\n", "version 2\n"}, f"{texts}"),
            *_unless(not installed or {*texts} == {"version 2\n"}, f"installed, but {texts}"),
        ]

    def done(top: str) -> list[str]:
        state = query(top, "-s sample").out
        left = outside(f"{top}/scene/root", "find . -name '*.dpkg-*'").out
        wrong = query(top, "--verify").out + query(top, "--audit").out + left
        ready = "Status: install ok installed" in state and "Version: 2\n" in state
        return [*whole(top, ""), *_unless(not wrong, wrong), *_unless(ready, state)]

    return Program(
        "dpkg", plant, "dpkg --root=/scene/root -i /scene/2.deb", whole, done,
        tuple(f"scene/root/{name}" for name in _INSTALLED),
        "dpkg --root=/scene/root --configure -a || true",  # dpkg(1), --configure
    )  # fmt: skip


# rsync


def _rsync() -> Program:
    sources = {"a": "new a\n", "sub/b": "new b\n" * 5000, "sub/more": "added\n", "same": "same\n"}
    targets = {"a": "old a, longer\n", "sub/b": "old b\n" * 4000, "gone/c": "c\n", "same": "same\n"}

    def plant(top: str) -> None:
        for directory, files in (("src", sources), ("dst", targets)):
            for name, text in files.items():
                _write(f"{top}/scene/{directory}/{name}", text)

    def whole(top: str, _printed: str) -> list[str]:
        words = []
        for name in sources.keys() | targets.keys():
            text, allowed = read(f"{top}/scene/dst/{name}"), {sources.get(name), targets.get(name)}
            words += _unless(text in allowed, f"{name}: {text!r:.60}")
        return words

    def done(top: str) -> list[str]:
        return differences(
            harvest(f"{top}/scene/src", times=True), harvest(f"{top}/scene/dst", times=True)
        )

    return Program(
        "rsync", plant, "rsync -a --delete /scene/src/ /scene/dst", whole, done,
        ("scene/dst/a", "scene/dst/sub/b", "scene/dst/gone/c"),
    )  # fmt: skip


# logrotate


def _logrotate() -> Program:
    def plant(top: str) -> None:
        _write(f"{top}/scene/log/a.log", "second\n", 0o640)
        _write(f"{top}/scene/log/a.log.1", "first\n", 0o640)
        _write(f"{top}/scene/log/b.log", "copied\n")
        _write(f"{top}/scene/state", "logrotate state -- version 2\n")
        _write(
            f"{top}/scene/conf",
            "/scene/log/a.log {\n rotate 9\n create 0640 root root\n}\n"
            "/scene/log/b.log {\n rotate 9\n copytruncate\n}\n",
        )

    def whole(top: str, _printed: str) -> list[str]:
        seen = {name: read(f"{top}/scene/log/{name}") for name in os.listdir(f"{top}/scene/log")}
        texts = list(seen.values())
        state = read(f"{top}/scene/state") or ""
        return [
            *_unless([texts.count(t) for t in ("first\n", "second\n")] == [1, 1], f"{seen}"),
            *_unless("copied\n" in texts, f"{seen}"),
            *_unless(state.startswith("logrotate state -- version 2\n"), state),
        ]

    def done(top: str) -> list[str]:
        rotated = [read(f"{top}/scene/log/{name}") for name in ("a.log", "b.log")]
        return [*whole(top, ""), *_unless(rotated == ["", ""], f"{rotated}")]

    return Program(
        "logrotate", plant, "logrotate --state /scene/state -f /scene/conf", whole, done,
        ("scene/state",),
        # Killed between rename(2) and the making of a new log; who writes to it makes it.
        "[ -e /scene/log/a.log ] || install -m 640 /dev/null /scene/log/a.log",
    )  # fmt: skip


TOOLS = (_sed(), *_gits(), _sqlite("delete"), _sqlite("wal"), _dpkg(), _rsync(), _logrotate())
