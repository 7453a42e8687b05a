#!/bin/bash
# Put into the initramfs what it takes to boot on a union: see dracut.modules(7).  Not Python: that runs
# in the true root.  Without a word on the kernel command line the hook does nothing.

check() {
    return 0
}

depends() {
    echo base
}

installkernel() {
    hostonly='' instmods fuse overlay
}

install() {
    inst_multiple chroot cat mkdir mount modprobe
    for script in initramfs.sh stage words.sh messages.sh identity.sh sides.sh; do
        inst_simple "/usr/lib/unionfs/$script"
    done
    # shellcheck disable=SC2154 # dracut's
    inst_hook pre-pivot 10 "$moddir/pre-pivot.sh"
}
