"""Inode numbers, which are ours to give.

The host's number with the layer's in the upper bits, kept in an attribute when
the object is copied up: so it is the same before and after, and after a
remount of the same layers.
"""

import hashlib
import os

from unionfs.layer import Layer

ROOT_INO = 1

# Bits of a host inode number that fit below the layer's number.
_HOST_BITS = 48
HOST_END = 1 << _HOST_BITS


def number(layer: Layer, st: os.stat_result) -> int:
    """Return the inode number that the union gives to an object of *layer*."""
    ino = st.st_ino
    if st.st_dev == layer.device and ROOT_INO < ino < HOST_END:
        return layer.number << _HOST_BITS | ino
    return hashed(layer.number, st.st_dev, ino)


def first_of(layer: Layer) -> int:
    """Return what to add to a host's number, from 2 up to `HOST_END`, of *layer*'s file system."""
    return layer.number << _HOST_BITS


def layer_number(ino: int) -> int:
    """Return the number of the layer that `number` made *ino* of; of no layer where it hashed."""
    return ino >> _HOST_BITS


def hashed(*facts: int) -> int:
    """Return a number above all those that `number` makes of a layer and a host's number."""
    digest = hashlib.blake2b(repr(facts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1 | 1 << 62
