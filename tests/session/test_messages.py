"""The bytes of requests and replies that no mount shows: include/uapi/linux/fuse.h."""

import os
import struct

from unionfs.fuse.session import messages


def test_an_ioctl_says_which_and_with_what():
    # struct fuse_ioctl_in, and what the caller gives
    body = struct.pack("=QIIQII", 7, 2, 0x40086602, 1234, 4, 0) + b"flag"
    fields = messages.IOCTL_IN.unpack_from(body)
    assert fields == (7, 2, 0x40086602, 1234, 4, 0)
    assert body[messages.IOCTL_IN.size :] == b"flag"


def test_the_reply_to_an_ioctl_carries_its_result_and_what_the_caller_gets():
    # struct fuse_out_header, struct fuse_ioctl_out
    head = struct.pack("=IiQiIII", 36, 0, 9, 0, 0, 0, 0)
    assert messages.controlled(9, b"flag") == head + b"flag"
    assert messages.controlled(9) == struct.pack("=IiQiIII", 32, 0, 9, 0, 0, 0, 0)


def test_the_reply_to_tmpfile_shows_a_file_without_links(tmp_path):
    fd = os.open(tmp_path, os.O_TMPFILE | os.O_RDWR, 0o640)
    reply = messages.created(9, 55, os.fstat(fd), 3, 0, 0)
    os.close(fd)
    size, error, unique, node = struct.unpack_from("=IiQQ", reply)
    assert (size, error, unique, node) == (len(reply), 0, 9, 55)
    mode, links = struct.unpack_from("=II", reply, 16 + 40 + 60)  # struct fuse_attr
    assert (mode, links) == (0o100640, 0)
    assert struct.unpack_from("=Q", reply, 16 + 40 + 88) == (3,)
