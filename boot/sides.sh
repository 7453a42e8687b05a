# shellcheck shell=sh
# The places for the changes where the root has a configuration (unionfs=state): scratch, and state, which stays.
# Sourced by `stage`, whose functions these use.  Both sides come out of the file, a line each, the best
# first: SIDE WAIT WHAT OPTIONS WITHIN (unionfs config --boot).
# shellcheck disable=SC2034,SC2154 # variables of `stage`

# Mount both; status 1: state is required, and cannot be had.
make_sides() {
    if ! report=$(read_configuration 2>&1 >/run/unionfs/sides); then
        warn "CHANGES ARE KEPT IN RAM AND WILL BE LOST: no configuration:" \
            "$(printf '%s' "$report" | tail -n 1)"
        make_ram_upper ''
        return
    fi
    [ -z "$report" ] || warn "$report"
    make_scratch </run/unionfs/sides
    make_state </run/unionfs/sides
}

read_configuration() {
    command=$(command -v pyunionfs || command -v unionfs) || {
        echo "the command pyunionfs is not installed" >&2
        return 1
    }
    env -i PATH="$PATH" LANG=C.UTF-8 timeout "$DAEMON_SECONDS" "$command" config --boot </dev/null
}

make_scratch() {
    while read -r side wait what options within; do
        case $side/$what in
        scratch/tmpfs*)
            make_ram_upper "${what#tmpfs}"
            return
            ;;
        scratch/*)
            mount_disk "$what" "$stage/rw" "$wait" "$options" || continue
            mode="disk upper $what"
            layers=$stage/rw${within:+/$within}
            return
            ;;
        esac
    done
    warn "no disk for scratch can be used: RAM takes its place"
    make_ram_upper ''
}

# Mount state below scratch.  Where there is none, the union gets the name of the missing disk.
make_state() {
    missing='' required=''
    while read -r side wait what options within; do
        case $side in
        file) configured=config=$what ;;
        required) required=yes ;;
        state)
            missing=${missing:-$what}
            mkdir -p "$stage/rw/state"
            mount_disk "$what" "$stage/rw/state" "$wait" "$options" || continue
            mode="$mode, state $what"
            configured=$configured,statedir=$stage/rw/state${within:+/$within}
            missing=
            break
            ;;
        esac
    done
    [ -n "$missing" ] || return 0
    rmdir "$stage/rw/state"
    configured=$configured,statedir=$missing
    if [ -n "$required" ]; then
        warn "STATE IS REQUIRED, AND CANNOT BE HAD: there is no union"
        return 1
    fi
    warn "WHAT SHOULD PERSIST GOES TO SCRATCH AND WILL BE LOST: no disk for state can be used"
    mode="$mode, state lost"
}
