# shellcheck shell=sh
# Where messages go: the kernel's log, which the console and the journal show, and the message of the day.

# Say what goes on.
note() { echo "<29>unionfs: $*" >>/dev/kmsg; } 2>/dev/null

# Say what went wrong, so that nobody can miss it: a "quiet" kernel shows errors, too (level 3).
warn() {
    echo "<27>unionfs: $*" >>/dev/kmsg || echo "unionfs: $*" >>/dev/console
    mkdir -p /run/unionfs /run/motd.d
    echo "unionfs: $*" >>/run/unionfs/motd
    ln -sfn /run/unionfs/motd /run/motd.d/unionfs # pam_motd(8) shows it at each login
} 2>/dev/null
