"""What should persist on a machine with a read-only root: proposals, each with its reason.

A proposal is made if the software that needs it is installed, which its files tell.  All
paths are those of Debian and Fedora.
"""

import glob
import os
from collections.abc import Iterator
from typing import NamedTuple

from unionfs.mounting.truepaths import resolved


class Proposal(NamedTuple):
    """Paths that should persist together."""

    reason: str
    persist: tuple[str, ...]
    # Globs, one of which has to match a file; (): the paths that persist.
    signs: tuple[str, ...] = ()


_ALL = (
    Proposal(
        "ssh host keys: with new ones at each boot, ssh warns all who log in",
        ("/etc/ssh/ssh_host_*",),
        ("/usr/sbin/sshd", "/etc/ssh/ssh_host_*"),
    ),
    Proposal(
        "the machine id: DHCP leases, the journal and D-Bus go by it",
        ("/etc/machine-id", "/var/lib/dbus"),
        ("/etc/machine-id", "/var/lib/dbus/machine-id"),
    ),
    Proposal(
        "accounts and passwords: what passwd, useradd and usermod change",
        (
            "/etc/passwd", "/etc/shadow", "/etc/group", "/etc/gshadow",
            "/etc/subuid", "/etc/subgid",
        ),
        ("/etc/passwd",),
    ),
    Proposal("the host name: what hostnamectl changes", ("/etc/hostname",)),
    Proposal("the time zone: what timedatectl changes", ("/etc/localtime", "/etc/timezone")),
    Proposal(
        "networks and their credentials, of NetworkManager",
        ("/etc/NetworkManager/system-connections", "/var/lib/NetworkManager"),
        ("/usr/sbin/NetworkManager", "/etc/NetworkManager/system-connections"),
    ),
    Proposal("wireless credentials, of wpa_supplicant", ("/etc/wpa_supplicant",)),
    Proposal("wireless credentials, of iwd", ("/var/lib/iwd",)),
    Proposal(
        "bluetooth pairings: else all devices have to be paired again",
        ("/var/lib/bluetooth",),
        ("/var/lib/bluetooth", "/usr/libexec/bluetooth/bluetoothd"),
    ),
    Proposal("keys of virtual private networks", ("/etc/wireguard", "/var/lib/tailscale")),
    Proposal(
        "DHCP leases: the machine asks for the address that it had",
        ("/var/lib/dhcp", "/var/lib/dhcpcd", "/var/lib/dhclient"),
    ),
    Proposal(
        "the seed of the random numbers",
        ("/var/lib/systemd/random-seed",),
        ("/usr/lib/systemd/systemd-random-seed", "/lib/systemd/systemd-random-seed"),
    ),
    Proposal(
        "the clock's last time and drift: a machine without a battery does not start in the past",
        (
            "/var/lib/systemd/timesync", "/var/lib/private/systemd/timesync", "/var/lib/chrony",
            "/var/lib/ntp", "/var/lib/ntpsec", "/etc/adjtime", "/etc/fake-hwclock.data",
        ),
    ),
    Proposal(
        "when timers ran last: runs missed while the machine was off are made up for",
        ("/var/lib/systemd/timers", "/var/spool/anacron"),
    ),
    Proposal("users' crontabs and jobs of at", ("/var/spool/cron",)),
    Proposal("brightness, radio switches and volumes", (
        "/var/lib/systemd/backlight", "/var/lib/systemd/rfkill", "/var/lib/alsa",
    )),
    Proposal("secrets that systemd has sealed", ("/var/lib/systemd/credential.secret",)),
    Proposal("users who stay logged in (loginctl enable-linger)", ("/var/lib/systemd/linger",)),
    Proposal("certificates of this machine", (
        "/etc/letsencrypt", "/etc/puppetlabs/puppet/ssl", "/var/lib/puppet/ssl",
    )),
    Proposal("printers", ("/etc/cups",)),
    Proposal("the journal: what happened before the last boot can be read", ("/var/log/journal",)),
    Proposal("logs of rsyslog", ("/var/log/syslog*", "/var/log/auth.log*", "/var/log/messages*")),
    Proposal("logins: what last(1) and lastlog(8) show", ("/var/log/wtmp*", "/var/log/lastlog")),
    Proposal("users' files", ("/home",), ("/home/*",)),
)  # fmt: skip


def proposals(root: str) -> Iterator[Proposal]:
    """Yield the proposals for *root*'s software, with the paths that are there or may come."""
    for proposal in _ALL:
        if not any(_is_there(root, sign) for sign in proposal.signs or proposal.persist):
            continue
        paths = [path for path in proposal.persist if _is_there(root, path)]
        true = (resolved(path, root) for path in paths or proposal.persist)
        yield proposal._replace(persist=tuple(dict.fromkeys(true)))


def _is_there(root: str, pattern: str) -> bool:
    relative = resolved(pattern, root).lstrip("/")
    return any(
        os.path.lexists(os.path.join(root, path))
        for path in (relative, *glob.glob(relative, root_dir=root))
    )


_HEAD = """\
# Proposed by 'unionfs config --suggest', from what is installed here.  Remove what is not to
# stay, save it as /etc/unionfs.toml, and run 'unionfs config --check'.

persist = ["""

_TAIL = """\
]

[scratch]       # all that does not persist
ram = "50%"

[state]         # a file system of its own for what persists: mkfs.ext4 -L {label} /dev/...
disk = "LABEL={label}"\
"""

_LABEL = "state"


def as_toml(root: str) -> str:
    """Return the proposals as a file that can be used."""
    lines = [_HEAD]
    for proposal in proposals(root):
        lines.append(f"    # {proposal.reason}")
        lines += [f'    "{path}",' for path in proposal.persist]
    return "\n".join([*lines, _TAIL.format(label=_LABEL)])
