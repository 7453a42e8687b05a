"""INIT of kernels old, new and odd."""

import struct

import pytest

from unionfs.fuse.session.protocol import (
    Init,
    InitPatch,
    Offer,
    patch_init,
    read_answer,
    read_offer,
)

NEW = Offer((7, 45), 131072, Init.INIT_EXT | Init.CACHE_SYMLINKS | Init.PASSTHROUGH)
OLD = Offer((7, 31), 131072, Init.CACHE_SYMLINKS)
PATCH = InitPatch(Init.CACHE_SYMLINKS | Init.PASSTHROUGH | Init.DONT_MASK, Init(0), 64, 1)


def request(*, opcode=26, major=7, minor=45, flags=0, flags2=None, size=None):
    body = struct.pack("=IIII", major, minor, 131072, flags)
    if flags2 is not None:
        body += struct.pack("=I44x", flags2)
    header = struct.pack("=IIQQIIIHH", 40 + len(body), opcode, 1, 0, 0, 0, 0, 0, 0)
    return (header + body)[:size]


def reply(flags, *, length=64, error=0):
    body = struct.pack(
        "=IIIIHHIIHHIIHH", 7, 38, 131072, flags, 0, 0, 1 << 20, 1, 256, 0, 0, 0, 0, 0
    )
    body = body.ljust(64, b"\0")[:length]
    return bytearray(struct.pack("=IiQ", 16 + len(body), error, 1) + body)


@pytest.mark.parametrize(
    ("message", "offer"),
    [
        (request(flags=1 << 23), Offer((7, 45), 131072, Init.CACHE_SYMLINKS)),
        (
            request(flags=1 << 30, flags2=1 << 5),
            Offer((7, 45), 131072, Init.INIT_EXT | Init.PASSTHROUGH),
        ),
        (request(flags=1 << 23, flags2=1 << 5), Offer((7, 45), 131072, Init.CACHE_SYMLINKS)),
        (request(flags=1 << 30, size=56), Offer((7, 45), 131072, Init.INIT_EXT)),
        (request(minor=4, size=48), None),  # before flags: 7.5
        (request(major=8), None),
        (request(opcode=4096), None),  # CUSE_INIT
        (b"", None),
    ],
)
def test_an_offer_is_read_or_left_to_libfuse(message, offer):
    assert read_offer(message) == offer


@pytest.mark.parametrize(
    ("offer", "message", "granted", "depth"),
    [
        (NEW, reply(1 << 30), Init.INIT_EXT | Init.CACHE_SYMLINKS | Init.PASSTHROUGH, 1),
        (NEW, reply(0), Init.INIT_EXT | Init.CACHE_SYMLINKS | Init.PASSTHROUGH, 1),
        (NEW, reply(1 << 16), Init.WRITEBACK_CACHE | Init.CACHE_SYMLINKS, 0),
        (NEW, reply(1, length=24), Init.ASYNC_READ | Init.CACHE_SYMLINKS, 0),
        (OLD, reply(1), Init.ASYNC_READ | Init.CACHE_SYMLINKS, 0),
        (OLD, reply(0, length=8), Init(0), 0),
    ],
)
def test_what_is_wished_and_offered_is_added(offer, message, granted, depth):
    length = len(message)
    patch_init(message, offer, PATCH)
    answer = read_answer(message)
    assert (answer.flags, answer.max_stack_depth, len(message)) == (granted, depth, length)


def test_what_libfuse_answered_stays():
    message = reply(1 << 30 | 1 << 12)
    before = read_answer(message)
    patch_init(message, NEW, PATCH)
    after = read_answer(message)
    assert after.flags & before.flags == before.flags
    assert (after.max_write, after.max_readahead) == (before.max_write, before.max_readahead)


def test_what_is_unwanted_is_removed():
    message = reply(1 << 12 | 1)
    patch_init(message, NEW, InitPatch(Init(0), Init.AUTO_INVAL_DATA, 0, 0))
    assert read_answer(message).flags == Init.ASYNC_READ


def test_an_error_stays_an_error():
    message = reply(0, length=0, error=-71)
    before = bytes(message)
    patch_init(message, NEW, PATCH)
    assert (bytes(message), read_answer(message)) == (before, None)
