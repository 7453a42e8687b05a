"""Lines of /proc/self/mountinfo."""

import pytest

from unionfs.host.mountinfo import MountInfo, parse, top_at


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n",
            MountInfo(
                36,
                "98:0",
                "/mnt2",
                "ext3",
                "/dev/root",
                {"rw": "", "errors": "continue"},
                frozenset({"rw", "noatime"}),
                "/mnt1",
            ),
        ),
        (
            r"36 35 0:40 / /a\040b rw - fuse.unionfs un\134ion rw" + "\n",
            MountInfo(36, "0:40", "/a b", "fuse.unionfs", "un\\ion", {"rw": ""}, frozenset({"rw"})),
        ),
        (
            "36 35 0:40 / /m rw shared:1 - overlay o rw,upperdir=/a\\054b,workdir=/ü\n",
            MountInfo(
                36,
                "0:40",
                "/m",
                "overlay",
                "o",
                {"rw": "", "upperdir": "/a,b", "workdir": "/ü"},
                frozenset({"rw"}),
            ),
        ),
    ],
)
def test_a_line_says(line, expected):
    assert parse(line) == expected


def test_the_root_is_mounted():
    assert top_at("/").target == "/"


def test_nothing_is_mounted_where_nothing_is(tmp_path):
    assert top_at(str(tmp_path)) is None
