"""How long it is worth while to poll on for the next request, instead of sleeping.

After a reply the next request of the same client is usually on its way, and
waking a sleeping core costs 20 to 40 us.
"""

import os
import time
from collections.abc import Callable

# Seconds for which to poll on after a reply: longer than a client that is woken on
# another core takes to send its next request (20 to 40 us).
SPIN_SECONDS = 60e-6
_SPIN_FLOOR = 8e-6  # below that polling on is not worth while: stop
# A sleep shorter than this says that polling on would have paid: waking up cost most of it.
_SHORT_SLEEP = 150e-6
_MAX_SHORT_SLEEPS = 64


class Polling:
    """The time to poll on, which adapts.

    A hit restores the whole time.  A miss halves it, down to nothing.  Then only
    short sleeps, which say that the client is fast again, bring it back; each
    time that this proves wrong, twice as many are asked for.
    """

    def __init__(self) -> None:
        self.seconds = SPIN_SECONDS
        self._asked = 1  # short sleeps to see before polling on again
        self._left = 1
        # With one processor the client can only go on when the daemon yields it.  With more,
        # yielding would hand the daemon's to a process that computes, for milliseconds.
        self._alone = len(os.sched_getaffinity(0)) == 1

    def poll_on(self, poll: Callable[[int], object]) -> bool:
        """Call *poll* with time zero until there is something, or as long as it is worth while.

        Each poll lets go of the interpreter lock, so threads go on.
        """
        clock, seconds = time.perf_counter, self.seconds
        if not seconds:
            return False
        end = clock() + seconds
        while clock() < end:
            if poll(0):
                self.hit()
                return True
            if self._alone:
                os.sched_yield()
        self.missed()
        return False

    def hit(self) -> None:
        """Note that a request came while polling."""
        self.seconds = SPIN_SECONDS
        self._asked = 1

    def missed(self) -> None:
        """Note that none came."""
        self.seconds /= 2
        if self.seconds < _SPIN_FLOOR:
            self.seconds = 0.0
            self._asked = min(2 * self._asked, _MAX_SHORT_SLEEPS)
            self._left = self._asked

    def slept(self, seconds: float) -> None:
        """Note how long the sleep until the next request was."""
        if self.seconds or seconds > _SHORT_SLEEP:
            return
        self._left -= 1
        if self._left <= 0:
            self.seconds = SPIN_SECONDS
