"""The expectations of the crash tests hold on a union that others wrote."""

import os

from . import corpus, disks
from .plain import Plain
from .trees import differences, harvest
from .trial import Field, settled


def test_kernel_overlayfs_does_in_every_case_what_a_plain_directory_does(directory):
    field, mountpoint = Field(directory), f"{directory}/mnt"
    os.mkdir(mountpoint)
    lowers = ":".join(field.dirs.lowers)
    options = (
        f"lowerdir={lowers},upperdir={field.dirs.upper},workdir={field.dirs.work},"
        "metacopy=on,redirect_dir=on,index=on"
    )
    for case in corpus.all_cases():
        expected = field.expect(case)
        field.fresh()
        disks.run("mount", "-t", "overlay", "-o", options, "overlay", mountpoint)
        try:
            case.prepare(Plain(mountpoint))
            old = settled(harvest(mountpoint, times=True))
            assert (case.name, differences(expected.old, old)) == (case.name, [])
            case.do(Plain(mountpoint))
            new = settled(harvest(mountpoint, times=True))
            assert (case.name, differences(expected.new, new)) == (case.name, [])
        finally:
            disks.unmount(mountpoint)
    assert field.unchanged()
