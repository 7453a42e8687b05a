# shellcheck shell=sh
# Who the machine is, where several share a root: its host name, machine id and host keys.

# Give the root mounted at $1 what the kernel command line asks for: unionfs.hostname=NAME and
# unionfs.identity=own.  In the directory $2, which is kept as long as changes are, stands what was done:
# an identity is given once.
set_identity() {
    name=$(last_word unionfs.hostname)
    case $name in
    '') ;;
    *[!A-Za-z0-9.-]* | -* | .*) warn "'unionfs.hostname=$name' on the kernel command line is no host name: ignored" ;;
    *) set_host_name "$1" "$name" || warn "the host name '$name' cannot be set" ;;
    esac
    case $(last_word unionfs.identity) in
    '') ;;
    own)
        [ -e "$2/own-identity" ] || { give_identity "$1" && : >"$2/own-identity"; } ||
            warn "the machine could not be given an identity of its own"
        ! lacks_host_keys "$1" || make_host_keys_later "$1"
        ;;
    *) warn "'unionfs.identity=$(last_word unionfs.identity)' on the kernel command line is unknown (known: own)" ;;
    esac
}

set_host_name() {
    old=$(cat "$1/etc/hostname" 2>/dev/null)
    [ "$old" != "$2" ] || return 0
    echo "$2" >"$1/etc/hostname" || return
    [ -e "$1/etc/hosts" ] || return 0
    awk -v old="$old" -v new="$2" '
        { for (i = 2; i <= NF && $1 !~ /^#/; i++) if (old != "" && $i == old) $i = new }
        { print }' "$1/etc/hosts" >"$1/etc/.hosts.unionfs" && mv "$1/etc/.hosts.unionfs" "$1/etc/hosts"
}

# Take away what the image brought: two machines must not have it in common.
give_identity() {
    machine_id >"$1/etc/machine-id" || return
    [ -L "$1/var/lib/dbus/machine-id" ] || rm -f "$1/var/lib/dbus/machine-id" || return # dbus makes it anew
    rm -f "$1/var/lib/systemd/random-seed" "$1"/etc/ssh/ssh_host_*_key "$1"/etc/ssh/ssh_host_*_key.pub
}

# Print the machine's id: by its serial numbers, and so the same at each boot; without any, a new one.
machine_id() {
    serials=$(cat /sys/class/dmi/id/product_uuid /sys/class/dmi/id/*_serial \
        /proc/device-tree/serial-number 2>/dev/null | tr -d '\000')
    case $serials in
    *[!0\ -]*)
        printf 'unionfs %s' "$serials" | sha256sum | cut -c -32
        ;;
    *)
        note "the machine has no serial number: its machine id is a new one"
        tr -d - </proc/sys/kernel/random/uuid
        ;;
    esac
}

lacks_host_keys() {
    [ -x "$1/usr/bin/ssh-keygen" ] && [ -d "$1/etc/ssh" ] || return
    for key in "$1"/etc/ssh/ssh_host_*_key; do
        [ ! -e "$key" ] || return
    done
}

# Have host keys made when sshd starts: early, there may be no entropy to make them from.
make_host_keys_later() {
    [ -d "$1/usr/lib/systemd/system" ] || {
        chroot "$1" ssh-keygen -A
        return
    }
    units=/run/systemd/system
    for unit in ssh.service ssh@.service; do
        mkdir -p "$units/$unit.d"
        printf '[Unit]\nWants=unionfs-host-keys.service\nAfter=unionfs-host-keys.service\n' \
            >"$units/$unit.d/unionfs.conf"
    done
    printf '%s\n' '[Unit]' "Description=Make this machine's own host keys" \
        '[Service]' 'Type=oneshot' 'RemainAfterExit=yes' 'ExecStart=/usr/bin/ssh-keygen -A' \
        >$units/unionfs-host-keys.service
}
