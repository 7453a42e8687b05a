"""Everyday programs do in a union what they do in a plain directory."""

import compileall
import os
import sqlite3
import subprocess

import pytest

from tests.mounted.witness import portrait
from tests.trees import File, Link, Same, harvest

pytestmark = pytest.mark.without("passthrough=all", "loop=off", "metacopy=off")


def sh(tree, script):
    """Run a script in the directory; return what it prints."""
    environment = os.environ | {
        "LC_ALL": "C",
        "HOME": "/nonexistent",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    }
    done = subprocess.run(
        ["/bin/sh", "-euc", script],
        cwd=tree, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


SOURCE = {
    "src": {
        "a.py": "A = 1\n",
        "run": File("#!/bin/sh\necho ran\n", 0o755),
        "l": Link("a.py"),
        "h": Same("src/a.py"),
        "sub": {"b.py": "B = 2\n" * 1000, "empty": {}},
    }
}


def _aged(path):
    """Date the source back: rsync takes two times in one second for the same."""
    for top, directories, files in os.walk(path):
        for name in directories + files:
            os.utime(os.path.join(top, name), ns=(1, 10**18 + 123456789), follow_symlinks=False)


def _same(one, two):
    """Compare trees but for the times of directories."""

    def known(path):
        return {
            name: features[:4] + features[5 if features[0][0] == "d" else 4 :]
            for name, features in portrait(path, inodes=False).items()
        }

    assert known(one) == known(two)


@pytest.mark.tree(SOURCE, prepare=_aged)
@pytest.mark.parametrize(
    "copy",
    [
        "cp -a src dst",
        "rsync -aHAX src/ dst",
        "mkdir dst; tar -C src --format=posix -cf - . | tar -C dst -xf -",
    ],
    ids=["cp", "rsync", "tar"],
)
def test_copies_are_the_same(tree, copy):
    sh(tree, copy)
    _same(tree / "src", tree / "dst")


@pytest.mark.tree(SOURCE)
def test_rsync_updates_and_deletes_in_place(tree):
    sh(tree, "cp -a src new; echo more >>new/a.py; rm new/run; mkdir new/more")
    sh(tree, "rsync -aHAX --delete new/ src")
    _same(tree / "src", tree / "new")
    assert sh(tree, "rsync -aHAXni --delete new/ src") == ""


@pytest.mark.tree(SOURCE)
def test_an_archive_is_unpacked_over_the_tree(tree):
    sh(tree, "tar -cf t.tar src; sed -i s/1/9/ src/a.py; rm -r src/sub; tar -xf t.tar")
    assert (tree / "src/sub/b.py").read_text() == "B = 2\n" * 1000
    assert (tree / "src/a.py").read_text() == "A = 1\n"
    sh(tree, "rm -rf src t.tar")
    assert os.listdir(tree) == []


@pytest.mark.tree({"f": File("one\ntwo\n", 0o640), "l": Link("f")})
def test_sed_edits_in_place(tree):
    os.chown(tree / "f", 12, 34)
    sh(tree, "setfacl -m u:5:r f; sed -i s/one/ONE/ f; sed -i.bak --follow-symlinks s/two/TWO/ l")
    assert harvest(tree) == {"f": "ONE\nTWO\n", "f.bak": "ONE\ntwo\n", "l": Link("f")}
    st = (tree / "f").stat()
    assert (st.st_uid, st.st_gid, st.st_mode & 0o777) == (12, 34, 0o640)
    assert "user:5:r--" in sh(tree, "getfacl -cn f")


@pytest.mark.tree(SOURCE)
def test_mv_find_and_rm(tree):
    sh(tree, "mv src/sub src/run . ; mv src/a.py sub; mv sub/b.py sub/c.py; rmdir sub/empty")
    assert sorted(sh(tree, "find . -type f").split()) == [
        "./run",
        "./src/h",
        "./sub/a.py",
        "./sub/c.py",
    ]
    assert sh(tree, "find . -samefile sub/a.py | sort").split() == ["./src/h", "./sub/a.py"]
    sh(tree, "find . -mindepth 1 -delete")
    assert os.listdir(tree) == []


@pytest.mark.tree(SOURCE)
def test_python_compiles_all(tree):
    assert compileall.compile_dir(tree / "src", quiet=1)
    assert compileall.compile_dir(tree / "src", quiet=1, force=True)
    names = sorted(path.name.partition(".")[0] for path in (tree / "src").rglob("*.pyc"))
    assert names == ["a", "b"]


def _repository(path):
    (path / "repo").mkdir()
    sh(path / "repo", """
        git init -q -b main; git config user.name n; git config user.email e
        for n in 1 2 3 4 5; do mkdir -p d$n; echo $n >d$n/f; echo $n >same
            git add .; git commit -q -m "change $n"; done
        git checkout -q -b side HEAD~2; echo side >side; git add .; git commit -q -m side
        git checkout -q main
    """)  # fmt: skip


@pytest.mark.tree({}, prepare=_repository)
def test_git_works_in_a_repository_that_was_there(tree):
    repo = tree / "repo"
    assert sh(repo, "git status --porcelain") == ""
    sh(repo, "git checkout -q side; git checkout -q main; git merge -q side -m merge")
    assert sh(repo, "git status --porcelain; cat side same") == "side\n5\n"
    sh(repo, "echo x >d1/f; git mv d2 D2; git stash -q; git stash pop -q; git add -A; "
             "git -c user.name=n -c user.email=e commit -q -m more")  # fmt: skip
    sh(repo, "git gc -q --prune=now; git fsck --strict; git repack -adq")
    assert sh(repo, "git status --porcelain; ls") == "D2\nd1\nd3\nd4\nd5\nsame\nside\n"
    sh(tree, "git clone -q repo clone; git -C clone reset -q --hard HEAD~1; git -C clone fsck")
    assert sh(tree, "git -C clone status --porcelain") == ""
    sh(tree, "rm -rf repo clone")


def _database(journal):
    def prepare(path):
        with sqlite3.connect(path / "db") as base:
            base.execute(f"pragma journal_mode={journal}")
            base.execute("create table t (n integer primary key, text)")
            base.executemany("insert into t values (?, ?)", [(n, "x" * 100) for n in range(500)])
        base.close()

    return prepare


def _use_database(tree, journal):
    """Two connections, one of which was opened before the file was first changed."""
    reader = sqlite3.connect(tree / "db")
    assert reader.execute("pragma journal_mode").fetchone() == (journal,)
    assert reader.execute("select count(*) from t").fetchone() == (500,)
    writer = sqlite3.connect(tree / "db")
    for n in range(500, 520):
        with writer:
            writer.execute("insert into t values (?, ?)", (n, "y" * 1000))
        assert reader.execute("select max(n) from t").fetchone() == (n,)
    with writer:
        writer.execute("delete from t where n % 2")
    assert reader.execute("select count(*) from t").fetchone() == (260,)
    with reader:
        reader.execute("insert into t values (1001, 'reader')")
    writer.execute("vacuum")
    for connection in (writer, reader):
        assert connection.execute("pragma integrity_check").fetchone() == ("ok",)
        assert connection.execute("select max(n) from t").fetchone() == (1001,)
        connection.close()
    assert sh(tree, "sqlite3 db 'select count(*) from t; pragma integrity_check'") == "261\nok\n"


@pytest.mark.tree({}, prepare=_database("wal"))
def test_sqlite_with_a_write_ahead_log(tree):
    _use_database(tree, "wal")


@pytest.mark.tree({}, prepare=_database("delete"))
def test_sqlite_with_a_rollback_journal(tree):
    _use_database(tree, "delete")


@pytest.mark.tree({"log": {"a.log": "one\n", "a.log.1": "older\n"}})
def test_logrotate_rotates(tree):
    (tree / "log").chmod(0o755)
    (tree / "conf").write_text(
        f"{tree}/log/a.log {{\n rotate 2\n size 1\n create 0640 root root\n}}\n"
        f"{tree}/log/b.log {{\n rotate 2\n size 1\n copytruncate\n compress\n}}\n"
    )
    (tree / "conf").chmod(0o644)
    (tree / "log/b.log").write_text("b\n")
    for n in range(2):
        sh(tree, "logrotate --state state -f conf")
        (tree / "log/a.log").write_text(f"new {n}\n")
        (tree / "log/b.log").write_text(f"b {n}\n")
    assert sh(tree, "cat log/a.log log/a.log.1 log/a.log.2; zcat log/b.log.2.gz; ls log") == (
        "new 1\nnew 0\none\nb\na.log\na.log.1\na.log.2\nb.log\nb.log.1.gz\nb.log.2.gz\n"
    )


@pytest.mark.tree({"f": "text\n"})
def test_tail_follows_a_file_that_is_copied_up(tree):
    with subprocess.Popen(["tail", "-n", "+1", "-f", tree / "f"], stdout=subprocess.PIPE) as tail:
        assert tail.stdout.readline() == b"text\n"
        with (tree / "f").open("a") as file:
            file.write("more\n")
        assert tail.stdout.readline() == b"more\n"
        tail.kill()
