"""Which extended attributes go along when an object is copied to upper, or within it."""

import errno

from unionfs.layers import markers
from unionfs.layers.layer import Layer, WritableLayer

# Attributes that copying leaves behind, and those that it may not leave out
# (fs/overlayfs/copy_up.c, ovl_must_copy_xattr).
_MOVED = frozenset(
    {markers.METACOPY, markers.REDIRECT, markers.MTIME, markers.KEPT_CAPABILITY, markers.BLOCKS}
)
_MUST_COPY = ("system.posix_acl_", "security.")


def copy_attributes(
    layer: Layer,
    path: bytes,
    target: WritableLayer,
    target_path: bytes,
    *,
    private: bool,
) -> None:
    """Copy extended attributes; markers too where *private* (the source is on upper).

    An attribute that upper's file system does not know is left out, as kernel
    overlayfs does, but not ACLs and security attributes.
    """
    for name in layer.attributes(path):
        if name in _MOVED or (markers.is_private(name) and not private):
            continue
        try:
            target.set_attribute(target_path, name, layer.attribute(path, name))
        except OSError as exc:
            if exc.errno != errno.EOPNOTSUPP or name.startswith(_MUST_COPY):
                raise
