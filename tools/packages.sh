#!/bin/sh
# Install Debian packages that are missing; nothing is done, and no network needed, where none is.
#
#   tools/packages.sh NAME...
set -eu

missing=
for name in "$@"; do
    dpkg-query --show --showformat='${db:Status-Abbrev}' "$name" 2>/dev/null | grep -q '^ii' ||
        missing="$missing $name"
done
[ -n "$missing" ] || exit 0

# Run a command that installs packages, and have no service started that one of them brings.
quietly() {
    policy=/usr/sbin/policy-rc.d
    if [ -e $policy ]; then
        "$@"
        return
    fi
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod 755 $policy
    trap 'rm -f $policy' EXIT
    "$@"
}

echo "installing:$missing"
export DEBIAN_FRONTEND=noninteractive
# A new machine may be at its upgrades, and a mirror may be away for a moment.
apt() {
    apt-get -qq -o DPkg::Lock::Timeout=600 -o Acquire::Retries=5 "$@"
}
apt update
# shellcheck disable=SC2086 # a list of words
quietly apt install -y --no-install-recommends $missing >/dev/null
# An SSH server is there for a test to run, in a network of its own, and for nobody else.
case "$missing " in
*" openssh-server "*) systemctl disable -q ssh.service ssh.socket 2>/dev/null || true ;;
esac
