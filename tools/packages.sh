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

echo "installing:$missing"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086 # a list of words
apt-get install -qq -y --no-install-recommends $missing >/dev/null
