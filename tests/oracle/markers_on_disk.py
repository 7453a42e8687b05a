"""The law of whiteouts, checked on the host: one exists exactly when something below would show.

That nothing is hidden without one is seen in the tree; here is the other half,
with a reading of redirects that is not the product's.
"""

import os
import stat

from .trees import AUFS, Directory, Spelling, find

_OPAQUE = "trusted.overlay.opaque"
_REDIRECT = "trusted.overlay.redirect"


def check(upper: str, below: Directory, spelling: Spelling) -> None:
    """Check one example's directory of an upper; *below* is what its lowers show."""
    if os.path.lexists(upper):
        useless = _useless(upper, below, below, aufs=spelling is AUFS)
        assert not useless, f"useless whiteouts: {useless}"


def _useless(path: str, below: Directory | None, root: Directory, *, aufs: bool) -> list[str]:
    """Return the whiteouts at and below *path*, over *below*, that hide nothing."""
    if _is_opaque(path, aufs=aufs):
        below = None
    found: list[str] = []
    with os.scandir(path) as entries:
        for entry in entries:
            hidden = _hidden_name(entry, aufs=aufs)
            if hidden is not None:
                if below is None or below.entries.get(hidden) is None:
                    found.append(entry.path)
            elif entry.is_dir(follow_symlinks=False):
                under = _lower_of(entry, below, root)
                if aufs and os.path.lexists(os.path.join(path, ".wh." + entry.name)):
                    under = None
                found += _useless(entry.path, under, root, aufs=aufs)
    return found


def _is_opaque(path: str, *, aufs: bool) -> bool:
    if aufs and os.path.lexists(os.path.join(path, ".wh..wh..opq")):
        return True
    return _OPAQUE in os.listxattr(path) and os.getxattr(path, _OPAQUE) == b"y"


def _hidden_name(entry: os.DirEntry, *, aufs: bool) -> str | None:
    """Return the name that a whiteout hides; None for what is no whiteout."""
    if aufs:
        marker = entry.name.startswith(".wh.") and not entry.name.startswith(".wh..wh.")
        return entry.name.removeprefix(".wh.") if marker else None
    st = entry.stat(follow_symlinks=False)
    return entry.name if stat.S_ISCHR(st.st_mode) and st.st_rdev == 0 else None


def _lower_of(entry: os.DirEntry, below: Directory | None, root: Directory) -> Directory | None:
    """Return the directory below an upper one: under its name, or where its redirect says."""
    redirect = ""
    if _REDIRECT in os.listxattr(entry.path):
        redirect = os.getxattr(entry.path, _REDIRECT).decode()
    if redirect.startswith("/"):
        _example, _, path = redirect[1:].partition("/")
        under = find(root, path)
    else:
        under = below.entries.get(redirect or entry.name) if below else None
    return under if isinstance(under, Directory) else None
