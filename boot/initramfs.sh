# shellcheck shell=sh
# What an initramfs does to put the true root below a union.  Sourced by the script for initramfs-tools
# and by the dracut hook.  All the work is done in the true root, by its own programs; here it is lent
# the virtual file systems, which the initramfs moves there afterwards.  In an initramfs without busybox
# there is no grep, no cp and no mountpoint.

# shellcheck source=boot/words.sh
. /usr/lib/unionfs/words.sh

is_mounted() {
    while read -r _ place _; do
        [ "$place" != "$1" ] || return 0
    done </proc/mounts
    return 1
}

# Put a union on the true root, mounted at $1, if the kernel command line asks for one.
put_union_on() {
    [ -n "$(wanted_upper)" ] || return 1
    # What is there before us is meant to stay: it is shown in the union.
    staying=
    for name in proc dev sys run; do
        if is_mounted "$1/$name"; then
            staying="$staying $name"
        else
            mount -o bind "/$name" "$1/$name"
        fi
    done
    modprobe -q fuse
    # sh: /run is mounted noexec.
    chroot "$1" /bin/sh "$(stage_in "$1")" || return
    # A mount cannot be moved out of one that is shared, as systemd makes them all.
    # shellcheck disable=SC2016,SC2086 # expanded in there; a list of words
    chroot "$1" /bin/sh -c '
        mount -n --make-rprivate /
        cd "$(cat /run/unionfs/stage)" || exit
        for place; do mount -n --rbind "/$place" "$place"; done
        mount -n --move . /' sh $staying
}

# Print which script to call in the root mounted at $1: its own or, where it has lost that, ours.
stage_in() {
    stage=/usr/lib/unionfs/stage
    if [ ! -e "$1$stage" ]; then
        mkdir -p "$1/run/unionfs/scripts"
        for script in stage words.sh messages.sh identity.sh sides.sh; do
            cat "/usr/lib/unionfs/$script" >"$1/run/unionfs/scripts/$script"
        done
        stage=/run/unionfs/scripts/stage
    fi
    echo $stage
}
