"""shadow's programs change accounts in a union of this machine's root, and only there."""

import hashlib
from pathlib import Path

import pytest

FILES = ("passwd", "shadow", "group", "gshadow", "subuid", "subgid")


@pytest.fixture(autouse=True)
def _the_real_files_stay():
    def sums():
        return {
            path: (hashlib.sha1(path.read_bytes()).hexdigest(), path.stat().st_ino)
            for name in FILES
            for path in Path("/etc").glob(f"{name}*")
        }

    before = sums()
    yield
    assert sums() == before


def test_a_user_and_a_group_are_added_changed_and_removed(inside):
    done = inside("""
        groupadd -g 54321 lab
        useradd -m -u 54321 -g lab -s /bin/sh ada
        usermod -c 'Ada Lovelace' -aG daemon ada
        gpasswd -a ada bin >/dev/null
        chsh -s /bin/false ada
        groupmod -n laboratory lab
        getent passwd ada; id -Gn ada; ls -a /home/ada | head -1
        ls /etc | grep -E '^(passwd|shadow|group|gshadow)' | grep -E '[+]|lock|[.][0-9]' || true
        userdel -r ada
        groupdel laboratory
        getent passwd ada || echo gone
        ls -d /home/ada 2>&1 | grep -c 'No such'
    """)
    assert done.out.splitlines() == [
        "ada:x:54321:54321:Ada Lovelace:/home/ada:/bin/false",
        "laboratory daemon bin",
        ".",
        "gone",
        "1",
    ]
    assert done.status == 0


def test_passwords_are_changed_by_passwd_and_chpasswd(inside):
    done = inside("""
        useradd ada
        printf 'first-Word1\\nfirst-Word1\\n' | passwd ada
        one=$(getent shadow ada)
        echo 'ada:second-Word2' | chpasswd
        two=$(getent shadow ada)
        [ "$one" != "$two" ] && echo changed
        passwd --status ada | cut -d ' ' -f 1,2
        passwd -l ada
        passwd --status ada | cut -d ' ' -f 1,2
        stat -c '%a %U %G %h' /etc/shadow
    """)
    assert done.status == 0, done.err
    lines = done.out.splitlines()
    assert [lines[0], lines[1], lines[3]] == ["changed", "ada P", "ada L"]
    st = Path("/etc/shadow").stat()
    assert lines[4].startswith(f"{st.st_mode & 0o777:o} ")
    assert lines[4].endswith(" 1")


def test_root_changes_its_own_password(inside):
    done = inside("echo 'root:some-Word3' | chpasswd && passwd --status root | cut -d ' ' -f 2")
    assert (done.status, done.out) == (0, "P\n")


@pytest.mark.parametrize(("words", "file"), [("", "passwd"), ("-s", "shadow"), ("-g", "group")])
def test_vipw_with_a_scripted_editor(inside, words, file):
    done = inside(f"""
        printf '#!/bin/sh\\nsed -i "s/^root:/&/; \\\\$ a edited:x:4242:" "$1"\\n' >/tmp/edit
        chmod 755 /tmp/edit
        EDITOR=/tmp/edit VISUAL=/tmp/edit vipw {words} >/dev/null
        tail -n 1 /etc/{file}
        cmp -s /etc/{file} /etc/{file}- && echo same || echo kept
    """)
    assert done.out.splitlines() == ["edited:x:4242:", "kept"], done.err
    assert done.status == 0


def test_ten_users_are_added_at_once(inside):
    done = inside("""
        for n in 0 1 2 3 4 5 6 7 8 9; do
            (until useradd "user$n" 2>/dev/null; do sleep 0.1; done) &
        done
        wait
        grep -c '^user[0-9]:' /etc/passwd; grep -c '^user[0-9]:' /etc/shadow
    """)
    assert done.out.split() == ["10", "10"]
