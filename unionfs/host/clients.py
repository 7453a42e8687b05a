"""Whether a client that waits for a reply still wants it: procthread_status(5).

A request tells its thread, which sleeps in the kernel until the reply comes.  Signals
that are sent to the thread stay pending meanwhile.  A signal that ends the process shows as
SIGKILL in each of its threads (kernel/signal.c, complete_signal).
"""

import os
import signal

# Signals that ask a program to end, even where it has a handler for them.  Others (SIGCHLD,
# SIGWINCH, SIGURG) are no reason: no program expects EINTR of stat(2).
_ENDING = sum(
    1 << number - 1
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGKILL, signal.SIGTERM)
)
_PENDING = (b"SigPnd:", b"ShdPnd:")


def is_ending(thread: int) -> bool:
    """Tell whether a thread is gone, or has been asked to end; False for one that cannot be seen.

    The thread 0 cannot be seen, nor can any thread where /proc is missing, or is that of another
    pid namespace.
    """
    if not thread or not _is_proc_ours():
        return False
    pending = blocked = 0
    try:
        with open(f"/proc/{thread}/status", "rb") as lines:
            for line in lines:
                key, _, value = line.partition(b"\t")
                if key in _PENDING:
                    pending |= int(value, 16)
                elif key == b"SigBlk:":
                    blocked = int(value, 16)
    except OSError:  # the thread has ended
        return True
    return bool(pending & ~blocked & _ENDING)


def _is_proc_ours() -> bool:
    try:
        return os.readlink("/proc/self") == str(os.getpid())
    except OSError:
        return False
