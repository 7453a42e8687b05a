"""`unionfs maintain`: the lower is writable for one command, and for nobody else."""

import os
import signal
import subprocess

import pytest

from tests.commands.conftest import wait_for


def shell(bench, line):
    subprocess.run(["sh", "-euc", line], cwd=bench.path, check=True)


SIDES = {
    "one side": "--ram 8M",
    "two sides": "--ram 8M --state state --persist /f --persist /big",
}


@pytest.fixture(params=SIDES.values(), ids=SIDES)
def union(bench, request):
    """A union over an ext4 that is mounted read-only and holds a few programs."""
    os.mkdir(bench.at("state"))
    shell(bench, "truncate -s 32M image; mkfs.ext4 -q image; mkdir disk; mount -o loop image disk")
    try:
        shell(bench, "cd disk; mkdir bin proc sys dev run; echo old >f; cp $(which busybox) bin/")
        shell(bench, "cd disk/bin; for name in sh sleep touch cat; do ln busybox $name; done")
        shell(bench, "mount -o remount,ro disk")
        assert bench.unionfs(f"mount --lower disk {request.param} mnt").status == 0
        bench.options = request.param
        yield bench
        assert bench.unionfs("umount mnt").status == 0
    finally:
        shell(bench, "umount disk")


def is_read_only(bench):
    try:
        bench.write("disk/f", "by somebody else")
    except OSError:
        return True
    return False


def maintain(bench, script, **kwargs):
    return bench.run([*bench.words("maintain --union mnt -- sh -c"), script], **kwargs)


def test_a_command_changes_the_lower_and_its_status_is_returned(union):
    done = maintain(union, "echo new >/f; exit 7")
    assert (done.status, done.err) == (7, "")
    assert union.read("disk/f") == "new\n"
    assert is_read_only(union)


def test_kernel_places_are_there_and_the_union_goes_on(union):
    assert maintain(union, "cat /proc/self/comm; : >/dev/null").out == "cat\n"
    assert union.ls("mnt") == union.ls("disk")


def test_nobody_else_can_write_meanwhile(union):
    with union.start("maintain --union mnt -- sleep 300") as running:
        wait_for(lambda: sleeping(union))
        assert is_read_only(union)
        running.send_signal(signal.SIGINT)  # for the command alone: nothing comes of it
        kill_command(union)
    assert is_writable_for_root_mount(union) is False


def kill_command(bench):
    for pid in sleeping(bench):
        os.kill(pid, signal.SIGTERM)


def sleeping(bench):
    return [pid for pid, line in bench.processes() if line.startswith("sleep")]


def is_writable_for_root_mount(bench):
    """Tell whether the file system, not only a mount of it, can be written to."""
    with open("/proc/self/mountinfo") as lines:
        (line,) = [line for line in lines if f" {bench.at('disk')} " in line]
    return line.split(" - ")[1].split()[2].split(",")[0] == "rw"


@pytest.mark.parametrize("whom", ["waiting", "guard"])
def test_it_is_read_only_again_whoever_is_killed(union, whom):
    with union.start(
        "maintain --union mnt -- sh -c 'sleep 300; :'", stderr=subprocess.DEVNULL
    ) as running:
        wait_for(lambda: sleeping(union))
        assert is_writable_for_root_mount(union)
        with open(f"/proc/{running.pid}/task/{running.pid}/children") as children:
            guard = int(children.read().split()[0])
        os.kill(running.pid if whom == "waiting" else guard, signal.SIGKILL)
        running.wait()
        kill_command(union)
        wait_for(lambda: not is_writable_for_root_mount(union))


def test_the_lower_is_read_only_again_where_a_file_that_was_read_is_removed(union):
    assert union.read("mnt/f") == "old\n"
    done = maintain(union, "rm /f")
    assert (done.status, done.err) == (0, "")
    assert is_writable_for_root_mount(union) is False


def test_who_has_a_file_open_that_is_replaced_goes_on_reading_the_old_one(union):
    shell(union, "mount -o remount,rw disk; head -c 1000000 /dev/zero >disk/big")
    shell(union, "cp disk/big disk/other; mount -o remount,ro disk")
    with (
        open(union.at("mnt/big"), "rb", 0) as begun,
        open(union.at("mnt/other"), "rb", 0) as unread,
    ):
        assert begun.read(1) == b"\0"
        begun.seek(0)
        assert maintain(union, "for f in big other; do echo new >/new; mv /new /$f; done").err == ""
        assert is_writable_for_root_mount(union) is False
        for file in (begun, unread):  # all that the page cache can do without is read again
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            assert os.fstat(file.fileno()).st_size == 1000000
            data = file.read()
            assert len(data) == 1000000, file.name
            assert not data.strip(b"\0"), file.name
    assert union.read("disk/big") == "new\n"


def test_a_program_goes_on_that_is_replaced(union):
    with subprocess.Popen([union.at("mnt/bin/sleep"), "0"], stdout=subprocess.PIPE) as first:
        assert first.wait() == 0
    with subprocess.Popen(
        [union.at("mnt/bin/sh"), "-c", "read line; echo $line"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as program:  # fmt: skip
        assert maintain(union, "cat /bin/busybox >/new; rm /bin/*; mv /new /bin/busybox").err == ""
        assert is_writable_for_root_mount(union) is False
        assert program.communicate("still here\n")[0] == "still here\n"


def test_what_is_in_use_and_has_no_room_above_is_said(union):
    shell(union, "mount -o remount,rw disk; head -c 12000000 /dev/urandom >disk/big")
    shell(union, "mount -o remount,ro disk")
    with open(union.at("mnt/big"), "rb") as file:
        assert file.read(1)
        done = maintain(union, "rm /big")
        assert done.status == 1
        assert "is STILL WRITABLE" in done.err


def test_what_a_command_leaves_running_is_ended(union):
    assert maintain(union, "sleep 300 </dev/null >/dev/null 2>&1 &").status == 0
    assert sleeping(union) == []
    assert is_writable_for_root_mount(union) is False


def test_a_command_that_there_is_not(union):
    assert union.unionfs("maintain --union mnt -- nonesuch").status == 127
    assert is_writable_for_root_mount(union) is False


@pytest.mark.parametrize("command", ["maintain --union mnt -- true", "commit --yes mnt/f"])
def test_a_lower_is_left_alone_where_upper_has_no_room_for_files_in_part(bench, command):
    """Of which blocks of two versions would meet: the file has 3 MiB, upper 1."""
    shell(bench, "head -c 3000000 /dev/urandom >lower/big; echo old >lower/f; cp lower/big model")
    assert bench.unionfs("mount --lower lower --ram 1M mnt").status == 0
    try:
        shell(bench, "echo new >mnt/f; printf x | tee model.head | dd conv=notrunc of=mnt/big")
        shell(bench, "dd conv=notrunc if=model.head of=model")
        done = bench.unionfs(command)
        assert done.status == 2
        assert "has no room in its upper for the rest of the files" in done.err
        assert bench.read("lower/f") == "old\n"
        shell(bench, "cmp mnt/big model; printf y | dd conv=notrunc seek=9 of=mnt/big")
        shell(bench, "rm mnt/big")
        assert "has no room" not in bench.unionfs(command).err
    finally:
        assert bench.unionfs("umount mnt").status == 0


@pytest.mark.parametrize("union", [SIDES["two sides"]], indirect=True)
def test_what_persists_stays_as_it_was_made_and_the_rest_is_the_new_lowers(union):
    union.write("mnt/f", "mine\n")
    assert maintain(union, "echo new >/f; echo more >/g").status == 0
    assert union.read("mnt/f") == "mine\n"
    assert union.unionfs("umount mnt").status == 0
    assert union.unionfs(f"mount --lower disk {union.options} mnt").status == 0
    assert (union.read("mnt/f"), union.read("mnt/g")) == ("mine\n", "more\n")
    told = union.unionfs("diff --state mnt").out
    assert told == "changed  /f (content); differs from the new lower\n"
