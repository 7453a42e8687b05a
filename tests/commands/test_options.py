"""What the words of a user mean."""

import subprocess

import pytest

from unionfs.commands.arguments import before_parsing
from unionfs.host import mountcalls as m
from unionfs.host.mountinfo import top_at
from unionfs.mounting.options import (
    Options,
    Refused,
    checked_size,
    parse,
    settled,
    split_escaped,
    unescape,
)


@pytest.mark.parametrize(
    ("strings", "expected"),
    [
        ([""], {}),
        ([",,"], {}),
        (["lowerdir=/a"], {"lowers": ("/a",)}),
        (["lowerdir=/a:/b:/c"], {"lowers": ("/a", "/b", "/c")}),
        ([r"lowerdir=/a\:b:/c\,d:/e\\f"], {"lowers": ("/a:b", "/c,d", "/e\\f")}),
        ([r"lowerdir=/a\,"], {"lowers": ("/a,",)}),
        (["lowerdir=/a,lowerdir+=/b,lowerdir+=/c:d"], {"lowers": ("/a", "/b", "/c:d")}),
        (["lowerdir=/a", "lowerdir=/b"], {"lowers": ("/b",)}),
        ([r"upperdir=/u\,1,workdir=/w\:2"], {"upper": "/u,1", "work": "/w:2"}),
        (["upperdir=/u=1"], {"upper": "/u=1"}),
        (["ram"], {"ram": ""}),
        (["ram=10%"], {"ram": "10%"}),
        (["ro"], {"flags": m.MS_RDONLY}),
        (["ro,rw"], {}),
        (["ro", "rw,nosuid"], {"flags": m.MS_NOSUID}),
        (["nosuid,nodev,noexec"], {"flags": m.MS_NOSUID | m.MS_NODEV | m.MS_NOEXEC}),
        (["nosuid,nodev,noexec,suid,dev,exec"], {}),
        (["ro,nosuid,defaults"], {"flags": m.MS_RDONLY | m.MS_NOSUID}),
        (["noatime,relatime"], {"flags": m.MS_NOATIME | m.MS_RELATIME}),
        (["noatime,atime"], {}),
        (["sync,async,dirsync"], {"flags": m.MS_DIRSYNC}),
        (["auto,noauto,nofail,_netdev,allow_other,default_permissions"], {}),
        (["x-systemd.automount,x-gvfs-hide,comment=systemd.automount,X-mount.mkdir=0700"], {}),
        (["user_id=0,group_id=0,max_read=4096"], {}),
        ([r"fsname=a\,b,subtype=pyunionfs"], {"source": "a,b", "subtype": "pyunionfs"}),
        (["remount,ro"], {"remount": True, "flags": m.MS_RDONLY}),
        (["metacopy=off,redirect_dir=on"], {"metacopy": "off", "redirect_dir": "on"}),
        (["whiteout=aufs,fsync=strict"], {"whiteout": "aufs", "fsync": "strict"}),
        (["passthrough=all,loop=off,handshake=off"],
         {"passthrough": "all", "loop": "off", "handshake": "off"}),
    ],
)  # fmt: skip
def test_options_mean(strings, expected):
    assert parse(strings, Options()) == Options(**expected)


FLAGS = [
    "defaults", "ro,defaults", "noatime,defaults", "noatime,relatime", "strictatime,noatime",
    "noatime,strictatime", "strictatime,relatime", "noatime,atime", "strictatime,atime",
    "norelatime", "noatime,norelatime", "strictatime,norelatime", "nostrictatime",
    "strictatime,nostrictatime", "noatime,nostrictatime", "nodiratime", "nodiratime,noatime",
    "nodiratime,strictatime", "noatime,diratime", "nodiratime,diratime", "nodiratime,atime",
    "ro,rw", "nosuid,suid", "nodev,dev", "noexec,exec", "nosuid,nodev,noexec", "sync", "sync,async",
    "dirsync", "nolazytime", "noiversion", "nomand", "silent", "loud", "auto,nofail,_netdev",
]  # fmt: skip


@pytest.mark.parametrize("words", FLAGS)
def test_flags_are_those_that_mount8_gives_a_mount(tmp_path, words):
    def by_mount8():
        subprocess.run(["mount", "-t", "tmpfs", "-o", words, "tmpfs", tmp_path], check=True)

    def by_us():
        m.mount("tmpfs", str(tmp_path), "tmpfs", parse([words], Options()).flags)

    shown = []
    for mount in (by_mount8, by_us):
        mount()
        mounted = top_at(str(tmp_path))
        m.umount(str(tmp_path))
        shown.append((mounted.flags, mounted.options))
    assert shown[1] == shown[0]


@pytest.mark.parametrize(
    ("string", "message"),
    [
        ("bogus", "unknown option 'bogus'"),
        ("bogus=1", "unknown option 'bogus=1'"),
        ("ro=1", "unknown option 'ro=1'"),
        ("nofail=1", "unknown option 'nofail=1'"),
        ("user", "only root can mount"),
        ("index=on", "hard links are always kept"),
        ("volatile", "fsync=off"),
        ("metacopy", "metacopy is one of on, off"),
        ("metacopy=maybe", "metacopy is one of on, off"),
        ("redirect_dir=follow", "redirect_dir is one of on, off"),
        ("whiteout=", "whiteout is one of overlay, aufs"),
        ("fsync=on", "fsync is one of auto, strict, off"),
        ("lowerdir", "'lowerdir' needs a value"),
        ("lowerdir=", "'lowerdir' needs a value"),
        ("lowerdir=/a::/b", "empty name"),
        ("lowerdir=/a:", "empty name"),
        ("upperdir=", "'upperdir' needs a value"),
        ("ram=lots", "bad size 'lots'"),
        ("remount=ro", "unknown option 'remount=ro'"),
    ],
)
def test_refused_options_are_named(string, message):
    with pytest.raises(Refused, match=message):
        parse([string], Options())


@pytest.mark.parametrize("size", ["", "1", "4096", "512M", "512m", "64k", "2G", "1t", "1%", "100%"])
def test_sizes_of_tmpfs_are_taken(size):
    assert checked_size(size) == size


@pytest.mark.parametrize(
    "size", ["0", "0M", "-1", "1.5G", "12Q", "512MB", "101%", "0%", "%", "M", " 1", "1\n", "lots"]
)
def test_other_sizes_are_refused(size):
    with pytest.raises(Refused, match="bad size"):
        checked_size(size)


@pytest.mark.parametrize(
    ("said", "metacopy", "redirect_dir"),
    [
        ({}, "on", "on"),
        ({"metacopy": "off"}, "off", "on"),
        ({"redirect_dir": "off"}, "off", "off"),
        ({"metacopy": "on"}, "on", "on"),
        ({"metacopy": "off", "redirect_dir": "off"}, "off", "off"),
        ({"whiteout": "aufs"}, "off", "off"),
        ({"whiteout": "aufs", "metacopy": "off"}, "off", "off"),
    ],
)
def test_what_was_not_said_is_decided(said, metacopy, redirect_dir):
    options = settled(Options(**said))
    assert (options.metacopy, options.redirect_dir) == (metacopy, redirect_dir)


@pytest.mark.parametrize(
    ("said", "copyup"),
    [
        ({"ram": ""}, "blocks"),
        ({"ram": "", "noopen": "on"}, "blocks"),
        ({"ram": "", "copyup": "blocks"}, "blocks"),
        ({"ram": "", "copyup": "whole"}, "whole"),
        ({"ram": "", "metacopy": "off"}, "whole"),
        ({"ram": "", "redirect_dir": "off"}, "whole"),
        ({"ram": "", "whiteout": "aufs"}, "whole"),
        ({"ram": "", "state": "/s", "persist": ("/x",)}, "blocks"),
        ({"upper": "/u", "work": "/w", "state": "/s", "persist": ("/x",)}, "whole"),
        ({"upper": "/u", "work": "/w"}, "whole"),
        ({"upper": "/u", "work": "/w", "copyup": "blocks"}, "blocks"),
        ({}, "whole"),
    ],
    ids=str,
)
def test_a_ram_upper_gets_copies_by_blocks(said, copyup):
    assert settled(Options(lowers=("/a",), **said)).copyup == copyup


def test_what_is_not_opened_does_not_pass_through():
    assert settled(Options(noopen="on")).passthrough == "off"
    assert settled(Options()).passthrough == "upper"


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"metacopy": "on", "redirect_dir": "off"}, "metacopy=on needs redirect_dir=on"),
        ({"whiteout": "aufs", "metacopy": "on"}, "metacopy=on and whiteout=aufs"),
        ({"whiteout": "aufs", "redirect_dir": "on"}, "redirect_dir=on and whiteout=aufs"),
        ({"upper": "/u"}, "needs a work directory"),
        ({"work": "/w"}, "without an upper"),
        ({"ram": "", "upper": "/u", "work": "/w"}, "exclude each other"),
        ({"ram": "1M", "work": "/w"}, "exclude each other"),
        ({"lowers": ("/a", "/b"), "far": "3"}, "there is no lower 3"),
        ({"lowers": ("/a", "/b"), "near": "1:3"}, "there is no lower 3"),
        ({"lowers": ("/a", "/b"), "near": "1", "far": "1:2"}, "both far and near: 1"),
        ({"lowers": ("/a", "/b"), "near": "all", "far": "all"}, "both far and near: all"),
        ({"noopen": "on", "passthrough": "all"}, "noopen=on and passthrough=all exclude"),
        ({"noopen": "on", "direct": "off"}, "noopen=on needs direct=on"),
        ({"noopen": "on", "loop": "off"}, "noopen=on needs loop=on"),
        ({"noopen": "on", "handshake": "off"}, "noopen=on needs handshake=on"),
        ({"copyup": "blocks"}, "copyup=blocks without an upper"),
        (
            {"copyup": "blocks", "upper": "/u", "work": "/w", "metacopy": "off"},
            "copyup=blocks needs metacopy=on",
        ),
        ({"copyup": "blocks", "ram": "", "metacopy": "off"}, "copyup=blocks needs metacopy=on"),
        ({"copyup": "blocks", "ram": "", "whiteout": "aufs"}, "copyup=blocks needs metacopy=on"),
        ({"fill": "on", "ram": ""}, "fill=on and a RAM upper exclude each other"),
        ({"fill": "on", "upper": "/u", "work": "/w"}, "fill=on needs copyup=blocks"),
        (
            {"copyup": "blocks", "upper": "/u", "work": "/w", "state": "/s", "persist": ("/x",)},
            "copyup=blocks beside a state directory",
        ),
    ],
)
def test_contradictions_are_refused(said, message):
    with pytest.raises(Refused, match=message):
        settled(Options(**said))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--ram", "/mnt"], ["--ram=", "/mnt"]),
        (["--ram", "512M", "/mnt"], ["--ram=512M", "/mnt"]),
        (["--ram", "50%", "/mnt"], ["--ram=50%", "/mnt"]),
        (["--ram", "12Q", "/mnt"], ["--ram=12Q", "/mnt"]),
        (["--ram", "--lower", "9"], ["--ram=", "--lower", "9"]),
        (["--ram=1M", "9"], ["--ram=1M", "9"]),
        (["/mnt", "--ram"], ["/mnt", "--ram"]),
        (["--ram", "--", "9"], ["--ram", "--", "9"]),
        (["--", "command", "--ram", "5"], ["--", "command", "--ram", "5"]),
        (["--ram", "9/mnt"], ["--ram=", "9/mnt"]),
    ],
)
def test_the_word_after_ram_is_a_size_only_if_it_looks_like_one(words, expected):
    assert before_parsing(words) == expected


@pytest.mark.parametrize("name", ["a", "a:b", "a,b", "a\\b", "\\", ",", "::", "a\\:b\\", "é, ü"])
def test_escaped_names_come_back(name):
    escaped = name.replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")
    assert parse([f"lowerdir={escaped}:/x"], Options()).lowers == (name, "/x")
    assert unescape(escaped) == name
    assert split_escaped(escaped, ",") == [escaped]
