#!/bin/sh
# Make a small Debian root directory for the package tests, once; later calls find it there.
#
#   mkroot.sh RELEASE DIRECTORY
#
# What our package needs is not installed, but lies in apt's cache: to install it takes no network.
set -eu

release=$1 root=$2
[ ! -e "$root.made" ] || exit 0

packages=apt,systemd,login,passwd,man-db,bash-completion,initramfs-tools,pamtester
# A killed mmdebstrap leaves this machine's /dev/shm and /proc bound in there: in a mount namespace of its
# own they go with it, and nothing but the directory's own file system is ever removed.
rm -rf --one-file-system "$root"
# shellcheck disable=SC2016 # hooks have $1
nice unshare --mount --propagation private mmdebstrap --variant=minbase --include="$packages" \
    --skip=cleanup/apt --aptopt='Acquire::Languages "none"' \
    --customize-hook='chroot "$1" apt-get install -qq -y --download-only fuse3 python3-pyfuse3 python3-trio' \
    "$release" "$root"
touch "$root.made"
