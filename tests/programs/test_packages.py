"""dpkg and apt install, upgrade and remove a package in a union of this machine's root."""

BUILD = """
    package() {
        mkdir -p /tmp/p/DEBIAN /tmp/p/usr/share/unionfs-sample /tmp/p/etc
        printf 'Package: unionfs-sample\\nVersion: %s\\nArchitecture: all\\n' "$1" \
            >/tmp/p/DEBIAN/control
        printf 'Maintainer: nobody <n@example.org>\\nDescription: a sample\\n' \
            >>/tmp/p/DEBIAN/control
        echo /etc/unionfs-sample.conf >/tmp/p/DEBIAN/conffiles
        echo "version $1" | tee /tmp/p/etc/unionfs-sample.conf >/tmp/p/usr/share/unionfs-sample/data
        dpkg-deb --build --root-owner-group /tmp/p "/tmp/sample_$1.deb" >/dev/null
    }
    package 1; package 2
"""


def test_dpkg_installs_upgrades_and_purges(inside):
    done = inside(
        BUILD
        + """
        dpkg -i /tmp/sample_1.deb >/dev/null
        cat /usr/share/unionfs-sample/data
        dpkg -i /tmp/sample_2.deb >/dev/null
        cat /usr/share/unionfs-sample/data /etc/unionfs-sample.conf
        dpkg --verify unionfs-sample
        find /etc /usr/share/unionfs-sample -name '*.dpkg-new' -o -name '*.dpkg-tmp'
        dpkg --purge unionfs-sample >/dev/null
        ls -d /usr/share/unionfs-sample /etc/unionfs-sample.conf 2>/dev/null || echo gone
        dpkg --audit
    """
    )
    assert done.out.splitlines() == ["version 1", "version 2", "version 2", "gone"], done.err
    assert done.status == 0


def test_a_package_of_the_machine_is_removed_there_only(inside):
    """dpkg removes files and directories that lie in the lower."""
    done = inside("""
        dpkg --force-depends --force-remove-essential --purge logrotate >/dev/null 2>&1
        ls /usr/sbin/logrotate /etc/logrotate.conf 2>/dev/null || echo gone
        dpkg -s logrotate 2>/dev/null | grep Status || echo unknown
    """)
    assert done.out.splitlines() == ["gone", "unknown"], done.err


def test_apt_installs_a_local_package(inside):
    done = inside(
        BUILD
        + """
        apt-get install -qq -y -o APT::Sandbox::User=root /tmp/sample_1.deb >/dev/null
        cat /usr/share/unionfs-sample/data
        apt-get purge -qq -y unionfs-sample >/dev/null
        ls -d /usr/share/unionfs-sample 2>/dev/null || echo gone
    """
    )
    assert done.out.splitlines() == ["version 1", "gone"], done.err
    assert done.status == 0
