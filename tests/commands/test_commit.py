"""`unionfs commit`: what the union shows becomes what the lower holds."""

import os
import subprocess
import time
from pathlib import Path

import pytest

from tests.commands.conftest import Result
from tests.forgetting import forget

CHANGES = {
    "a file is changed": "echo new >mnt/file; chmod 640 mnt/file",
    "a file is made": "echo new >mnt/n; setfattr -n user.a -v b mnt/n",
    "a file is deleted": "rm mnt/file",
    "a directory is deleted": "rm -r mnt/dir",
    "a tree is made": "mkdir -p mnt/x/y; echo 1 >mnt/x/y/z; ln -s y mnt/x/l; mkfifo mnt/x/p",
    "a file becomes a directory": "rm mnt/file; mkdir mnt/file; echo 1 >mnt/file/in",
    "a directory becomes a file": "rm -r mnt/dir; echo 1 >mnt/dir",
    "a directory is made anew": "rm -r mnt/dir; mkdir mnt/dir; echo 1 >mnt/dir/new",
    "a directory is renamed": "mv mnt/dir mnt/m; echo more >>mnt/m/inner; rm mnt/m/sub/q",
    "a directory is renamed away and another made": "mv mnt/dir mnt/moved; mkdir mnt/dir",
    "a file is renamed": "mv mnt/file mnt/dir/file",
    "two files change places": "cd mnt; mv file t; mv dir/inner file; mv t dir/inner",
    "a file gets a second name": "ln mnt/file mnt/dir/second",
    "one of two names is written to": "echo more >>mnt/one",
    "mode and owner alone": "chmod 600 mnt/dir/inner; chown 12:34 mnt/dir; touch -d @1 mnt/file",
}


def shell(bench, line):
    subprocess.run(["sh", "-euc", line], cwd=bench.path, check=True)


@pytest.fixture(params=["--upper upper --work work", "--ram 16M"], ids=["upper", "ram"])
def union(bench, request):
    shell(bench, "mkdir -p lower/dir/sub; echo inner >lower/dir/inner; echo q >lower/dir/sub/q")
    shell(bench, "echo 1 >lower/one; ln lower/one lower/dir/two")
    assert bench.unionfs(f"mount --lower lower {request.param} mnt").status == 0
    yield bench
    assert bench.unionfs("umount mnt").status == 0


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_the_lower_becomes_what_the_union_shows(union, change):
    shell(union, change)
    shown = portrait(union.at("mnt"))
    done = union.unionfs("commit --yes mnt")
    assert (done.status, done.err) == (0, "")
    assert portrait(union.at("lower")) == shown
    assert portrait(union.at("mnt")) == shown
    forget(union.at("mnt"))
    assert portrait(union.at("mnt")) == shown
    assert union.unionfs("diff mnt") == Result(0, "", "")


def test_a_commit_looks_at_no_more_of_the_lower_than_changes(bench):
    shell(bench, "mkdir lower/large; cd lower/large; for n in $(seq 300); do : >$n; done")
    shell(bench, "echo 1 >lower/one; ln lower/one lower/two; ln lower/one lower/large/l")
    assert bench.unionfs("mount --lower lower --upper upper --work work mnt").status == 0
    shell(bench, "echo more >>mnt/two; rm mnt/file mnt/one")
    counting = ["strace", "-f", "-o", bench.at("calls"), "-e", "trace=newfstatat,statx,stat,lstat"]
    done = bench.run([*counting, *bench.words("commit --yes mnt/file mnt/one")])
    assert (done.status, bench.ls("lower")) == (0, ["large", "two"])
    assert bench.read("calls").count('"large/') == 0
    forget(bench.at("mnt"))  # the daemon knows the file by its other name
    assert bench.read("mnt/large/l") == bench.read("mnt/two") == "1\nmore\n"
    assert bench.unionfs("commit --yes mnt").status == 0
    assert bench.read("lower/large/l") == bench.read("lower/two") == "1\nmore\n"
    assert bench.unionfs("umount mnt").status == 0


def test_names_of_one_file_stay_so_whatever_the_kernel_forgets_meanwhile(union):
    shell(union, "mv mnt/dir mnt/moved; mkdir mnt/dir")
    done = union.start("commit --yes mnt", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while done.poll() is None:
        forget(union.at("mnt"))
        time.sleep(0.005)
    assert (done.communicate()[1], done.returncode) == ("", 0)
    shell(union, "echo more >>mnt/moved/two")
    assert union.read("mnt/one") == "1\nmore\n"


def test_what_was_committed_can_be_deleted_again(union):
    shell(union, "mkdir mnt/new; echo 1 >mnt/new/a; echo 2 >mnt/b; ls -l mnt mnt/new >/dev/null")
    assert union.unionfs("commit --yes mnt").status == 0
    shell(union, "rm mnt/new/a mnt/b")
    forget(union.at("mnt"))
    assert union.ls("mnt") == ["dir", "file", "new", "one"]
    assert union.ls("mnt/new") == []
    assert union.ls("lower/new") == ["a"]


def test_only_what_is_named_is_carried_and_the_directories_that_lead_there(union):
    shell(union, "mkdir -p mnt/x/y; echo 1 >mnt/x/y/z; echo 2 >mnt/x/other; rm mnt/file")
    done = union.unionfs("commit --yes mnt/x/y/z")
    assert done.out.splitlines()[:3] == ["added    /x", "added    /x/y", "added    /x/y/z"]
    assert union.ls("lower/x") == ["y"]
    assert union.ls("lower") == ["dir", "file", "one", "x"]
    assert union.unionfs("diff mnt").out == "deleted  /file\nadded    /x/other\n"


def test_a_deleted_path_can_be_named(union):
    shell(union, "rm mnt/dir/inner mnt/file")
    assert union.unionfs("commit --yes mnt/dir/inner").status == 0
    assert union.ls("lower/dir") == ["sub", "two"]
    assert os.path.exists(union.at("lower/file"))


def test_nothing_is_done_without_a_yes(union):
    shell(union, "rm mnt/file")
    asked = union.unionfs("commit mnt", stdin=subprocess.DEVNULL)
    assert (asked.status, asked.out) == (2, "deleted  /file\n")
    assert "--yes" in asked.err
    assert union.unionfs("commit --dry-run mnt") == Result(0, "deleted  /file\n", "")
    assert os.path.exists(union.at("lower/file"))


def test_one_that_was_broken_off_is_gone_on_with(union):
    shell(union, "mkdir -p lower/.unionfs-commit/3/x; touch lower/.unionfs-commit/1; rm mnt/file")
    assert union.unionfs("commit --yes mnt/file").status == 0
    assert union.ls("lower") == ["dir", "one"]


def test_a_lower_on_a_file_system_that_is_read_only_is_so_afterwards(bench):
    shell(bench, "truncate -s 16M image; mkfs.ext4 -q image; mkdir disk; mount -o loop image disk")
    try:
        shell(bench, "echo 1 >disk/f; mount -o remount,ro disk")
        assert bench.unionfs("mount --lower disk --ram 8M mnt").status == 0
        shell(bench, "echo 2 >mnt/f")
        assert bench.unionfs("commit --yes mnt/f").status == 0
        assert bench.read("disk/f") == "2\n"
        with pytest.raises(OSError, match="Read-only"):
            bench.write("disk/f", "3")
        assert bench.unionfs("umount mnt").status == 0
    finally:
        shell(bench, "umount disk")


def test_several_lowers_are_refused(bench):
    os.mkdir(bench.at("other"))
    assert bench.unionfs("mount --lower lower --lower other --ram 8M mnt").status == 0
    refused = bench.unionfs("commit --yes mnt")
    assert (refused.status, refused.out) == (2, "")
    assert "2 lower layers" in refused.err
    assert bench.unionfs("umount mnt").status == 0


# The names of the lower, and those that the changes make, on both sides and across.
PERSIST = ["/dir", "!/dir/sub", "/one", "/n", "/x/y", "/moved"]
RULES = " ".join(f"--persist {rule}" for rule in PERSIST)
SIDED = f"mount --lower lower --ram 16M --state state {RULES} mnt"
PERSISTED = " ".join(f"mnt{rule}" for rule in PERSIST if not rule.startswith("!"))


@pytest.fixture
def sided(bench):
    """A union with two sides; `reboot` mounts it again."""
    shell(
        bench, "mkdir -p lower/dir/sub state; echo inner >lower/dir/inner; echo q >lower/dir/sub/q"
    )
    shell(bench, "echo 1 >lower/one; ln lower/one lower/dir/two")
    assert bench.unionfs(SIDED).status == 0
    yield bench
    assert bench.unionfs("umount mnt").status == 0


def reboot(bench):
    assert bench.unionfs("umount mnt").status == 0
    assert bench.unionfs(SIDED).status == 0


ACROSS = {
    "a file gets a second name, and is changed": "cd mnt; ln file dir/second; echo 2 >>file",
    "one that persists gets one": "cd mnt; echo 1 >n; ln n dir/2; ln n m; echo 2 >>m",
    "and loses its own": "cd mnt; echo 1 >n; ln n m; ln m x; rm n",
    "replaced as passwd does": "cd mnt; echo 1 >none; ln one old; mv none one",
}


@pytest.mark.parametrize("change", (CHANGES | ACROSS).values(), ids=CHANGES | ACROSS)
def test_of_two_sides_the_lower_becomes_what_the_union_shows(sided, change):
    shell(sided, change)
    shown = portrait(sided.at("mnt"))
    done = sided.unionfs(f"commit --yes mnt {PERSISTED}")
    assert (done.status, done.err) == (0, "")
    assert portrait(sided.at("lower")) == shown
    assert portrait(sided.at("mnt")) == shown
    forget(sided.at("mnt"))
    assert portrait(sided.at("mnt")) == shown
    if " ln " in f" {change}":  # the names that scratch has of it are another file after a reboot
        reboot(sided)
        assert without_links(portrait(sided.at("mnt"))) == without_links(shown)
        return
    for what in ("mnt", "--state mnt"):
        assert sided.unionfs(f"diff {what}") == Result(0, "", "")
    reboot(sided)
    assert portrait(sided.at("mnt")) == shown


def test_what_persists_is_carried_only_where_it_is_named(sided):
    shell(sided, "cd mnt; mkdir -p x/y; echo 1 >x/y/z; echo 2 >x/f; echo 3 >dir/inner; rm one file")
    assert sided.unionfs("commit --yes mnt").status == 0
    assert portrait(sided.at("lower")).keys() == {"dir", "dir/inner", "dir/sub", "dir/sub/q",
                                                  "dir/two", "one", "x", "x/f"}  # fmt: skip
    assert sided.read("lower/dir/inner") == "inner\n"
    assert sided.unionfs("commit --yes mnt/dir/inner mnt/x/y/z").status == 0
    assert (sided.read("lower/dir/inner"), sided.ls("lower/x")) == ("3\n", ["f", "y"])


def test_what_persists_and_was_carried_can_be_deleted_for_good(sided):
    shell(sided, "cd mnt; mkdir -p x/y/z; echo 1 >x/y/z/f; echo 2 >x/y/g; echo 3 >n; rm one")
    assert sided.unionfs(f"commit --yes {PERSISTED}").status == 0
    assert sided.ls("lower/x/y") == ["g", "z"]
    reboot(sided)
    shell(sided, "cd mnt; rm -r x/y/z x/y/g n; echo again >one")
    reboot(sided)
    assert (sided.ls("mnt"), sided.ls("mnt/x/y")) == (["dir", "file", "one", "x"], [])


def test_it_can_be_deleted_at_once(sided):
    shell(sided, "cd mnt; mkdir -p x/y/z; echo 1 >x/y/z/f; echo 2 >x/y/g; echo 3 >n")
    assert sided.unionfs(f"commit --yes {PERSISTED}").status == 0
    shell(sided, "cd mnt; rm -r x/y/z x/y/g n")
    reboot(sided)
    assert (sided.ls("mnt"), sided.ls("mnt/x/y")) == (["dir", "file", "one", "x"], [])


def test_where_state_is_lost_what_should_persist_is_carried_only_where_it_is_named(bench):
    assert bench.unionfs("mount --lower lower --ram 16M --state none --persist /a mnt").status == 0
    shell(bench, "echo 1 >mnt/a; echo 2 >mnt/b")
    assert bench.unionfs("commit --yes mnt").status == 0
    assert bench.ls("lower") == ["b", "file"]
    assert bench.unionfs("commit --yes mnt/a").status == 0
    assert bench.ls("lower") == ["a", "b", "file"]
    assert bench.unionfs("umount mnt").status == 0


def portrait(top):
    """Return all that is to be seen below *top*: kinds, owners, modes, times, contents, links."""
    seen, firsts = {}, {}
    for path in sorted(Path(top).rglob("*")):
        st = path.lstat()
        what = [
            oct(st.st_mode),
            st.st_uid,
            st.st_gid,
            sorted(os.listxattr(path, follow_symlinks=False)),
        ]
        if path.is_symlink():
            what.append(os.readlink(path))
        elif path.is_file():
            what += [path.read_text(), st.st_mtime_ns, st.st_nlink]
            if st.st_nlink > 1:  # else the number may be that of a lower's file that is gone
                what.append(firsts.setdefault(st.st_ino, path.name))
        seen[str(path.relative_to(top))] = what
    return seen


def without_links(seen):
    return {path: what[:6] for path, what in seen.items()}
