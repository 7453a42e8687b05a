"""The event loop: how pyfuse3 waits for the next request.

pyfuse3 finds trio in an attribute of its own module (pyfuse3.asyncio replaces
it, too).  While a session serves, `Loop.as_trio` stands there.  trio stays the
runtime.  What changes is the wait between two requests:

- **No pass through trio while requests come in.**  The device is polled with
  time zero first.  A pass costs about 15 us, the poll 0.4 us.
- **Poll on for a while** after a reply (`polling`).  Then a short sleep in
  poll(2), and idle, the process sleeps in epoll.
- **A pass is made in time all the same**, by the clock: timers, signals,
  cancellation and finished threads wait no longer than `PASS_SECONDS`, or
  `BUSY_PASS_SECONDS` while some handler waits for something else than requests.  But
  where a pass takes long (an emulated machine, a slow board), passes are rare enough to
  leave most of the time for requests (`_schedule_pass`).

Several workers (pyfuse3's word for its reading tasks) run, so that a handler
which waits for a thread keeps nobody waiting.  Two rules make that sound:

1. *A worker leaves the wait only when a poll with time zero has just said
   "readable", with no await since.*  So at most one worker reads per request,
   and none blocks the process in read(2), without any lock.  (A `Dispatcher`
   reads all requests.  Then a worker leaves only when the file system is
   unmounted, for libfuse to find that out.)
2. *When a task step ends, one of the idle workers watches the device in epoll,*
   the others rest.  `after_task_step`, a trio instrument, keeps it: trio calls
   it after every step of every task, whether the task waits or has ended.  (It
   is called per pass, not per request.)
"""

import os
import select
import time
from collections.abc import Awaitable, Callable
from types import SimpleNamespace, TracebackType
from typing import Any, Protocol

import trio

from unionfs.fuse.session.dispatch import Dispatcher
from unionfs.fuse.session.polling import Polling

# Seconds after which a loop under load makes a pass through trio.  A pass costs
# about 15 us, so 2 ms cost less than 1 %.
PASS_SECONDS = 2e-3
BUSY_PASS_SECONDS = 0.25e-3
# The time between two passes: at least so many times the cost of a pass, a lower multiple when
# busy, and at most so many seconds.  Emulated by QEMU a pass takes 1 to 3 ms, more than most
# requests: at a boot there passes were 44 % of the daemon's time (2026-11).
_SHARE, _BUSY_SHARE = 50, 4
_LONGEST_SECONDS = 50e-3

# Seconds for which trio may be kept from its turn, once, when requests cease.
_NAP_MILLISECONDS = 10


class Replies(Protocol):
    """The go-between of libfuse's descriptor and the device; see `device`."""

    diverted: Any

    def settle(self) -> None:
        """Send on the diverted reply."""


class Loop(trio.abc.Instrument):
    """pyfuse3 waits with trio alone; diverted replies are settled at the end of a task step."""

    Lock: Callable[[], Any] = trio.Lock

    def __init__(self, replies: Replies) -> None:
        self.asked = False  # have requests come since this was set to False?
        self._replies = replies
        self._device = -1

    def watch(self, device: int) -> None:
        """Wait for *device* from now on.

        pyfuse3 knows another descriptor, which does not always mean the device.
        """
        self._device = device

    async def wait_readable(self, _fd: int) -> None:
        """Wait as pyfuse3 does: under its lock, in epoll."""
        await trio.lowlevel.wait_readable(self._device)
        self.asked = True

    def notify_closing(self, _fd: int) -> None:
        """Wake the waiting worker: `pyfuse3.terminate`."""
        trio.lowlevel.notify_closing(self._device)

    def after_task_step(self, _task: trio.lowlevel.Task) -> None:
        """Keep the rule that replies are diverted within one step only; see `device`."""
        if self._replies.diverted is not None:
            self._replies.settle()

    def as_trio(self, wait_readable: Callable[[int], Awaitable[None]]) -> SimpleNamespace:
        """Return the stand-in for `pyfuse3.trio`; its `wait_readable` may be replaced later."""
        lowlevel = SimpleNamespace(
            wait_readable=wait_readable,
            notify_closing=self.notify_closing,
            current_task=trio.lowlevel.current_task,
            current_trio_token=trio.lowlevel.current_trio_token,
        )
        return SimpleNamespace(
            lowlevel=lowlevel,
            Lock=self.Lock,
            open_nursery=trio.open_nursery,
            ClosedResourceError=trio.ClosedResourceError,
        )


class _NoLock:
    """Stands in for the lock around pyfuse3's wait, which rule 1 makes needless."""

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        pass


class FastLoop(Loop):
    """The wait as the module's docstring tells it."""

    Lock = _NoLock

    def __init__(self, replies: Replies) -> None:
        super().__init__(replies)
        self.polling = Polling()
        self._dispatcher: Dispatcher | None = None
        self._poll = self._poll_to_nap = select.poll().poll
        self._waking = -1
        self._next_pass = 0.0  # time.perf_counter()
        self._cost = 15e-6  # seconds that a pass takes
        self._closed = False
        self._watched = False  # a worker waits in epoll, or has been told to
        self._resting = trio.lowlevel.ParkingLot()
        self._serving = False  # the step that runs has taken a request
        self._away: set[trio.lowlevel.Task] = set()  # workers whose handlers wait

    def watch(self, device: int) -> None:
        """Wait for *device* from now on."""
        super().watch(device)
        poll = select.poll()
        poll.register(device, select.POLLIN)
        self._poll = self._poll_to_nap = poll.poll

    def serve_with(self, dispatcher: Dispatcher) -> None:
        """Let *dispatcher* take the requests from now on."""
        self._dispatcher = dispatcher

    def wake_for(self, fd: int) -> None:
        """End a nap when *fd* is readable, an eventfd(2): threads have something for the loop."""
        poll = select.poll()
        poll.register(self._device, select.POLLIN)
        poll.register(fd, select.POLLIN)
        self._poll_to_nap = poll.poll
        self._waking = fd

    async def wait_readable(self, _fd: int) -> None:
        """Return when libfuse can read a request at once (rule 1)."""
        if self._replies.diverted is not None:
            self._replies.settle()
        self._serving = False
        if self._away:
            self._away.discard(trio.lowlevel.current_task())
        while True:
            before, begun = time.perf_counter(), self._has_begun_tasks()
            if begun or before >= self._next_pass:
                await trio.lowlevel.checkpoint()
                if not begun:  # even so, other tasks may have had a long turn in a pass
                    self._cost = min(time.perf_counter() - before, 2 * self._cost)
                self._schedule_pass()
                if begun and self._dispatcher is not None:
                    self._dispatcher.use_pause()
            if self._closed:
                raise trio.ClosedResourceError
            if not (self._poll(0) or self.polling.poll_on(self._poll) or self._nap()):
                await self._sleep()
            self.asked = True
            if self._dispatcher is None or self._dispatcher.serve(
                min(self._next_pass, time.perf_counter() + PASS_SECONDS)
            ):
                break
        self._serving = True

    def _has_begun_tasks(self) -> bool:
        """Tell whether the dispatcher waits for tasks that have not had their turn."""
        dispatcher = self._dispatcher
        if dispatcher is None or not dispatcher.begun:
            return False
        dispatcher.begun = False
        return True

    def _schedule_pass(self) -> None:
        busy = self._is_busy()
        least, share = (BUSY_PASS_SECONDS, _BUSY_SHARE) if busy else (PASS_SECONDS, _SHARE)
        interval = min(max(least, share * self._cost), _LONGEST_SECONDS)
        self._next_pass = time.perf_counter() + interval

    def _is_busy(self) -> bool:
        """Tell whether replies wait for something else than requests."""
        return bool(self._away) or (self._dispatcher is not None and self._dispatcher.waiting > 0)

    def _nap(self) -> bool:
        """Sleep in poll(2) for a moment, or until the client's next request.

        Where client and daemon share a processor, polling on keeps the client from it, and a
        request that finds the daemon in epoll costs two passes through trio.
        """
        if self._closed or self._is_busy():
            return False
        before = time.perf_counter()
        ready = self._poll_to_nap(_NAP_MILLISECONDS)
        if not ready or self._is_woken(ready):
            return False
        self.polling.slept(time.perf_counter() - before)
        return True

    def _is_woken(self, ready: list[tuple[int, int]]) -> bool:
        """Tell whether threads have ended a nap."""
        if self._waking < 0 or self._waking not in dict(ready):
            return False
        os.eventfd_read(self._waking)
        return True

    async def _sleep(self) -> None:
        while True:
            if self._watched:
                await self._resting.park()  # ended by after_task_step: the watch is ours then
            self._watched = True
            try:
                await self._watch_in_epoll()
            finally:
                self._watched = False
            if self._poll(0):
                self._schedule_pass()
                return

    async def _watch_in_epoll(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError
        before = time.perf_counter()
        await trio.lowlevel.wait_readable(self._device)
        self.polling.slept(time.perf_counter() - before)

    def notify_closing(self, fd: int) -> None:
        """Wake the waiting workers, one after the other: each leaves the watch to the next."""
        self._closed = True
        super().notify_closing(fd)

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """Keep rule 2, and note which workers wait in a handler."""
        super().after_task_step(task)
        if self._serving:
            self._serving = False
            self._away.add(task)
            self._next_pass = 0.0
        if not self._watched and self._resting:
            self._watched = True
            self._resting.unpark()

    def task_exited(self, task: trio.lowlevel.Task) -> None:
        """Forget a worker that has ended; it is the one whose step runs."""
        self._serving = False
        self._away.discard(task)
