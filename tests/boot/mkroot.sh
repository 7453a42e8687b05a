#!/bin/sh
# Make a Debian root directory for the boot tests, once; later calls find it there.
#
#   mkroot.sh RELEASE initramfs-tools|dracut DIRECTORY
#
# The kernel is the cloud one: it has virtio, and is small.  Documentation is left out.
set -eu

release=$1 maker=$2 root=$3
[ ! -e "$root.made" ] || exit 0

packages=systemd-sysv,passwd,login,udev,kmod,mount,util-linux,procps,e2fsprogs,fuse3,python3
packages=$packages,python3-pyfuse3,python3-trio,$maker,zstd,dbus,attr,acl,linux-image-cloud-amd64
packages=$packages,rsyslog,cron,logrotate,iproute2,netbase,openssh-server,vim-tiny

# A killed mmdebstrap leaves this machine's /dev/shm and /proc bound in there: in a mount namespace of its
# own they go with it, and nothing but the directory's own file system is ever removed.
rm -rf --one-file-system "$root"
# shellcheck disable=SC2016 # hooks have $1
nice unshare --mount --propagation private mmdebstrap --variant=minbase --include="$packages" \
    --aptopt='Acquire::Languages "none"' \
    --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --essential-hook='mkdir -p "$1/etc/initramfs-tools/conf.d" && echo MODULES=list >"$1/etc/initramfs-tools/conf.d/modules"' \
    --essential-hook='printf "%s\n" virtio_pci virtio_blk virtio_net ext4 squashfs >"$1/etc/initramfs-tools/modules"' \
    "$release" "$root"
echo union-test >"$root/etc/hostname"
printf '127.0.0.1\tlocalhost union-test\n' >"$root/etc/hosts"
touch "$root.made"
