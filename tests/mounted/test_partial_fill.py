"""Files in part on a disk, whose rest comes while nobody asks for anything: fill=on."""

import mmap
import os
import random
import signal
import time

import pytest

from tests.forgetting import forget
from tests.mounted import fsx
from tests.mounted.mount import wait_until
from tests.mounted.test_partial_disk import (
    BLOCK,
    BLOCKS,
    INCOMPLETE,
    METACOPY,
    SIZE,
    changed,
    is_partial,
    kernel,
    kernel_refuses,
)
from tests.mounted.witness import failure

FILL = ("copyup=blocks", "fill=on")
REDIRECT = "trusted.overlay.redirect"


@pytest.fixture
def union(on_disk):
    def build(*names, size=SIZE, options=FILL):
        return on_disk(*names, size=size, options=options)

    return build


@pytest.mark.usefixtures("disk")
@pytest.mark.parametrize("options", [(), ("noopen=on",), ("direct=off",)], ids=str)
def test_random_operations_give_what_a_plain_file_gives(base, options):
    fsx.exercise(base, 7, 1200, (*FILL, *options))


def wait_until_whole(union, *names):
    wait_until(lambda: not any(is_partial(union, name) for name in names))


def passes_through(union, path):
    """Tell whether a file is read, and written, without the daemon.

    Before a first write the kernel asks the daemon for capabilities, so the first does not count.
    """
    fd = os.open(path, os.O_RDWR)
    os.pwrite(fd, os.pread(fd, 1, 0), 0)
    os.kill(union.process.pid, signal.SIGSTOP)
    child = os.fork()
    if not child:
        os.pwrite(fd, os.pread(fd, 1, 0), 0)
        os._exit(0)
    deadline = time.monotonic() + 2
    ended = 0
    while not ended and time.monotonic() < deadline:
        ended, _ = os.waitpid(child, os.WNOHANG)
    os.kill(union.process.pid, signal.SIGCONT)
    if not ended:
        os.waitpid(child, 0)
    os.close(fd)
    return bool(ended)


@pytest.mark.parametrize("options", [(), ("noopen=on",), ("direct=off",), ("loop=off",)], ids=str)
def test_the_rest_comes_when_nobody_asks_and_the_kernel_may_have_the_upper(union, options):
    u = union("f", "g", size=4 << 20, options=(*FILL, *options))
    models = {name: changed(u, name) for name in "fg"}
    wait_until_whole(u, "f", "g")
    for name, model in models.items():
        assert (u.upper / name).read_bytes() == model
        assert not {BLOCKS, METACOPY, REDIRECT} & set(os.listxattr(u.upper / name))
        assert (u.path / name).read_bytes() == model
    wait_until(lambda: INCOMPLETE not in os.listxattr(u.upper))
    u.kill()
    with kernel(u, u.work) as path:
        assert {name: (path / name).read_bytes() for name in "fg"} == models


def test_a_file_that_was_filled_passes_through(union):
    u = union("f")
    with (u.path / "f").open("r+b"):  # as long as it is, nothing is filled
        model = changed(u, "f")
        assert not passes_through(u, u.path / "f")
    wait_until_whole(u, "f")
    wait_until(lambda: passes_through(u, u.path / "f"))  # two seconds may be few
    assert passes_through(u, u.path / "f")  # that it was opened before is in nobody's way
    assert (u.path / "f").read_bytes() == model


def test_a_file_that_is_open_for_writing_waits(union):
    u = union("f", "g")
    with (u.path / "f").open("r+b") as file:
        file.write(b"new")
        file.flush()
        changed(u, "g")
        wait_until_whole(u, "g")
        assert is_partial(u, "f")
        assert kernel_refuses(u)
    wait_until_whole(u, "f")


def test_who_had_it_open_or_mapped_goes_on(union):
    u = union("f")
    with (u.path / "f").open("rb", buffering=0) as old:
        shown = mmap.mmap(old.fileno(), SIZE, prot=mmap.PROT_READ)
        assert (old.read(3), shown[:3]) == (shown[:3], (u.lowers[0] / "f").read_bytes()[:3])
        model = bytearray(changed(u, "f"))
        reader = os.open(u.path / "f", os.O_RDONLY)
        wait_until_whole(u, "f")
        assert shown[:] == model
        for at in (0, 5 * BLOCK + 1):
            model[at : at + 4] = b"then"
            with (u.path / "f").open("r+b") as file:
                file.seek(at)
                file.write(b"then")
        assert os.pread(reader, SIZE, 0) == model
        assert os.pread(old.fileno(), SIZE, 0) == model
        assert shown[:] == model
        os.close(reader)


def test_what_an_earlier_mount_left_is_filled(union):
    u = union("d-f", "g", "h", options=("copyup=blocks",))
    models = {name: changed(u, name) for name in ("d-f", "g", "h")}
    (u.path / "d").mkdir()
    (u.path / "d-f").rename(u.path / "d" / "f")
    models["d/f"] = models.pop("d-f")
    (u.path / "g2").hardlink_to(u.path / "g")
    models["g2"] = models["g"]
    u.kill()
    u.options = FILL
    u.start()
    wait_until_whole(u, *models)
    wait_until(lambda: INCOMPLETE not in os.listxattr(u.upper))
    assert {name: (u.path / name).read_bytes() for name in models} == models
    assert (u.upper / "g").samefile(u.upper / "g2")
    u.stop()


def test_one_that_cannot_be_filled_keeps_none_of_the_others_from_it(union):
    names = [*"fghijk"]
    u = union(*names, options=("copyup=blocks",))
    models = {name: changed(u, name) for name in names}
    u.kill()
    with os.scandir(u.upper) as entries:
        first = next(entry.name for entry in entries)
    del models[first]
    (u.lowers[0] / first).rename(u.base / "gone")
    u.options = FILL
    u.start()
    wait_until_whole(u, *models)
    assert {name: (u.upper / name).read_bytes() for name in models} == models
    assert is_partial(u, first)
    assert "its content is not in the lower layers" in u.take_log()
    u.kill()


def test_it_follows_a_file_that_is_renamed_linked_and_forgotten(union):
    u = union(*"fghi", size=6 << 20)
    models = {name: changed(u, name) for name in "fghi"}
    (u.path / "f").rename(u.path / "moved")
    (u.path / "linked").hardlink_to(u.path / "g")
    (u.path / "h").unlink()
    (u.path / "i").rename(u.path / "g")
    models |= {"moved": models["f"], "linked": models["g"], "g": models["i"]}
    forget(u.path)
    names = ("moved", "linked", "g")
    wait_until_whole(u, *names)
    assert {name: (u.path / name).read_bytes() for name in names} == {
        name: models[name] for name in names
    }
    wait_until(lambda: INCOMPLETE not in os.listxattr(u.upper))
    u.stop()


@pytest.mark.parametrize("looked_up", [True, False], ids=["looked up", "unseen"])
def test_a_file_that_goes_on_by_a_name_nobody_knew_is_not_forgotten(on_disk, looked_up):
    u = on_disk("f", size=SIZE, options=("copyup=blocks",), kind=fsx.Eager)
    (u.path / "f").chmod(0o640)
    (u.path / "h").hardlink_to(u.path / "f")
    u.remount(*FILL)
    fd = os.open(u.path / "f", os.O_RDWR)
    model = bytearray(os.pread(fd, SIZE, 0))
    os.pwrite(fd, b"new", BLOCK)
    model[BLOCK : BLOCK + 3] = b"new"
    (u.path / "f").unlink()
    os.close(fd)
    if looked_up:
        assert (u.path / "h").read_bytes() == model
        wait_until_whole(u, "h")
    else:
        with pytest.raises(AssertionError):  # that it would be in a millisecond
            wait_until(lambda: INCOMPLETE not in os.listxattr(u.upper), 1)
        assert is_partial(u, "h")
    u.stop()
    assert (u.upper / "h").read_bytes() == model
    assert not {BLOCKS, METACOPY} & set(os.listxattr(u.upper / "h"))


def test_the_room_of_a_deleted_file_is_there_at_once(union):
    u = union("f", size=20 << 20)
    free = os.statvfs(u.upper).f_bfree
    with (u.path / "f").open("r+b") as file:
        file.write(random.Random(1).randbytes(10 << 20))
        assert os.statvfs(u.upper).f_bfree < free
    (u.path / "f").unlink()
    wait_until(lambda: os.statvfs(u.upper).f_bfree >= free - 16, 30)


def test_a_full_disk_stops_it_which_is_said_once_and_it_goes_on_where_there_is_room(union):
    u = union("f", "g", size=20 << 20)
    full = u.upper.parent / "full"
    with full.open("wb") as file:
        while failure(file.write, bytes(1 << 20)) == "" and os.statvfs(full).f_bavail > 1 << 10:
            file.flush()
    models = {name: changed(u, name) for name in "fg"}
    wait_until(u.log.read_text)
    assert "upper has no room to fill" in u.take_log()
    for name, model in models.items():
        assert is_partial(u, name)
        assert (u.path / name).read_bytes() == model
    full.unlink()
    wait_until_whole(u, "f", "g")
    assert {name: (u.upper / name).read_bytes() for name in "fg"} == models
    u.stop()


def test_a_lower_file_that_became_shorter_is_told_and_stays_in_part(union):
    u = union("f")
    fd = os.open(u.path / "f", os.O_RDWR)
    os.pwrite(fd, b"new", 7 * BLOCK)
    os.truncate(u.lowers[0] / "f", 2 * BLOCK)
    os.close(fd)
    wait_until(u.log.read_text)
    assert "'f' stays in upper in part" in u.take_log()
    assert is_partial(u, "f")
