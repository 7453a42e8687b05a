"""What each granted flag changes, seen from the requests that arrive."""

import mmap
import os
import stat

import pytest

ON = {"handshake": True}
OFF = {"handshake": False}
WHOLE_PAGES = 25 * mmap.PAGESIZE  # the kernel reads again what was written in part


@pytest.fixture
def _umask():
    old = os.umask(0o027)
    yield
    os.umask(old)


@pytest.mark.usefixtures("_umask")
@pytest.mark.parametrize(("switches", "mode"), [(ON, 0o777), (OFF, 0o750)], ids=str)
def test_the_umask_is_ours_to_apply_exactly_when_granted(mirror, switches, mode):
    served = mirror(switches=switches)
    os.mkdir(served.point + "/d", 0o777)
    assert stat.S_IMODE(os.stat(served.source + "/d").st_mode) == mode
    assert served.ask()["umasks"] == [0o027]


@pytest.mark.parametrize(("switches", "requests"), [(ON, 1), (OFF, 3)], ids=str)
def test_symbolic_links_are_read_once_when_cached(mirror, switches, requests):
    served = mirror({"f": ""}, switches=switches)
    os.symlink("f", served.source + "/link")
    for _ in range(3):
        os.stat(served.point + "/link")
    assert served.counts("readlink") == [requests]


@pytest.mark.parametrize(("switches", "requests"), [(ON, 1), (OFF, 50)], ids=str)
def test_writing_asks_for_no_capabilities_when_killing_them_is_ours(mirror, switches, requests):
    served = mirror(switches={**switches, "passthrough": False})
    with open(served.point + "/f", "wb", buffering=0) as file:
        (before,) = served.counts("getxattr")
        file.writelines([b"x"] * 50)
        writes, after = served.counts("write", "getxattr")
    assert (writes, after - before) == (50, requests)


@pytest.mark.parametrize(("cache", "more"), [(True, 0), (False, 2)])
def test_a_cached_listing_is_not_asked_for_again(mirror, cache, more):
    served = mirror(dict.fromkeys("abc", ""), cache_listing=cache)
    assert sorted(os.listdir(served.point)) == ["a", "b", "c"]
    (before,) = served.counts("readdir")
    assert sorted(os.listdir(served.point)) == ["a", "b", "c"]
    assert served.counts("readdir") == [before + more]


def test_a_cached_listing_shows_what_the_mount_itself_changes(mirror):
    served = mirror({"a": "", "b": ""}, cache_listing=True)
    for _ in range(2):
        os.listdir(served.point)
    os.unlink(served.point + "/a")
    os.mkdir(served.point + "/c")
    assert sorted(os.listdir(served.point)) == ["b", "c"]


def test_the_kernel_reads_ahead_more_than_by_default(mirror):
    served = mirror({"f": ""})
    device = os.stat(served.point).st_dev
    name = f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb"
    with open(name, encoding="ascii") as file:
        assert int(file.read()) > 128


@pytest.mark.parametrize("passthrough", [False, True])
def test_what_was_written_stays_cached(mirror, passthrough):
    served = mirror(switches={"passthrough": passthrough})
    with open(served.point + "/f", "w+b", buffering=0) as file:
        file.write(b"x" * WHOLE_PAGES)
        file.seek(0)
        assert file.read() == b"x" * WHOLE_PAGES
    assert served.counts("read")[0] == 0
