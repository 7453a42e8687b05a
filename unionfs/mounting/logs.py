"""Where log lines go: to stderr while someone waits for us, then to one of the system's logs."""

import contextlib
import logging
import os
import sys
import syslog
from types import TracebackType

_PRIORITY = {
    logging.DEBUG: syslog.LOG_DEBUG,
    logging.INFO: syslog.LOG_INFO,
    logging.WARNING: syslog.LOG_WARNING,
    logging.ERROR: syslog.LOG_ERR,
    logging.CRITICAL: syslog.LOG_CRIT,
}
# Characters; the kernel takes lines of 1024 bytes less a prefix (kernel/printk/internal.h).
_KERNEL_LINE = 900
_LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG)  # by the number of -v


class _Stderr(logging.Formatter):
    """`unionfs: warning: ...`, as messages of commands look."""

    def format(self, record: logging.LogRecord) -> str:
        return f"unionfs: {record.levelname.lower()}: {super().format(record)}"


class _Syslog(logging.Handler):
    """Lines for the journal; without a socket at /dev/log they are lost, as syslog(3) has it."""

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record).encode("utf-8", "backslashreplace").decode()  # any name
        syslog.syslog(_PRIORITY.get(record.levelno, syslog.LOG_NOTICE), text)


class _KernelLog(logging.Handler):
    """Lines for /dev/kmsg, which never waits: the journal, which reads it, lies on the union."""

    _DAEMON = 3 << 3  # syslog(3), LOG_DAEMON

    def __init__(self) -> None:
        super().__init__()
        self._fd = os.open("/dev/kmsg", os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        self._pid = os.getpid()

    def emit(self, record: logging.LogRecord) -> None:
        priority = self._DAEMON | _PRIORITY.get(record.levelno, syslog.LOG_NOTICE)
        for line in self.format(record).splitlines():
            text = f"<{priority}>unionfs[{self._pid}]: {line}"[:_KERNEL_LINE]
            with contextlib.suppress(OSError):  # EAGAIN: more than the kernel wants in a while
                os.write(self._fd, text.encode("utf-8", "backslashreplace"))


def to_stderr(verbosity: int) -> None:
    """Log to stderr; *verbosity* is the number of -v."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Stderr())
    logging.basicConfig(
        level=_LEVELS[min(verbosity, len(_LEVELS) - 1)], handlers=[handler], force=True
    )


def to_syslog() -> None:
    """Log to syslog from now on, as a daemon named unionfs; the level stays."""
    syslog.openlog("unionfs", syslog.LOG_PID | syslog.LOG_NDELAY, syslog.LOG_DAEMON)
    _to(_Syslog())


def to_kernel_log() -> None:
    """Log to the kernel's log from now on; the level stays."""
    _to(_KernelLog())


def _to(handler: logging.Handler) -> None:
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    sys.excepthook = _log_death


def _log_death(
    kind: type[BaseException], exc: BaseException, traceback: TracebackType | None
) -> None:
    """Log what ends the process; nobody reads its stderr any more."""
    logging.getLogger(__name__).critical("daemon failed", exc_info=(kind, exc, traceback))
