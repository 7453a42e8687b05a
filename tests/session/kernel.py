"""The words of the kernel's side, for tests that have a socket in the place of /dev/fuse."""

import struct


def request(opcode, unique, node, body=b"", *, uid=0, gid=0):
    size = 40 + len(body)
    return struct.pack("=IIQQIIIHH", size, opcode, unique, node, uid, gid, 1, 0, 0) + body


def reply(unique, *, error=0, body=b""):
    return struct.pack("=IiQ", 16 + len(body), error, unique) + body
