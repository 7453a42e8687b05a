"""Attributes of a union's root, by which other processes speak to its daemon.

They are on no disk: the daemon itself answers for them, and lists them to nobody.
"""

import json
import os
from typing import Any

# `unionfs status` asks for this one: `mounting.live`.
STATUS = "trusted.unionfs.status"

# Set by `unionfs commit` on objects that it will carry into the lower: `Changes.stand_alone`.
ALONE = "trusted.unionfs.alone"

# Set to one of these two by programs that make the lowers writable for a time: `maintenance`.
MAINTAINED = "trusted.unionfs.maintained"
BEGIN, END = b"begin", b"end"

# Set by `unionfs commit` to the old and the new key of a lower file: `LinkIndex.renew`.
RENEWED = "trusted.unionfs.renewed"

_LONGEST = 1 << 16  # bytes that an attribute may have: xattr(7)


class Status:
    """What a daemon says of its mount.

    A document that is too long for an attribute, with hundreds of layers for example, is in a file
    in RAM: the attribute tells its descriptor, for /proc/PID/fd.
    """

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self._file = -1

    def attribute(self) -> bytes:
        """Return the value of the attribute."""
        text = json.dumps(self.document).encode()
        if len(text) <= _LONGEST:
            return text
        if self._file < 0:
            self._file = os.memfd_create("status")
        os.pwrite(self._file, text, 0)
        os.ftruncate(self._file, len(text))
        return json.dumps({"pid": os.getpid(), "file": self._file}).encode()


def document(attribute: bytes) -> dict[str, Any]:
    """Return what a daemon said by the value of its attribute."""
    said: dict[str, Any] = json.loads(attribute)
    if "file" in said:
        with open(f"/proc/{said['pid']}/fd/{said['file']}", "rb") as file:
            said = json.load(file)
    return said
