"""What may not be changed: objects that chattr(1) made immutable (+i) or append-only (+a).

FUSE has no way to tell the kernel of these flags.  So what the kernel's VFS forbids
elsewhere is forbidden here: fs/namei.c (may_open, may_create, may_delete, vfs_link),
fs/attr.c (notify_change), fs/xattr.c (may_write_xattr).

Upper's host must not enforce the flags, since a copy has to be moved and marked.  So
upper keeps them in an attribute, as kernel overlayfs does (`markers.PROTATTR`), and the
node knows them: ordinary objects cost nothing.  In lowers the flags are the host's, and
are read when something is about to change.
"""

import errno
import os
import stat
from typing import TYPE_CHECKING

from unionfs.layers import iflags
from unionfs.layers.iflags import IMMUTABLE, PROTECTING
from unionfs.view.lookup_result import LookupResult
from unionfs.view.node import Node

if TYPE_CHECKING:
    from unionfs.view.union import Union


def of(union: "Union", node: Node) -> int:
    """Return what protects *node*: `IMMUTABLE`, `APPEND`, both or 0."""
    if node.upper:
        return node.protection
    return iflags.protection(*union.place(node), node.format)


def require(union: "Union", node: Node, protection: int = PROTECTING) -> None:
    """Raise EPERM where *node* is protected, or has that *protection*."""
    if of(union, node) & protection:
        raise _refused()


def require_removable(union: "Union", parent: Node, result: LookupResult) -> None:
    """Raise EPERM where *parent* must not lose the name of the object seen: may_delete."""
    if parent.protection or not parent.upper:
        require(union, parent)
    protection = result.protection
    if not result.upper:
        layer, path, _ = result.lowers[0]
        protection = iflags.protection(layer, path, stat.S_IFMT(result.st.st_mode))
    if protection:
        raise _refused()


def require_writable(union: "Union", node: Node, flags: int) -> None:
    """Raise EPERM where a file must not be opened with *flags*, which write: open(2)."""
    protection = of(union, node)
    appends = flags & os.O_APPEND and not flags & os.O_TRUNC
    if protection & IMMUTABLE or (protection and not appends):
        raise _refused()


def _refused() -> OSError:
    return OSError(errno.EPERM, os.strerror(errno.EPERM))
