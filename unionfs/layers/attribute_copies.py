"""What goes along when an object is copied to upper, or within it: all but its name and content.

That is owner, mode, extended attributes, flags and times, the times last.
"""

import errno
import os
import stat
from typing import NamedTuple

from unionfs.layers import iflags, markers
from unionfs.layers.iflags import FLAGS
from unionfs.layers.layer import Layer, WritableLayer

# Attributes that copying leaves behind, and those that it may not leave out
# (fs/overlayfs/copy_up.c, ovl_must_copy_xattr).
_MOVED = frozenset(
    {markers.METACOPY, markers.REDIRECT, markers.MTIME, markers.KEPT_CAPABILITY, markers.BLOCKS}
)
_MUST_COPY = ("system.posix_acl_", "security.")


class Model(NamedTuple):
    """An object of which a copy is made: where it is, and its attributes."""

    layer: Layer
    path: bytes
    st: os.stat_result
    fd: int = -1  # a descriptor of it, where it is open to read


def copy_look(
    model: Model, target: WritableLayer, path: bytes, mtime_ns: int, *, private: bool
) -> int:
    """Give a copy, of the same kind, what *model* has, and *mtime_ns* as its modification time.

    Markers too where *private* (the model is on upper).  A flag that upper's file system does not
    know is left out.  So are those that protect, as a copy is still to be moved: return them.
    """
    layer, source, st, fd = model
    kind = stat.S_IFMT(st.st_mode)
    target.chown(path, st.st_uid, st.st_gid)
    if kind != stat.S_IFLNK:
        target.chmod(path, stat.S_IMODE(st.st_mode))
    # After the owner: chown(2) takes capabilities away.
    copy_attributes(model, target, path, private=private)
    flags = 0
    if kind in iflags.KINDS:
        data = iflags.find_open(fd, FLAGS) if fd >= 0 else iflags.find(layer, source, FLAGS)
        flags = FLAGS.flags(data)
    if flags & FLAGS.copied:
        iflags.add(target, path, flags & FLAGS.copied)
    target.utime(path, st.st_atime_ns, mtime_ns)
    return flags & iflags.PROTECTING


def copy_attributes(model: Model, target: WritableLayer, path: bytes, *, private: bool) -> None:
    """Copy extended attributes.

    One that upper's file system does not know is left out, as kernel overlayfs does, but
    not ACLs and security attributes.
    """
    layer, source = model.layer, model.path
    for name in layer.attributes(source):
        if name in _MOVED or (markers.is_private(name) and not private):
            continue
        try:
            target.set_attribute(path, name, layer.attribute(source, name))
        except OSError as exc:
            if exc.errno != errno.EOPNOTSUPP or name.startswith(_MUST_COPY):
                raise
