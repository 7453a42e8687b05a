"""Diverted replies, with a socket in the place of /dev/fuse."""

import os
import struct

import pytest

from tests.session.kernel import reply

FH = 0x1122334455667788


def open_out(flags, backing=0):
    return struct.pack("=QIi", FH, flags, backing)


@pytest.mark.parametrize("before", [b"", b"entry" * 26])
def test_a_diverted_open_carries_the_backing_id(kernel, before):
    device, sent = kernel
    device.pass_through(7, direct_io=False)
    os.write(device.fd, reply(5, body=before + open_out(0x2)))
    device.settle()
    assert sent.recv(1000) == reply(5, body=before + open_out(0x80, 7))


def test_with_direct_io_reads_still_come_to_us(kernel):
    device, sent = kernel
    device.pass_through(7, direct_io=True)
    os.write(device.fd, reply(5, body=open_out(0)))
    device.settle()
    assert sent.recv(1000) == reply(5, body=open_out(0x81, 7))


def test_a_diverted_opendir_is_cached(kernel):
    device, sent = kernel
    device.cache_listing()
    os.write(device.fd, reply(5, body=open_out(0)))
    device.settle()
    assert sent.recv(1000) == reply(5, body=open_out(0x0A))


def test_an_error_reply_is_sent_on_unchanged(kernel):
    device, sent = kernel
    device.pass_through(7, direct_io=False)
    os.write(device.fd, reply(5, error=-13))
    device.settle()
    assert sent.recv(1000) == reply(5, error=-13)


def test_without_a_reply_only_the_descriptor_is_put_back(kernel):
    device, sent = kernel
    device.pass_through(7, direct_io=False)
    device.settle()
    assert device.diverted is None
    os.write(device.fd, reply(6, body=open_out(0x2)))
    assert sent.recv(1000) == reply(6, body=open_out(0x2))


def test_a_notification_of_another_thread_is_sent_on_before_the_reply(kernel):
    device, sent = kernel
    device.pass_through(7, direct_io=False)
    os.write(device.fd, reply(0, error=3, body=b"notification"))
    os.write(device.fd, reply(5, body=open_out(0)))
    device.settle()
    assert sent.recv(1000) == reply(0, error=3, body=b"notification")
    assert sent.recv(1000) == reply(5, body=open_out(0x80, 7))


def test_a_notification_alone_does_not_hold_up(kernel):
    device, sent = kernel
    device.pass_through(7, direct_io=False)
    os.write(device.fd, reply(0, error=3, body=b"notification"))
    device.settle()
    assert sent.recv(1000) == reply(0, error=3, body=b"notification")


def test_a_kernel_that_has_gone_away_is_no_error(kernel):
    device, sent = kernel
    device.pass_through(7, direct_io=False)
    os.write(device.fd, reply(5, body=open_out(0)))
    sent.close()
    device.settle()
    assert device.diverted is None
