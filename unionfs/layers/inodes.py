"""Inode numbers as the union shows them: the host's number plus an offset of its file system.

A number of 32 bits, which all programs can take (stat(2), EOVERFLOW), stays one of 32
bits wherever there is room.  Layers on one file system, where no two objects share a
number, need no offset; layers on several divide 32 bits among them.  A number that does
not fit into the part of its file system is replaced by a long one.

A number follows from the layers and the host's number alone, so it is the same after a
remount.  A copy in upper keeps the number: an attribute tells the layer that the object
was in, and the host's number there (`origin`).
"""

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence

from unionfs.host.syscalls import filesystem_type
from unionfs.layers.layer import Layer
from unionfs.layers.stack import Stack

ROOT_INO = 1

_SHORT_END = 1 << 32

# Bits of a host's number that fit into one number with a layer's.
_HOST_BITS = 48
_HOST_END = 1 << _HOST_BITS

# Bits that tell long numbers of both kinds from each other, and from all short ones.
_LONG = 1 << 61
_HASHED = 1 << 62

# File systems whose numbers are below a bound that statfs(2) tells (include/uapi/linux/magic.h).
_EXT4, _SQUASHFS, _EROFS = 0xEF53, 0x73717368, 0xE0F5E1E2
_EROFS_SLOT = 32  # bytes; an inode's number counts them: fs/erofs/internal.h, erofs_iloc

# File systems whose directories tell the numbers that stat(2) does; with xfs, btrfs and tmpfs.  On
# overlayfs and FUSE it depends: overlayfs.rst, "Inode properties"; libfuse, `use_ino`.
_LISTING_NUMBERS = frozenset({_EXT4, _SQUASHFS, _EROFS, 0x58465342, 0x9123683E, 0x01021994})


def number(layer: Layer, st: os.stat_result) -> int:
    """Return the inode number that the union gives to an object of *layer*."""
    ino = st.st_ino
    if st.st_dev == layer.device:
        if ROOT_INO < ino < layer.end:
            return layer.first + ino
        ino = of_host(layer, ino)
        if ino:
            return ino
    return hashed(layer.number, st.st_dev, st.st_ino)


def of_host(layer: Layer, ino: int) -> int:
    """Return the number of the object with the host's number *ino* on *layer*'s own file system.

    0 where no rule tells it.
    """
    if 0 < ino < layer.end and layer.first + ino > ROOT_INO:
        return layer.first + ino
    if layer.end <= ino < _HOST_END:
        return _LONG | layer.family << _HOST_BITS | ino
    return 0


def hashed(*facts: int) -> int:
    """Return a number above all those that `of_host` makes."""
    digest = hashlib.blake2b(repr(facts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1 | _HASHED


# Numbers that stay


def origin(layer: Layer, st: os.stat_result, ino: int) -> int:
    """Return what a copy has to remember of an object that is shown with *ino*."""
    if st.st_dev == layer.device and ino == of_host(layer, st.st_ino):
        return layer.number << _HOST_BITS | st.st_ino
    return ino


def kept(remembered: int, layers: Mapping[int, Layer]) -> int:
    """Return the number of a copy; *layers* are by their numbers."""
    layer = layers.get(remembered >> _HOST_BITS)
    return (of_host(layer, remembered % _HOST_END) if layer else 0) or remembered


# What is added


def divide(stack: Stack) -> None:
    """Settle what is added to the numbers of each layer's file system."""
    families = _families(stack)
    first = int(filesystem_type(families[0][0].fd) == _SQUASHFS)  # it has a number 1: `ROOT_INO`
    bounds = [_bound(family[0].fd) for family in families]
    for family, part in zip(families, _parts(bounds, _SHORT_END - first), strict=True):
        for layer in family:
            layer.family = min((layer.number for layer in family if layer.number), default=0)
            layer.first, layer.end = first, part if len(families) > 1 else _HOST_END
            layer.lists_numbers = filesystem_type(layer.fd) in _LISTING_NUMBERS
        first += part


def _families(stack: Stack) -> list[list[Layer]]:
    """Return the layers by file system, the lowest first.

    A layer that lies within another shows the same objects: it is a family of its own.
    """
    families: dict[int | Layer, list[Layer]] = {}
    for layer in reversed(stack.lowers):
        families.setdefault(layer if layer in stack.within else layer.device, []).append(layer)
    pairs = [(stack.upper, stack.work)]
    if stack.state is not None:
        pairs.append((stack.state.upper, stack.state.work))
    for upper, work in pairs:
        if upper is not None and work is not None:
            families.setdefault(upper if upper in stack.within else upper.device, []).extend(
                (upper, work)
            )
    return list(families.values())


def _bound(fd: int) -> int:
    """Return a bound above all numbers of a file system, as far as one is known."""
    kind, figures = filesystem_type(fd), os.fstatvfs(fd)
    if kind in {_EXT4, _SQUASHFS}:
        return min(_power(figures.f_files), _SHORT_END)
    if kind == _EROFS:
        return min(_power(figures.f_blocks * figures.f_frsize // _EROFS_SLOT), _SHORT_END)
    return _SHORT_END


def _power(most: int) -> int:
    """Return the power of two above *most*: a file system that grows seldom needs another then."""
    return 1 << most.bit_length()


def _parts(bounds: Sequence[int], room: int) -> Iterable[int]:
    """Divide *room*: each file system gets what it can take, or else an equal part of the rest."""
    parts = [0] * len(bounds)
    order = sorted(range(len(bounds)), key=bounds.__getitem__)
    for left, index in zip(range(len(bounds), 0, -1), order, strict=True):
        parts[index] = min(bounds[index], room // left)
        room -= parts[index]
    return parts
