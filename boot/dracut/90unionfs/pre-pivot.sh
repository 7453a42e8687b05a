#!/bin/sh
# Put the root below a union, as the kernel command line says: see dracut.modules(7).
# In a subshell, as dracut sources its hooks.
(
    # shellcheck source=boot/initramfs.sh
    . /usr/lib/unionfs/initramfs.sh
    put_union_on "${NEWROOT:?}"
) || :
