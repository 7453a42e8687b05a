#!/bin/sh
# Change this machine in many ways, over a union of its / and a RAM upper, and show that none of
# it happened: tools/demo.sh [PATH/TO/unionfs]
set -eu

unionfs=${1:-unionfs}
case $unionfs in */*) unionfs=$(cd "$(dirname "$unionfs")" && pwd)/$(basename "$unionfs") ;; esac
export PATH="$PATH:/usr/sbin:/sbin"

[ "$(id -u)" = 0 ] || { echo "demo: only root can mount a union (try sudo make demo)" >&2; exit 2; }

# All that the demonstration is going to change, or to add to.
places='/etc /var/lib/dpkg /var/log /usr/share/doc /usr/bin /home'

# One line per place: checksum of all names, kinds, modes, owners, sizes, times, contents in it.
fingerprints() {
    for place in $places; do
        [ -e "$place" ] || continue
        sum=$({
            find "$place" -xdev \( -type d -printf '%p %y %m %U:%G %T@\n' \) -o \
                -printf '%p %y %m %U:%G %s %T@ %l\n' | sort
            find "$place" -xdev -type f -print0 | sort -z | xargs -0r sha256sum
        } 2>&1 | sha256sum | cut -c 1-32)
        printf '%-14s %s\n' "$place" "$sum"
    done
}

say() { printf '\n== %s\n' "$*"; }

say "checksums of the real /, before"
before=$(fingerprints)
echo "$before"

"$unionfs" run --quiet -- sh -eu -s "$unionfs" <<'INSIDE'
unionfs=$1
say() { printf '\n== %s\n' "$*"; }
show() { printf '$ %s\n' "$*"; "$@"; }

say "this is a union of / and a layer in RAM"
show df -h /

say "a group, a user, a password by passwd and one by chpasswd"
show groupadd lab
show useradd --create-home --gid lab alice
printf 'one\none\n' | show passwd alice
echo 'alice:two' | show chpasswd
show id alice
show grep alice /etc/passwd
show passwd --status alice

say "an edit in place"
show sed -i '1s/^/# edited in the demo\n/' /etc/profile
show head -n 2 /etc/profile

say "a package"
mkdir -p /tmp/demo/DEBIAN /tmp/demo/usr/bin /tmp/demo/usr/share/doc/unionfs-demo
printf '%s\n' 'Package: unionfs-demo' 'Version: 1.0' 'Architecture: all' \
    'Maintainer: nobody <nobody@example.org>' 'Description: a package for one minute' \
    >/tmp/demo/DEBIAN/control
printf '#!/bin/sh\necho installed and running\n' >/tmp/demo/usr/bin/unionfs-demo
chmod 755 /tmp/demo/usr/bin/unionfs-demo
echo 'see above' >/tmp/demo/usr/share/doc/unionfs-demo/README
show dpkg-deb --root-owner-group --build /tmp/demo /tmp/unionfs-demo.deb
show dpkg -i /tmp/unionfs-demo.deb
show unionfs-demo
rm -r /tmp/demo /tmp/unionfs-demo.deb

say "a directory deleted, and made anew: the old content stays gone"
show ls -A /etc/skel
show rm -r /etc/skel
show mkdir /etc/skel
show touch /etc/skel/new
show ls -A /etc/skel
show mv /etc/skel /etc/template

say "what has changed"
show "$unionfs" diff /
INSIDE

say "checksums of the real /, after"
after=$(fingerprints)
echo "$after"
if [ "$before" = "$after" ]; then
    say "nothing has changed"
else
    say "the real / has changed" >&2
    exit 1
fi
