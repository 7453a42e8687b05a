#!/bin/sh
# Make a Debian root directory for the boot tests, once; later calls find it there.
#
#   mkroot.sh RELEASE initramfs-tools|dracut DIRECTORY
#
# The kernel is the cloud one: it has virtio, and is small.  Documentation is left out.  What the product
# needs is left to apt, when the product is installed.
set -eu

release=$1 maker=$2 root=$3
[ ! -e "$root.made" ] || exit 0

packages=systemd-sysv,passwd,login,udev,kmod,mount,util-linux,procps,e2fsprogs,python3,apt
packages=$packages,$maker,zstd,dbus,attr,acl,linux-image-cloud-amd64,grub-pc-bin,grub2-common
packages=$packages,rsyslog,cron,logrotate,iproute2,netbase,openssh-server,vim-tiny

# A killed mmdebstrap leaves this machine's /dev/shm and /proc bound in there: in a mount namespace of its
# own they go with it, and nothing but the directory's own file system is ever removed.
mkdir -p "$(dirname "$root")"
rm -rf --one-file-system "$root"
# shellcheck disable=SC2016 # hooks have $1
nice unshare --mount --propagation private mmdebstrap --variant=minbase --include="$packages" \
    --skip=cleanup/apt/lists --aptopt='Acquire::Languages "none"' --aptopt='Acquire::Retries "5"' \
    --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --essential-hook='mkdir -p "$1/etc/initramfs-tools/conf.d" && echo MODULES=list >"$1/etc/initramfs-tools/conf.d/modules"' \
    --essential-hook='printf "%s\n" virtio_pci virtio_blk virtio_net ext4 squashfs >"$1/etc/initramfs-tools/modules"' \
    "$release" "$root"
echo union-test >"$root/etc/hostname"
printf '127.0.0.1\tlocalhost union-test\n' >"$root/etc/hosts"
touch "$root.made"
