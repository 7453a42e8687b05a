"""Requests of our other commands to a daemon, made by setting attributes: `rootattributes`."""

import errno
import os

from unionfs.changes.changes import Changes
from unionfs.fuse import rootattributes
from unionfs.fuse.content_copies import ContentCopies
from unionfs.fuse.maintenance import Maintenance
from unionfs.layers.links import is_key
from unionfs.view.node import Node
from unionfs.view.union import Union

_ALONE = rootattributes.ALONE.encode()
_MAINTAINED = rootattributes.MAINTAINED.encode()
_RENEWED = rootattributes.RENEWED.encode()


class OwnAttributes:
    """The settable attributes of one mount that are on no disk."""

    names = frozenset({_ALONE, _MAINTAINED, _RENEWED})

    def __init__(
        self, union: Union, changes: Changes, copies: ContentCopies, maintenance: Maintenance
    ) -> None:
        self._union = union
        self._changes = changes
        self._copies = copies
        self._maintenance = maintenance

    async def set(self, node: Node, name: bytes, value: bytes) -> None:
        """Do what is asked for; EINVAL for nonsense, and where only the root may be asked."""
        if name == _ALONE:
            await self._copies.bring(node)
            self._changes.stand_alone(node)
        elif node is not self._union.root:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        elif name == _MAINTAINED:
            await self._maintenance.turn(value)
        else:
            old, _, new = value.partition(b" ")
            if not (is_key(old) and is_key(new)):
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
            self._changes.renew_link(old, new)
