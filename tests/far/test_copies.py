"""Files that are copied up from a far lower."""

import errno
import os
import subprocess

import pytest

from tests.mounted import disks

MIB = 1 << 20


@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
def test_a_copy_up_takes_its_room_once(far, base, kind):
    text = "0123456789abcdef" * (20 * MIB // 16)
    with disks.writable(kind, base, 32) as place:
        mount, _server = far({"d": {"large": text}}, place=place)
        with (mount.path / "d/large").open("a") as file:
            file.write("more")
        assert (mount.path / "d/large").read_text() == text + "more"
        assert (place / "upper/d/large").stat().st_nlink == 1
        mount.stop()


def test_a_file_too_large_for_upper_is_not_copied_up(far, base):
    text = "0123456789abcdef" * (20 * MIB // 16)
    with disks.writable("tmpfs", base, 16) as place:
        mount, _server = far({"large": text}, place=place)
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            (mount.path / "large").open("a")
        assert (mount.path / "large").read_text() == text
        assert os.listdir(place / "upper") == []
        assert "No space left" in mount.take_log()
        mount.stop()


def test_a_copy_takes_nothing_from_works_own_directory(far, base):
    with disks.writable("ext4", base) as place:
        mount, _server = far({"f": "text" * 1000}, place=place)
        subprocess.run(["setfacl", "-d", "-m", "u:1:rwx", place / "work"], check=True)
        with (mount.path / "f").open("a") as file:
            file.write("more")
        os.chmod(mount.path / "f", 0o640)
        assert "system.posix_acl_access" not in os.listxattr(place / "upper/f")
        mount.stop()
