# shellcheck shell=sh
# What the kernel command line asks for.  Sourced by the scripts beside it; needs /proc, nothing else.

# Print the value of the last word NAME=VALUE.
last_word() {
    (
        set -f
        found=
        # shellcheck disable=SC2013 # words are what is wanted
        for word in $(cat /proc/cmdline); do
            case $word in "$1="*) found=${word#*=} ;; esac
        done
        printf '%s\n' "$found"
    )
}

# Print what is to be the upper: nothing (no word), disabled, tmpfs, tmpfs:OPTIONS, or a disk.
# aufs= and overlayroot= are the same words; unionfs= wins.
wanted_upper() {
    for name in unionfs overlayroot aufs; do
        value=$(last_word $name)
        [ -z "$value" ] || break
    done
    printf '%s\n' "$value"
}
