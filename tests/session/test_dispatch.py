"""Requests answered without libfuse, and those handed to it."""

import errno
import os
import struct
import threading
import time

import pytest
import trio
import trio.testing

from tests.session.kernel import reply, request
from unionfs.fuse.session import messages
from unionfs.fuse.session.crew import Later, Soon, Waiting, at_once
from unionfs.fuse.session.dispatch import NO_REPLY, Dispatcher
from unionfs.fuse.session.polling import Polling

pytestmark = pytest.mark.trio

GETATTR, FORGET, WRITE, STATFS, FSYNC, LSEEK, INTERRUPT, ACCESS = 3, 2, 16, 17, 20, 46, 36, 34
CREATE, OPEN, RELEASE, FSYNCDIR = 35, 14, 18, 30


class Answers:
    """A handler of each kind."""

    def __init__(self):
        self.seen = []
        self.table = {
            GETATTR: self.answer,
            FORGET: self.keep_silent,
            WRITE: self.wait,
            STATFS: self.catch_up,
            CREATE: self.find_no_room,
            RELEASE: self.find_no_room,
            FSYNCDIR: lambda *arguments: Waiting(lambda: self.wait_for_room(*arguments)),
            OPEN: lambda *arguments: Waiting(lambda: self.wait_for_room(*arguments)),
            FSYNC: self.have_made,
            LSEEK: self.await_data,
        }
        self.data = [None, None, b"come"]  # what attempts find, one after the other

    def answer(self, unique, node, body, uid, gid):
        self.seen.append((node, bytes(body), uid, gid))
        if node == 13:
            raise FileNotFoundError(errno.ENOENT, "gone")
        return messages.data(unique, b"answer")

    def keep_silent(self, _unique, node, _body, _uid, _gid):
        self.seen.append(node)
        return NO_REPLY

    def catch_up(self, unique, *_rest):
        self.look()
        self.seen.append("looked")
        return messages.data(unique, b"looked")

    def wait(self, unique, node, *_rest):
        async def job():
            await self.event.wait()
            if node == 13:
                raise OSError(errno.EIO, "bad sector")
            return messages.data(unique, b"waited")

        return Waiting(job)

    def have_made(self, unique, node, *_rest):
        def job():
            self.seen.append(threading.current_thread())
            if node == 13:
                raise OSError(errno.EIO, "bad sector")
            return messages.data(unique, b"made")

        return Later(job)

    def await_data(self, unique, node, *_rest):
        def attempt():
            found = self.data.pop(0)
            if isinstance(found, Exception):
                raise found
            return found and messages.data(unique, found)

        return Soon(attempt, lambda: self.have_made(unique, node))

    def gives_room(self, _opcode, node, _body):
        return node == 13

    def find_no_room(self, unique, node, *_rest):
        self.full -= 1
        if self.full >= 0:
            raise OSError(node, "no room")
        return messages.data(unique, b"room")

    async def wait_for_room(self, *arguments):
        return self.find_no_room(*arguments)

    def foresee(self):
        self.idle = list(self.seen)  # what was done before there was time for this
        return False

    def explain(self, error, opcode, node):
        self.seen.append((opcode, node))
        return error.errno


def soon():
    """Return a time that is not reached, however busy the machine is: nobody waits for it."""
    return time.perf_counter() + 60


@pytest.fixture
async def dispatched(kernel):
    device, sent = kernel
    answers = Answers()
    dispatcher = Dispatcher(device, answers, 1 << 20, Polling())
    yield dispatcher, answers, device, sent
    dispatcher.close()


async def test_a_request_is_answered_from_its_bytes(dispatched):
    dispatcher, answers, _, sent = dispatched
    sent.send(request(GETATTR, 5, 77, b"body", uid=3, gid=4))
    assert not dispatcher.serve(soon())
    assert sent.recv(1000) == reply(5, body=b"answer")
    assert answers.seen == [(77, b"body", 3, 4)]


async def test_what_waits_is_answered_in_one_turn(dispatched):
    dispatcher, answers, _, sent = dispatched
    for number in range(3):
        sent.send(request(GETATTR, 5 + number, number))
    sent.send(request(FORGET, 9, 99))
    assert not dispatcher.serve(soon())
    assert [sent.recv(1000) for _ in range(3)] == [reply(5 + n, body=b"answer") for n in range(3)]
    assert answers.seen == [(0, b"", 0, 0), (1, b"", 0, 0), (2, b"", 0, 0), 99]
    with pytest.raises(BlockingIOError):
        sent.recv(1000)


async def test_when_the_time_is_over_one_request_is_answered(dispatched):
    dispatcher, answers, _, sent = dispatched
    for number in range(2):
        sent.send(request(GETATTR, 5, number))
    assert not dispatcher.serve(0.0)
    assert len(answers.seen) == 1


async def test_an_error_is_told_and_answered(dispatched):
    dispatcher, answers, _, sent = dispatched
    sent.send(request(GETATTR, 5, 13))
    assert not dispatcher.serve(soon())
    assert sent.recv(1000) == reply(5, error=-errno.ENOENT)
    assert answers.seen[1:] == [(GETATTR, 13)]


async def test_a_request_without_a_handler_is_refused(dispatched):
    dispatcher, answers, _, sent = dispatched
    sent.send(request(ACCESS, 5, 77, b"body"))
    assert not dispatcher.serve(soon())
    assert sent.recv(1000) == reply(5, error=-errno.ENOSYS)
    assert answers.seen == []


async def test_a_task_makes_what_waits_for_something_else(dispatched):
    dispatcher, answers, _, sent = dispatched
    answers.event = trio.Event()
    for number in range(3):
        sent.send(request(WRITE, 5 + number, 77 + number))
    assert not dispatcher.serve(soon())
    await trio.testing.wait_all_tasks_blocked()
    assert dispatcher.waiting == 3
    with pytest.raises(BlockingIOError):
        sent.recv(1000)
    answers.event.set()
    got = {await heard(sent) for _ in range(3)}
    assert got == {reply(5 + number, body=b"waited") for number in range(3)}
    await trio.testing.wait_all_tasks_blocked()
    assert dispatcher.waiting == 0


async def test_a_task_has_its_turn_before_the_daemon_waits_for_more(dispatched):
    dispatcher, answers, _, sent = dispatched
    answers.event = trio.Event()
    sent.send(request(WRITE, 5, 77))
    assert not dispatcher.serve(soon())
    assert dispatcher.begun
    answers.event.set()
    await heard(sent)


async def test_what_does_not_wait_needs_no_task():
    async def job(event):
        await event.wait()
        return b"made"

    event = trio.Event()
    event.set()
    with pytest.raises(RuntimeError, match="declared not to"):
        at_once(job(event))  # it would let others run

    async def quick():
        return b"made"

    assert at_once(quick()) == b"made"


async def test_an_error_of_what_waits_is_told_and_answered(dispatched):
    dispatcher, answers, _, sent = dispatched
    answers.event = trio.Event()
    answers.event.set()
    sent.send(request(WRITE, 5, 13))
    assert not dispatcher.serve(soon())
    assert await heard(sent) == reply(5, error=-errno.EIO)
    assert answers.seen == [(WRITE, 13)]


async def test_nobody_is_told_of_interrupts(dispatched):
    dispatcher, _, _, sent = dispatched
    sent.send(request(INTERRUPT, 5, 0, struct.pack("=Q", 4)))
    assert not dispatcher.serve(soon())
    with pytest.raises(BlockingIOError):
        sent.recv(1000)


async def test_an_unmounted_device_is_left_to_libfuse(dispatched):
    dispatcher, _, device, _ = dispatched
    end, other = os.pipe()
    os.dup2(other, device.device)  # reading it is an error other than "nothing there"
    assert dispatcher.serve(soon())
    os.close(end)
    os.close(other)


async def heard(sent):
    """Return the next message for the kernel."""
    with trio.fail_after(60):
        await trio.lowlevel.wait_readable(sent)
    return sent.recv(1000)


async def test_a_thread_makes_and_sends_what_has_to_wait(dispatched):
    dispatcher, answers, _, sent = dispatched
    for number in range(40):
        sent.send(request(FSYNC, 5 + number, 77))
        assert not dispatcher.serve(soon())
    got = {await heard(sent) for _ in range(40)}
    assert got == {reply(5 + number, body=b"made") for number in range(40)}
    assert threading.current_thread() not in answers.seen


async def test_what_a_thread_fails_at_is_told_where_the_handlers_run(dispatched):
    dispatcher, answers, _, sent = dispatched
    sent.send(request(FSYNC, 5, 13))
    assert not dispatcher.serve(soon())
    assert await heard(sent) == reply(5, error=-errno.EIO)
    assert answers.seen[1:] == [(FSYNC, 13)]


async def test_where_no_thread_can_be_started_all_is_answered(dispatched, monkeypatch, caplog):
    dispatcher, answers, _, sent = dispatched

    def fail(_thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)
    for number in range(3):
        sent.send(request(FSYNC, 5 + number, 77))
    assert not dispatcher.serve(soon())
    assert [await heard(sent) for _ in range(3)] == [reply(5 + n, body=b"made") for n in range(3)]
    assert answers.seen == [threading.current_thread()] * 3
    assert "no more can start" in caplog.text


async def test_data_that_is_on_its_way_is_looked_for_again(dispatched):
    dispatcher, answers, _, sent = dispatched
    sent.send(request(LSEEK, 5, 77))
    assert not dispatcher.serve(soon())
    assert sent.recv(1000) == reply(5, body=b"come")
    assert answers.data == []


async def test_data_that_does_not_come_is_left_to_a_thread(dispatched):
    dispatcher, answers, _, sent = dispatched
    sent.send(request(LSEEK, 5, 77))
    assert not dispatcher.serve(0.0)
    assert await heard(sent) == reply(5, body=b"made")
    assert threading.current_thread() not in answers.seen


async def test_an_error_of_what_is_looked_for_again_is_told_and_answered(dispatched):
    dispatcher, answers, _, sent = dispatched
    answers.data = [None, OSError(errno.EIO, "bad sector")]
    sent.send(request(LSEEK, 5, 77))
    assert not dispatcher.serve(soon())
    assert sent.recv(1000) == reply(5, error=-errno.EIO)
    assert (LSEEK, 77) in answers.seen


async def test_what_nobody_waits_for_comes_after_what_somebody_does(dispatched):
    dispatcher, answers, _, sent = dispatched
    sent.send(request(FORGET, 5, 99))
    sent.send(request(GETATTR, 6, 7))
    assert not dispatcher.serve(soon())
    assert answers.seen == answers.idle == [(7, b"", 0, 0), 99]


async def test_what_gives_room_is_not_put_off_nor_what_came_before_it(dispatched):
    dispatcher, answers, _, sent = dispatched
    for number, node in ((4, 98), (5, 13)):
        sent.send(request(FORGET, number, node))
    sent.send(request(GETATTR, 6, 77))
    assert not dispatcher.serve(soon())
    assert answers.seen == [98, 13, (77, b"", 0, 0)]


# A handler, which a task calls once more before it pauses, and the job of a task.
@pytest.mark.parametrize(("opcode", "attempts"), [(CREATE, 5), (OPEN, 4)])
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT])
async def test_what_finds_no_room_is_tried_a_few_times(dispatched, opcode, attempts, error):
    dispatcher, answers, _, sent = dispatched
    answers.full = 1
    sent.send(request(opcode, 5, error))
    sent.send(request(FORGET, 6, 98))
    assert not dispatcher.serve(soon())
    assert await heard(sent) == reply(5, body=b"room")
    answers.full = attempts
    sent.send(request(opcode, 5, error))
    assert not dispatcher.serve(soon())
    assert await heard(sent) == reply(5, error=-error)
    assert answers.full == 0
    assert answers.seen == [98, (opcode, error)]


@pytest.mark.parametrize("opcode", [FSYNCDIR, RELEASE])
async def test_a_sync_and_a_close_are_not_tried_again(dispatched, opcode):
    dispatcher, answers, _, sent = dispatched
    answers.full = 1
    sent.send(request(opcode, 5, errno.ENOSPC))
    assert not dispatcher.serve(soon())
    assert await heard(sent) == reply(5, error=-errno.ENOSPC)
    assert answers.full == 0


async def test_what_was_put_off_is_done_for_who_asks_for_it(dispatched):
    dispatcher, answers, _, sent = dispatched
    answers.look = dispatcher.catch_up
    sent.send(request(FORGET, 4, 98))
    sent.send(request(STATFS, 5, 77))
    assert not dispatcher.serve(soon())
    assert sent.recv(1000) == reply(5, body=b"looked")
    assert answers.seen == [98, "looked"]


async def test_under_a_flood_not_all_is_put_off(dispatched):
    dispatcher, answers, _, sent = dispatched
    for number in range(30):
        sent.send(request(FORGET, 5 + number, number))
    sent.send(request(GETATTR, 5, 77))
    assert not dispatcher.serve(soon())
    assert answers.seen.index((77, b"", 0, 0)) > 10
    assert [seen for seen in answers.seen if isinstance(seen, int)] == list(range(30))


async def test_a_bug_in_foresight_ends_that_alone(dispatched, caplog):
    dispatcher, _, _, sent = dispatched

    def fail():
        raise ValueError("a bug")

    dispatcher._foresee = fail  # noqa: SLF001
    for number in range(2):
        sent.send(request(GETATTR, 5 + number, 77))
        assert not dispatcher.serve(soon())
        assert sent.recv(1000) == reply(5 + number, body=b"answer")
    assert caplog.text.count("nothing is made ready any more") == 1
    caplog.clear()


async def test_threads_end_when_all_is_done(dispatched):
    dispatcher, answers, _, sent = dispatched
    sent.send(request(FSYNC, 5, 77))
    dispatcher.serve(soon())
    dispatcher.close()
    assert sent.recv(1000) == reply(5, body=b"made")
    assert not answers.seen[0].is_alive()
