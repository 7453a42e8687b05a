#!/bin/sh
# Boot a root image in new namespaces, on this machine's kernel: PID 1 is /usr/lib/unionfs/init.
#
#   namespaces.sh SCRATCH IMAGE [DISK]     as PID 1 of its namespaces; see namespaces.py
#
# What is named in $HIDDEN is not to be had: programs and devices.  With $CONTROLLED there are control groups,
# as systemd needs them: those below the one that the namespaces were made in.  With $SHARED all mounts are
# shared, as in an initramfs with systemd.
#
# SCRATCH has the files cmdline, kmsg, console and init (what becomes PID 1 at the end); the image is
# mounted from a loop device, so that nothing here can make this machine's own root read-only.
set -eu
scratch=$1 image=$2 disk=${3-}
root=$scratch/root
mkdir -p "$root"
mount --make-rprivate /
mount -o ro,loop "$image" "$root"

mount -t proc proc "$root/proc"
mount --bind "$scratch/cmdline" "$root/proc/cmdline"
mount --bind -o ro "$root/proc/sys" "$root/proc/sys" # this machine's settings
[ ! -e "$root/proc/sysrq-trigger" ] || mount --bind /dev/null "$root/proc/sysrq-trigger"
mount -t sysfs -o ro sysfs "$root/sys"
[ -z "${CONTROLLED-}" ] || mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755 dev "$root/dev"
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
for device in null zero full random urandom tty fuse $disk; do
    touch "$root/dev/${device##*/}"
    mount --bind "/dev/${device##*/}" "$root/dev/${device##*/}"
done
for file in kmsg console; do
    touch "$root/dev/$file"
    mount --bind "$(readlink -f "$scratch/$file")" "$root/dev/$file"
done
for path in ${HIDDEN-}; do
    mount --bind /dev/null "$root$path"
done
mount -t tmpfs -o mode=755 run "$root/run"
cp "$scratch/init" "$root/run/init"
[ -z "${SHARED-}" ] || mount --make-rshared "$root"
exec env -i PATH="$PATH" container=lxc TERM=vt220 chroot "$root" /usr/lib/unionfs/init 0<>"$root/dev/console" 1>&0 2>&0
