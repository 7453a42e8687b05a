#!/bin/sh
# Run a command in a Debian root directory, as a machine of its own would: with /dev, /proc, /sys and the
# network's names, in a mount namespace that takes them all away at its end.
#
#   inroot.sh DIRECTORY COMMAND...
set -eu
root=$1
shift
# shellcheck disable=SC2016 # for the shell in there
exec unshare --mount --propagation private sh -euc '
    root=$1
    shift
    mount --bind "$root" "$root" # for grub-probe, / is to be a mount
    for place in dev proc sys; do mount --rbind "/$place" "$root/$place"; done
    touch "$root/etc/resolv.conf"
    mount --bind /etc/resolv.conf "$root/etc/resolv.conf"
    exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 \
        chroot "$root" "$@"' sh "$root" "$@"
