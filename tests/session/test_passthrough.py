"""File data that passes by the daemon: coherent, and never the data of another file."""

import concurrent.futures
import errno
import mmap
import os
import subprocess
import sys

import pytest

SIZE = 3 * mmap.PAGESIZE


@pytest.fixture
def served(mirror):
    return mirror({"f": "a" * SIZE}, passthrough=True)


def test_reading_and_writing_send_no_requests(served):
    with open(served.point + "/f", "r+b", buffering=0) as file:
        assert file.read() == b"a" * SIZE
        file.seek(1)
        file.write(b"bc")
        with open(served.source + "/f", "rb") as backing:
            assert backing.read(4) == b"abca"
    assert served.counts("read", "write") == [0, 0]


def test_created_files_pass_through(served):
    with open(served.point + "/new", "wb", buffering=0) as file:
        file.write(b"text")
        with open(served.source + "/new", "rb") as backing:
            assert backing.read() == b"text"
    assert served.counts("write") == [0]


def test_what_is_written_to_the_backing_file_is_read_at_once(served):
    with open(served.point + "/f", "rb", buffering=0) as file:
        for text in (b"one", b"two"):
            with open(served.source + "/f", "r+b") as backing:
                backing.write(text)
            assert os.pread(file.fileno(), 3, 0) == text


def test_mappings_are_coherent_with_the_backing_file_both_ways(served):
    with (
        open(served.point + "/f", "r+b") as file,
        open(served.source + "/f", "r+b") as backing,
        mmap.mmap(file.fileno(), SIZE) as seen,
        mmap.mmap(backing.fileno(), SIZE) as below,
    ):
        seen[0:3] = b"top"
        below[-3:] = b"low"
        assert (below[0:3], seen[-3:]) == (b"top", b"low")


def test_two_opens_of_one_file_share_their_data(served):
    with (
        open(served.point + "/f", "r+b", buffering=0) as writer,
        open(served.point + "/f", "rb", buffering=0) as reader,
    ):
        writer.write(b"shared")
        assert reader.read(6) == b"shared"


def test_an_error_after_the_reply_was_diverted_reaches_the_caller(mirror):
    served = mirror({"refused-after-divert": "x", "f": "text"}, passthrough=True)
    for _ in range(3):
        with pytest.raises(PermissionError) as caught:
            os.open(served.point + "/refused-after-divert", os.O_RDONLY)
        assert caught.value.errno == errno.EPERM
        with open(served.point + "/f", "rb") as file:
            assert file.read() == b"text"
    assert served.counts("read") == [0]


def test_an_open_that_waits_after_diverting_is_an_ordinary_one(mirror):
    served = mirror({"waits-after-divert": "text", "f": "other"}, passthrough=True)
    with open(served.point + "/waits-after-divert", "rb") as file:
        assert file.read() == b"text"
    (reads,) = served.counts("read")
    assert reads > 0
    with open(served.point + "/f", "rb") as file:
        assert file.read() == b"other"
    assert served.counts("read") == [reads]


READ_THEM_ALL = """
import os, sys, threading
point, rounds = sys.argv[1], int(sys.argv[2])
names = sorted(os.listdir(point))
def read(shift):
    for index in range(rounds * len(names)):
        name = names[(index + shift) % len(names)]
        with open(f"{point}/{name}", "rb") as file:
            seen = file.read()
            assert seen == name.encode() * 10, (name, seen)
        os.stat(point + "/" + name)
threads = [threading.Thread(target=read, args=(shift,)) for shift in range(5)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""


@pytest.mark.parametrize("loop", [True, False])
def test_many_opens_at_once_each_read_their_own_file(mirror, loop):
    names = [f"slow-open-{number}" for number in range(4)] + [f"f{number}" for number in range(8)]
    files = {name: name * 10 for name in names}
    served = mirror(files, passthrough=True, cache_listing=True, switches={"loop": loop})
    command = [sys.executable, "-c", READ_THEM_ALL, served.point, "3"]
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        done = [pool.submit(subprocess.run, command, check=False, stderr=-1) for _ in range(3)]
        failures = [one.result().stderr for one in done]
    assert failures == [b""] * 3
    opens, reads = served.counts("open", "read")
    assert (opens, reads) == (3 * 5 * 3 * 12, 0)


def test_ordinary_users_writing_take_set_uid_away(served):
    path = served.point + "/f"
    os.chmod(path, 0o4777)
    script = "import os, sys; os.setuid(65534); os.write(int(sys.argv[1]), b'x')"
    with open(path, "r+b", buffering=0) as file:
        command = [sys.executable, "-c", script, str(file.fileno())]
        subprocess.run(command, check=True, pass_fds=[file.fileno()])
    assert os.stat(served.source + "/f").st_mode & 0o7777 == 0o777
    assert served.counts("write") == [0]
