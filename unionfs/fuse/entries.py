"""The objects that pyfuse3 takes for attributes and figures, which are set field by field."""

import os
import stat

import pyfuse3
from pyfuse3 import EntryAttributes

from unionfs.view.node import Node
from unionfs.view.union import Union

# Seconds; the largest that libfuse and the kernel both carry without overflow.
_FOREVER = 1e8

_FIGURES = (
    "f_bsize", "f_frsize", "f_blocks", "f_bfree", "f_bavail",
    "f_files", "f_ffree", "f_favail", "f_namemax",
)  # fmt: skip


def of_node(union: Union, node: Node, st: os.stat_result) -> EntryAttributes:
    """Return the entry of a node whose attributes on the host are *st*."""
    entry = EntryAttributes()
    entry.st_ino = node.ino
    entry.st_mode = st.st_mode
    entry.st_nlink, entry.st_blocks = union.shown(node, st)
    entry.st_uid = st.st_uid
    entry.st_gid = st.st_gid
    if st.st_rdev:
        entry.st_rdev = st.st_rdev
    entry.st_size = st.st_size
    entry.st_atime_ns = st.st_atime_ns
    entry.st_mtime_ns = st.st_mtime_ns
    entry.st_ctime_ns = st.st_ctime_ns
    entry.attr_timeout = entry.entry_timeout = _FOREVER
    return entry


def of_dot(node: Node) -> EntryAttributes:
    """Return the entry of `.` or `..`, of which the kernel takes only the number."""
    entry = EntryAttributes()
    entry.st_ino = node.ino
    entry.st_mode = stat.S_IFDIR
    return entry


def absent() -> EntryAttributes:
    """Return the entry of an absent name, which the kernel is to remember."""
    entry = EntryAttributes()
    entry.st_ino = 0
    entry.entry_timeout = _FOREVER
    return entry


def of_filesystem(figures: os.statvfs_result) -> pyfuse3.StatvfsData:
    """Return the reply to statfs."""
    data = pyfuse3.StatvfsData()
    for field in _FIGURES:
        setattr(data, field, getattr(figures, field))
    return data
